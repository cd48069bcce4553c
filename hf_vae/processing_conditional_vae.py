"""Processors of the conditional models: a source x and a target y to tensors."""

from __future__ import annotations

from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

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
            pair = self._pair(texts, targets, cuts["pair"])
            features.update({f"posterior_{name}": rows for name, rows in pair.items()})
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def _pair(self, texts: list[str], targets: list[str], cut: dict[str, Any]) -> BatchEncoding:
        """
        x and y as q(z|x,y) reads them, with a separator if the encoder's tokenizer has no template for pairs. A fast tokenizer also
        says which tokens are y's, even if its encoder has no embedding for that.
        """
        tokenizer = self.encoder_tokenizer
        if tokenizer.num_special_tokens_to_add(pair=True):
            pair = tokenizer(texts, targets, **cut)
            if tokenizer.is_fast and "token_type_ids" not in pair:
                pair["token_type_ids"] = [[int(part == 1) for part in pair.sequence_ids(row)] for row in range(len(texts))]
            return pair
        separator = tokenizer.sep_token or tokenizer.eos_token or "\n"
        sources = [f"{x}{separator}" for x in texts]
        pair = tokenizer([x + y for x, y in zip(sources, targets)], return_offsets_mapping=tokenizer.is_fast, **cut)
        if tokenizer.is_fast:
            rows = zip(sources, pair.pop("offset_mapping"))
            pair["token_type_ids"] = [[int(start >= len(x) and end > start) for start, end in row] for x, row in rows]
        return pair

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


class CVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`CVAEModel`]: `text` is the source, `text_target` the target."""


class ParaphraseVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`ParaphraseVAEModel`]: `text` is the original, `text_target` its paraphrase."""


__all__ = ["CVAEProcessor", "ConditionalVAEProcessor", "ParaphraseVAEProcessor"]
