"""Processors of the conditional models: a source x and a target y to tensors."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from .checks import check_choice
from .configuration_conditional_vae import SOURCE_CONDITIONINGS
from .processing_vae import ONE_THREAD_READS, VAEProcessor
from .prompt_templates import SOURCE, PromptTemplate, check_templates


class ConditionalVAEProcessor(VAEProcessor):
    r"""
    The two tokenizers of a conditional model: source x as `text`, y as `text_target`.

    `processor(text)` gives what `generate` needs: `input_ids` for the encoder and, with `source_conditioning="prompt"`, the
    prompt in the decoder's vocabulary. `text_target` adds `labels` and the pair that q(z|x,y) reads.

    The prompt is the source itself, unless `prompt_template` or `use_chat_template` says what stands around it. Then:

    - The last token of what stands behind the source is the start token of y, which the model puts there, so the prompt ends in
      front of it. It is the processor's `start_token_id`, and the model's `config.decoder_start_token_id` must be the same. If
      nothing stands behind the source, the start token is the model's own.
    - `max_length` counts the tokens of the source; those of the template, `template_length`, stand around them.
    - A special token that is written in a source is text in a chat template, so that nobody can forge a turn.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the decoder's.
        encoder_tokenizer (`PreTrainedTokenizerBase`): the encoder's.
        source_conditioning (`str`, defaults to `"prompt"`): the model's.
        prompt_template (`str`, *optional*): the prompt, with `{source}` in the place of the source: `"{source}\nParaphrase:\n"`.
        use_chat_template (`bool`, defaults to `False`): whether the chat template of the decoder's tokenizer writes the prompt. The
            source, or with a `prompt_template` what that makes of it, is then what the user says, and y is the answer.

    Raises:
        ValueError: `prompt_template` does not hold `{source}` once, the tokenizer has no chat template or one that refuses the
            message, or there is a template and the decoder reads no prompt.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder_tokenizer: PreTrainedTokenizerBase,
        source_conditioning: str = "prompt",
        prompt_template: str | None = None,
        use_chat_template: bool | None = False,
        **kwargs,
    ):
        check_choice("source_conditioning", source_conditioning, SOURCE_CONDITIONINGS)
        check_templates(source_conditioning, prompt_template, use_chat_template)
        super().__init__(tokenizer, encoder_tokenizer, **kwargs)
        self.source_conditioning = source_conditioning
        self.prompt_template, self.use_chat_template = prompt_template, use_chat_template
        # It raises an error for a chat template that cannot serve.
        self._template()

    def _template(self) -> PromptTemplate | None:
        """What stands around a source in the prompt; `None` if nothing does."""
        if self.use_chat_template:
            return PromptTemplate.from_chat(self.tokenizer, [{"role": "user", "content": self.prompt_template or SOURCE}])
        return None if self.prompt_template is None else PromptTemplate.parse(self.prompt_template)

    @property
    def template_length(self) -> int:
        template = self._template()
        with ONE_THREAD_READS:
            return 0 if template is None else template.length(self.tokenizer)

    @property
    def start_token_id(self) -> int | None:
        template = self._template()
        with ONE_THREAD_READS:
            return None if template is None else template.start_token_id(self.tokenizer)

    def features(self, texts: list, targets: list[str] | None, cuts: dict[str, dict[str, Any]]) -> dict[str, list]:
        """Unpadded token ids by the names of the model's arguments; `cuts` has tokenizers' options for text, target and pair."""
        source = self.encoder_tokenizer(texts, **cuts["text"])
        features = {name: source[name] for name in ("input_ids", "attention_mask")}
        if self.source_conditioning == "prompt":
            features["prompt_input_ids"] = self._source_prompts(texts, cuts["text"])
            features["prompt_attention_mask"] = [[1] * len(row) for row in features["prompt_input_ids"]]
        if targets is not None:
            pair = self._pair(texts, targets, cuts)
            features.update({f"posterior_{name}": rows for name, rows in pair.items()})
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def _pair(self, texts: list[str], targets: list[str], cuts: dict[str, dict[str, Any]]) -> dict[str, list[list[int]]]:
        """
        x and y as q(z|x,y) reads them, with a separator if the encoder's tokenizer has no template for pairs; `token_type_ids` are
        1 on y if the template does not say otherwise. x is cut as it is cut alone. Of y the beginning is kept, on which the decoder
        is scored.
        """
        tokenizer = self.encoder_tokenizer
        if tokenizer.num_special_tokens_to_add(pair=True):
            # Silently: what is too long for the encoder is cut below.
            pair = dict(tokenizer(texts, targets, return_special_tokens_mask=True, verbose=False))
            parts = self._parts_of_template(texts, pair.pop("special_tokens_mask"))
        else:
            pair, parts = self._joined(texts, targets)
        pair.setdefault("token_type_ids", [[int(part == 1) for part in row] for row in parts])
        kept = [self._kept(row, cuts) for row in parts]
        return {name: [[row[place] for place in places] for row, places in zip(rows, kept)] for name, rows in pair.items()}

    def _parts_of_template(self, texts: list[str], special_tokens_mask: list[list[int]]) -> list[list[int | None]]:
        """Which tokens of pairs are of x (0), of y (1) or the template's own (`None`)."""
        parts: list[list[int | None]] = []
        sources = self.encoder_tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for mask, source in zip(special_tokens_mask, sources):
            places = iter(range(len(mask)))
            parts.append([None if special else int(next(places) >= len(source)) for special in mask])
        return parts

    def _joined(self, texts: list[str], targets: list[str]) -> tuple[dict[str, list[list[int]]], list[list[int | None]]]:
        """x, a separator and y as one text, and which tokens are of x (0), of y (1) or of neither (`None`)."""
        tokenizer = self.encoder_tokenizer
        separator = tokenizer.sep_token or tokenizer.eos_token or "\n"
        if tokenizer.is_fast:
            both = [f"{x}{separator}{y}" for x, y in zip(texts, targets)]
            pair = dict(tokenizer(both, return_offsets_mapping=True, verbose=False))
            rows = zip(texts, pair.pop("offset_mapping"))
            return pair, [[_part_at(start, end, len(x), len(x) + len(separator)) for start, end in row] for x, row in rows]
        # Such a tokenizer cannot say where in a text its tokens stand.
        sources, ends, others = (tokenizer(each, verbose=False)["input_ids"] for each in (texts, [separator] * len(texts), targets))
        ids = [[*x, *end, *y] for x, end, y in zip(sources, ends, others)]
        parts = [[*[0] * len(x), *[None] * len(end), *[1] * len(y)] for x, end, y in zip(sources, ends, others)]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}, parts

    def _kept(self, parts: list[int | None], cuts: dict[str, dict[str, Any]]) -> list[int]:
        """The places of the tokens of a pair that are kept."""
        places: dict[int | None, list[int]] = {
            part: [place for place, each in enumerate(parts) if each == part] for part in (0, 1, None)
        }
        source, target, around = places[0], places[1], places[None]
        tokenizer, whole = self.encoder_tokenizer, len(parts)
        if cuts["pair"]["truncation"]:
            whole = (cuts["pair"]["max_length"] or tokenizer.model_max_length) - len(around)
        if cuts["text"]["truncation"]:
            # Without a length of its own, x leaves y as much as y needs, but not more than a half.
            own = cuts["text"]["max_length"]
            most = max(whole - len(target), whole // 2) if own is None else own - tokenizer.num_special_tokens_to_add()
            source = source[max(len(source) - most, 0) :] if tokenizer.truncation_side == "left" else source[: max(most, 0)]
        if cuts["pair"]["truncation"]:
            target = target[: max(whole - len(source), 0)]
        return sorted([*source, *target, *around])

    def _source_prompts(self, texts: list[str], cut: dict[str, Any]) -> list[list[int]]:
        """What the decoder reads of each text in front of the start token."""
        template = self._template()
        if template is None:
            return [self._open(row) for row in self.tokenizer(texts, **cut)["input_ids"]]
        longest = None
        if cut["truncation"]:
            longest = (cut["max_length"] or self.tokenizer.model_max_length) + template.length(self.tokenizer)
        return template.prompts(self.tokenizer, texts, longest, keep_end=self.tokenizer.truncation_side == "left")

    def _open(self, prompt: list[int]) -> list[int]:
        """`prompt` without the EOS that some tokenizers close it with: the start token follows it."""
        closed = len(prompt) > 1 and prompt[-1] == self.tokenizer.eos_token_id
        return prompt[:-1] if closed else prompt


def _part_at(start: int, end: int, source: int, target: int) -> int | None:
    """Whether a token from `start` to `end` is of x, which ends at `source`, of y, which begins at `target`, or of neither."""
    if start < source:
        return 0
    return 1 if start >= target and end > start else None


class CVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`CVAEModel`]: `text` is the source, `text_target` the target."""


class ParaphraseVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`ParaphraseVAEModel`]: `text` is the original, `text_target` its paraphrase."""


__all__ = ["CVAEProcessor", "ConditionalVAEProcessor", "ParaphraseVAEProcessor"]
