"""Batches for the Trainer."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import BatchEncoding

from ..processing_vae import VAEProcessor


@dataclass
class VAEDataCollator:
    """
    Pads what the processor made of each example (`return_tensors=None`) into one batch. Of a model that reads given vectors, a row
    has its vector as `embeddings` or `embedding`.

    Args:
        processor ([`VAEProcessor`]): the model's.
        pad_to_multiple_of (`int`, *optional*): as in transformers' collators.

    Raises:
        ValueError: a row without tokens, a vector that is not of the model's size or not finite, or a column that no model of this
            kind reads.
    """

    processor: VAEProcessor
    pad_to_multiple_of: int | None = None

    def __call__(self, features: list[dict]) -> BatchEncoding:
        return self.processor.pad(features, pad_to_multiple_of=self.pad_to_multiple_of)
