"""Processors of the conditional models: a source x and a target y to tensors."""

from __future__ import annotations

from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from .checks import check_choice
from .configuration_conditional_vae import SOURCE_CONDITIONINGS
from .processing_vae import VAEProcessor


class ConditionalVAEProcessor(VAEProcessor):
    r"""
    The two tokenizers of a conditional model: source x as `text`, y as `text_target`.

    `processor(text)` gives what `generate` needs: `input_ids` for the encoder and, with `source_conditioning="prompt"`, the
    prompt in the decoder's vocabulary. `text_target` adds `labels` and the pair that q(z|x,y) reads.

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
        """x and y as q(z|x,y) reads them, with a separator if the encoder's tokenizer has no template for pairs."""
        tokenizer = self.encoder_tokenizer
        if tokenizer.num_special_tokens_to_add(pair=True):
            return tokenizer(texts, targets, **cut)
        separator = tokenizer.sep_token or tokenizer.eos_token or "\n"
        return tokenizer([f"{x}{separator}{y}" for x, y in zip(texts, targets)], **cut)

    def _open(self, prompt: list[int]) -> list[int]:
        """`prompt` without the EOS that some tokenizers close it with: the start token follows it."""
        closed = len(prompt) > 1 and prompt[-1] == self.tokenizer.eos_token_id
        return prompt[:-1] if closed else prompt


class CVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`CVAEModel`]: `text` is the source, `text_target` the target."""


class ParaphraseVAEProcessor(ConditionalVAEProcessor):
    """Processor of a [`ParaphraseVAEModel`]: `text` is the original, `text_target` its paraphrase."""


__all__ = ["CVAEProcessor", "ConditionalVAEProcessor", "ParaphraseVAEProcessor"]
