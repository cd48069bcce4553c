"""Vectors of texts by a pretrained encoder, and how near outputs are to their source by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModel

from ..checks import check_count
from ..encoders import longest_text, read_vector, reserved_positions
from ..part_files import settle_pooling
from ..processing_vae import load_tokenizer


class TextEmbedder:
    """
    One vector of length 1 for each text: the encoder's states, pooled as an encoder of sentence-transformers was trained, and those
    of any other by their mean.

    Args:
        name_or_path (`str`): Hub id or folder of an encoder with its tokenizer.
        device (`torch.device`, *optional*): where it runs; the CPU by default.
        batch_size (`int`, defaults to 64): texts at once.

    Raises:
        ValueError: its tokenizer has no padding token, or it was trained with a pooling that there is not here.
    """

    def __init__(self, name_or_path: str, device: torch.device | None = None, batch_size: int = 64):
        check_count("batch_size", batch_size)
        self.pooling = settle_pooling(name_or_path) or "mean"
        self.tokenizer = load_tokenizer(name_or_path)
        if self.tokenizer.pad_token is None:
            raise ValueError(f"The tokenizer of {name_or_path} has no padding token: choose an encoder, such as BERT.")
        self.model = AutoModel.from_pretrained(name_or_path).to(device or "cpu").eval()
        self.batch_size = batch_size
        self.max_length = longest_text(self.model.config, reserved_positions(self.model))

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """The vectors of `texts`, `(texts, size)`, on the CPU. What a text has beyond the encoder's positions is not read."""
        batches = [list(texts[start : start + self.batch_size]) for start in range(0, len(texts), self.batch_size)]
        return torch.cat([self._embed(batch) for batch in batches])

    def _embed(self, texts: list[str]) -> torch.Tensor:
        options = {"truncation": self.max_length is not None, "max_length": self.max_length}
        inputs = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", **options).to(self.model.device)
        read = (inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids"))
        vectors = read_vector("input_ids", self.model, self.pooling, *read)
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()


def source_cosines(embedder: TextEmbedder, sources: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[float]:
    """For each source the mean cosine of its vector and those of its outputs, equally many for each."""
    vectors = embedder([text for texts in outputs for text in texts]).unflatten(0, (len(sources), -1))
    return (vectors @ embedder(sources).unsqueeze(-1)).mean((1, 2)).tolist()
