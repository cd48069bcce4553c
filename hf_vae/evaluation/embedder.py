"""Vectors of texts by a pretrained encoder, and how near outputs are to their source by them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoConfig

from ..checks import check_count
from ..data.vectors import Fingerprint
from ..encoders import build_encoder, longest_text, read_vector, reserved_positions
from ..part_files import normalizes, settle_pooling
from ..processing_vae import load_tokenizer
from ..saved_files import module_digest


class TextEmbedder:
    """
    One vector for each text: the encoder's states, pooled as an encoder of sentence-transformers was trained, and those of any
    other by their mean.

    Args:
        name_or_path (`str`): Hub id or folder of an encoder with its tokenizer.
        device (`torch.device`, *optional*): where it runs; the CPU by default.
        batch_size (`int`, defaults to 64): texts at once.
        normalize (`bool`, *optional*, defaults to `True`): whether each vector is divided by its length. `None` does so if the
            encoder was trained so by sentence-transformers.

    Raises:
        ValueError: its tokenizer has no padding token, or it was trained with a pooling that there is not here.
    """

    def __init__(self, name_or_path: str, device: torch.device | None = None, batch_size: int = 64, normalize: bool | None = True):
        check_count("batch_size", batch_size)
        self.name = Path(os.path.abspath(name_or_path)).name if Path(name_or_path).is_dir() else name_or_path
        self.pooling = settle_pooling(name_or_path) or "mean"
        self.normalize = normalizes(name_or_path) if normalize is None else normalize
        self.tokenizer = load_tokenizer(name_or_path)
        if self.tokenizer.pad_token is None:
            raise ValueError(f"The tokenizer of {name_or_path} has no padding token: choose an encoder, such as BERT.")
        # Without a pooler that nothing reads: a checkpoint without one would have random weights there.
        self.model = build_encoder(AutoConfig.from_pretrained(name_or_path), self.pooling, name_or_path).to(device or "cpu").eval()
        self.batch_size = batch_size
        self.max_length = longest_text(self.model.config, reserved_positions(self.model))

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What this embedder is, in a few words and a digest of its weights. The folder's path is not in it."""
        config = self.model.config.get_text_config()
        return Fingerprint(
            name=self.name,
            size=config.hidden_size,
            normalized=self.normalize,
            dtype=str(self.model.dtype).removeprefix("torch."),
            pooling=self.pooling,
            weights=module_digest(self.model),
            max_length=self.max_length,
        )

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """The vectors of `texts`, `(texts, size)`, on the CPU. What a text has beyond the encoder's positions is not read."""
        # Texts of one length together, so that little of a batch is padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        batches = [order[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size)]
        vectors = torch.cat([self._embed([texts[row] for row in batch]) for batch in batches])
        return vectors[torch.tensor(order).argsort()]

    def _embed(self, texts: list[str]) -> torch.Tensor:
        options = {"truncation": self.max_length is not None, "max_length": self.max_length}
        inputs = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", **options).to(self.model.device)
        read = (inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids"))
        vectors = read_vector("input_ids", self.model, self.pooling, *read)
        vectors = vectors.float()
        return (torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors).cpu()


def source_cosines(embedder: TextEmbedder, sources: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[float]:
    """For each source the mean cosine of its vector and those of its outputs, equally many for each."""
    vectors = embedder([text for texts in outputs for text in texts]).unflatten(0, (len(sources), -1))
    return (vectors @ embedder(sources).unsqueeze(-1)).mean((1, 2)).tolist()
