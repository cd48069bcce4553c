"""Text to tensors and back, for an encoder and a decoder that may have two vocabularies."""

from __future__ import annotations

import threading
from typing import Any

from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin

from .configuration_conditional_vae import SOURCE_CONDITIONINGS
from .configuration_vae import check_choice

Texts = str | list[str]
# A fast tokenizer keeps in itself where it cuts. A thread that asks for another length while the first one reads would change its.
ONE_THREAD_READS = threading.RLock()


def as_list(name: str, texts: Texts) -> list[str]:
    """
    `texts` as a list of strings.

    Raises:
        ValueError: there is nothing in it, or an item that is no text or is empty.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise ValueError(f"`{name}` is an empty list.")
    bad = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if bad:
        raise ValueError(f"`{name}` holds no text at position(s) {bad[:10]} (found {texts[bad[0]]!r}).")
    return texts


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """
    `AutoTokenizer.from_pretrained`, for parts that may have been saved without their tokenizer.

    Raises:
        OSError, ValueError: there is no tokenizer. For several families transformers makes one up that knows special tokens alone
            and reads every text as nothing.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise ValueError(f"{name_or_path} holds no tokenizer; save the part's own there, with `tokenizer.save_pretrained`.")
    return tokenizer


class VAEProcessor(ProcessorMixin):
    r"""
    The two tokenizers of a [`VAEModel`].

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the decoder's; decodes what `generate` returns. One without a padding token pads
            with its EOS.
        encoder_tokenizer (`PreTrainedTokenizerBase`): the encoder's.

    Raises:
        ValueError: the decoder's tokenizer has no EOS, so generation would not know where to stop.
    """

    tokenizer: PreTrainedTokenizerBase
    encoder_tokenizer: PreTrainedTokenizerBase

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder_tokenizer: PreTrainedTokenizerBase, **kwargs):
        if tokenizer.eos_token_id is None:
            raise ValueError("`tokenizer` has no EOS token; set one, generation ends with it.")
        for each in (tokenizer, encoder_tokenizer):
            if each.pad_token is None:
                each.pad_token = each.eos_token
        super().__init__(tokenizer, encoder_tokenizer, **kwargs)

    def __call__(
        self,
        text: Any,
        text_target: Texts | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        truncation: bool | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
    ) -> BatchEncoding:
        """
        What the model needs for `text`, and for `text_target` where it is given.

        Args:
            text (`str` or `list[str]`): what the encoder reads; for the VAE the text to reconstruct. Dialogues, for a processor of
                those.
            text_target (`str` or `list[str]`, *optional*): y, one for each text; adds `labels`.
            max_length (`int`, *optional*): truncates `text` to as many tokens in each vocabulary. The pair that q(z|x,y) reads is
                truncated, to both lengths together, where both are given.
            max_target_length (`int`, *optional*): truncates y to as many tokens, its EOS included.
            truncation (`bool`, *optional*): whether to truncate; by default where a length is given. `True` without a length
                truncates to what the tokenizer says that its model holds.
            padding (`bool` or `str`, defaults to `True`): the tokenizers' own option.
            return_tensors (`str`, *optional*, defaults to `"pt"`): `None` gives lists, unpadded.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`, and `labels` (-100 on padding) where there is a target.

        Raises:
            ValueError: an empty text, or texts and targets that differ in number.
        """
        texts, single = self.batch(text)
        targets = None if text_target is None else as_list("text_target", text_target)
        if targets is not None and len(targets) != len(texts):
            raise ValueError(f"`text` has {len(texts)} and `text_target` {len(targets)} texts; each text needs one target.")
        lengths = {"text": max_length, "target": max_target_length, "pair": None}
        if max_length is not None and max_target_length is not None:
            lengths["pair"] = max_length + max_target_length
        cuts = {
            name: {"max_length": length, "truncation": length is not None if truncation is None else truncation}
            for name, length in lengths.items()
        }
        with ONE_THREAD_READS:
            features = self.features(texts, targets, cuts)
        if return_tensors is None:
            if single:
                return BatchEncoding({name: rows[0] for name, rows in features.items()})
            return BatchEncoding(features)
        rows = [dict(zip(features, values)) for values in zip(*features.values())]
        return self.pad(rows, padding=padding, return_tensors=return_tensors)

    def batch(self, text: Any) -> tuple[list, bool]:
        """
        What was given as `text`, as a list, and whether it was a single one.

        Raises:
            ValueError: there is nothing in it, or an item that cannot be read.
        """
        return as_list("text", text), isinstance(text, str)

    def features(self, texts: list, targets: list[str] | None, cuts: dict[str, dict[str, Any]]) -> dict[str, list]:
        """Unpadded token ids by the names of the model's arguments; `cuts` has tokenizers' options for text, target and pair."""
        features = dict(self.encoder_tokenizer(texts, **cuts["text"]))
        if targets is not None:
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def label_ids(self, targets: list[str], cut: dict[str, Any]) -> list[list[int]]:
        """y and EOS in the decoder's vocabulary, nothing else."""
        rows = self.tokenizer(targets, add_special_tokens=False, **cut)["input_ids"]
        if cut["truncation"] and cut["max_length"] is not None:
            rows = [row[: cut["max_length"] - 1] for row in rows]
        return [[*row, self.tokenizer.eos_token_id] for row in rows]

    def pad(
        self,
        features: list[dict[str, list[int]]],
        padding: bool | str = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchEncoding:
        """
        Rows of unpadded features as one batch: the prompt is padded on the left, so that what is generated follows it directly,
        everything else on the right; labels with -100.

        Raises:
            ValueError: a feature that no argument of a model is named after, or a row that is empty or all padding.
        """
        batch: dict = {}
        options: dict[str, Any] = {"padding": padding, "pad_to_multiple_of": pad_to_multiple_of, "return_tensors": return_tensors}
        known = {"labels"}
        for prefix, tokenizer in (
            ("", self.encoder_tokenizer),
            ("posterior_", self.encoder_tokenizer),
            ("prompt_", self.tokenizer),
        ):
            names = [name for name in features[0] if name == f"{prefix}input_ids"]
            names += [f"{prefix}{name}" for name in ("attention_mask", "token_type_ids") if f"{prefix}{name}" in features[0]]
            known.update(names)
            if f"{prefix}input_ids" not in names:
                continue
            rows = [{name.removeprefix(prefix): row[name] for name in names} for row in features]
            check_rows(f"{prefix}attention_mask", [row.get("attention_mask", row["input_ids"]) for row in rows], any)
            side = "left" if prefix == "prompt_" else "right"
            padded = tokenizer.pad(rows, padding_side=side, return_attention_mask=True, **options)
            batch.update({f"{prefix}{name}": tensor for name, tensor in padded.items()})
        if "labels" in features[0]:
            check_rows("labels", [row["labels"] for row in features], len)
            rows = [{"input_ids": row["labels"]} for row in features]
            padded = self.tokenizer.pad(rows, padding_side="right", return_attention_mask=True, **options)
            batch["labels"] = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, -100)
        unknown = sorted(set(features[0]) - known)
        if unknown:
            raise ValueError(f"Features hold {', '.join(unknown)}, which no model of this kind reads; remove the column(s).")
        return BatchEncoding(batch)


