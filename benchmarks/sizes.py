"""What is called small, medium, base and pretrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Size:
    """
    BERT and GPT-2 of one width, or a BERT and a Llama with these settings; and the batch that they are trained on, whose `length`
    counts EOS.
    """

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    batch: int
    length: int
    latent: int = 32
    llama: Mapping[str, Any] = field(default_factory=dict)


SIZES = {
    "toy": Size(layers=1, hidden=16, heads=2, vocabulary=60, batch=3, length=6, latent=4),
    # As the peers were measured.
    "small": Size(layers=4, hidden=256, heads=4, vocabulary=1000, batch=50, length=12),
    "medium": Size(layers=6, hidden=512, heads=8, vocabulary=50257, batch=16, length=32),
    # BERT and GPT-2 as they are published.
    "base": Size(layers=12, hidden=768, heads=12, vocabulary=50257, batch=8, length=64),
    # all-MiniLM-L6-v2 and SmolLM2-135M as they are published, on the captions of the recipe between them.
    "pretrained": Size(
        layers=6,
        hidden=384,
        heads=12,
        vocabulary=30522,
        batch=16,
        length=16,
        llama={
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
    ),
}
