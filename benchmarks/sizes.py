"""What is called small, medium and base."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """BERT and GPT-2 of one width, and the batch that they are trained on; `length` counts EOS."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    batch: int
    length: int
    latent: int = 32


SIZES = {
    "toy": Size(layers=1, hidden=16, heads=2, vocabulary=60, batch=3, length=6, latent=4),
    # As the peers were measured.
    "small": Size(layers=4, hidden=256, heads=4, vocabulary=1000, batch=50, length=12),
    "medium": Size(layers=6, hidden=512, heads=8, vocabulary=50257, batch=16, length=32),
    # BERT and GPT-2 as they are published.
    "base": Size(layers=12, hidden=768, heads=12, vocabulary=50257, batch=8, length=64),
}