def check_rows(name: str, rows: list, holds) -> None:
    """Raises a `ValueError` that names the rows which hold nothing."""
    empty = [index for index, row in enumerate(rows) if not holds(row)]
    if empty:
        raise ValueError(f"`{name}` holds no token in row(s) {empty[:10]} of the batch: every row needs at least one.")


class ConditionalVAEProcessor(VAEProcessor):
    r"""
    The two tokenizers of a conditional model: source x as `text`, y as `text_target`.

    `processor(text)` gives what `generate` needs: `input_ids` for the encoder and, with `source_conditioning="prompt"`, the
    prompt in the decoder's vocabulary. With `text_target` come `labels` and the pair that q(z|x,y) reads.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the decoder's.
        encoder_tokenizer (`PreTrainedTokenizerBase`): the encoder's.
        source_conditioning (`str`, defaults to `"prompt"`): the model's.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder_tokenizer: PreTrainedTokenizerBase,
        source_conditioning: str = "prompt",
        **kwargs,
    ):
        check_choice("source_conditioning", source_conditioning, SOURCE_CONDITIONINGS)
        super().__init__(tokenizer, encoder_tokenizer, **kwargs)
        self.source_conditioning = source_conditioning

    def features(self, texts: list, targets: list[str] | None, cuts: dict[str, dict[str, Any]]) -> dict[str, list]:
        """Unpadded token ids by the names of the model's arguments; `cuts` has tokenizers' options for text, target and pair."""
        source = self.encoder_tokenizer(texts, **cuts["text"])
        features = {name: source[name] for name in ("input_ids", "attention_mask")}
        if self.source_conditioning == "prompt":
            prompt = self.tokenizer(texts, **cuts["text"])
            features["prompt_input_ids"] = [self._open(row) for row in prompt["input_ids"]]
            features["prompt_attention_mask"] = [[1] * len(row) for row in features["prompt_input_ids"]]
        if targets is not None:
            pair = self._pair(texts, targets, cuts["pair"])
            features.update({f"posterior_{name}": rows for name, rows in pair.items()})
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def _pair(self, texts: list[str], targets: list[str], cut: dict[str, Any]) -> BatchEncoding:
        """x and y as q(z|x,y) reads them, told apart also where the encoder's tokenizer has no template for pairs."""
        tokenizer = self.encoder_tokenizer
        if tokenizer.num_special_tokens_to_add(pair=True):
            return tokenizer(texts, targets, **cut)
        separator = tokenizer.sep_token or tokenizer.eos_token or "\n"
        return tokenizer([f"{x}{separator}{y}" for x, y in zip(texts, targets)], **cut)

    def _open(self, prompt: list[int]) -> list[int]:
        """A prompt goes on with the start token, so a tokenizer's closing EOS is no part of it."""
        closed = len(prompt) > 1 and prompt[-1] == self.tokenizer.eos_token_id
        return prompt[:-1] if closed else prompt


class CVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`CVAEModel`]: `text` is what is given, `text_target` what is generated."""


class ParaphraseVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`ParaphraseVAEModel`]: `text` is the original, `text_target` its paraphrase."""


__all__ = ["CVAEProcessor", "ConditionalVAEProcessor", "ParaphraseVAEProcessor", "VAEProcessor"]
