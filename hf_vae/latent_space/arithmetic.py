"""Sums and differences of codes."""

from __future__ import annotations

from typing import Any

import torch

from ..checks import check_number
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .codes import LatentTexts, TextsOrLatents, as_latents, codes_of, decode_latents, source_rows


def arithmetic(
    model: VAEModel,
    processor: VAEProcessor,
    a: TextsOrLatents,
    b: TextsOrLatents,
    c: TextsOrLatents,
    scale: float = 1.0,
    sources: Any = None,
    batch_size: int = 64,
    **generation_options,
) -> LatentTexts:
    r"""
    What is to `c` as `b` is to `a`: \(z_D = z_C + s\,(z_B - z_A)\) in posterior means, the analogies of Li et al. (2020), where
    s = 1.

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        a, b, c (`str`, `list[str]` or `torch.Tensor` of shape `(rows, latent_size)`): as many of each, or one for all rows.
        scale (`float`, defaults to 1.0): s.
        sources (*optional*): x of each analogy, as the processor takes it, for a conditional model: q reads each text with it, the
            decoder sees it. For texts with sources of their own, give latents from [`encode_texts`] and `**processor(sources)`.
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        [`LatentTexts`], a row for each analogy.

    Raises:
        ValueError: different numbers of a, b and c, or sources that the model needs or does not read.
    """
    check_number("scale", scale)
    given = {"a": a, "b": b, "c": c}
    sources = None if sources is None else source_rows(model, processor, sources)
    codes = list(codes_of(model, processor, given, sources, batch_size).values())
    rows = max(map(len, codes))
    if any(len(code) not in (1, rows) for code in codes):
        counts = ", ".join(f"{len(code)} `{name}`" for name, code in zip("abc", codes))
        raise ValueError(f"{counts}: they must be as many, or one for all.")
    first, second, third = (code.expand(rows, -1) for code in codes)
    latents = third + scale * (second - first)
    if sources is not None:
        generation_options = {**processor(sources), **generation_options}
    return LatentTexts(texts=decode_latents(model, processor, latents, batch_size, **generation_options), latents=latents)


def attribute_vector(
    model: VAEModel,
    processor: VAEProcessor,
    positive_texts: TextsOrLatents,
    negative_texts: TextsOrLatents,
    batch_size: int = 64,
) -> torch.Tensor:
    """
    Mean of the posterior means of texts with an attribute, minus that of texts without it; the numbers of texts may differ.

    Returns:
        `torch.Tensor` of shape `(latent_size,)`, for [`move`].

    Raises:
        ValueError: texts that [`encode_texts`] refuses, or latents of another shape.
    """
    positive = as_latents(model, processor, "positive_texts", positive_texts, batch_size)
    negative = as_latents(model, processor, "negative_texts", negative_texts, batch_size)
    return positive.mean(0) - negative.mean(0)


def move(
    model: VAEModel,
    processor: VAEProcessor,
    texts: TextsOrLatents,
    vector: torch.Tensor,
    scale: float = 1.0,
    batch_size: int = 64,
    **generation_options,
) -> LatentTexts:
    """
    `texts` (or latents) shifted by `scale` times `vector`, of shape `(latent_size,)`, and decoded: `scale` 0 is the reconstruction,
    a negative one takes the attribute away.

    Raises:
        ValueError: a vector of another shape, or texts that [`encode_texts`] refuses.
    """
    check_number("scale", scale)
    step = as_latents(model, processor, "vector", vector)
    if vector.ndim != 1:
        raise ValueError(f"`vector` has shape {tuple(vector.shape)}; expected ({model.config.total_latent_size},).")
    latents = as_latents(model, processor, "texts", texts, batch_size) + scale * step
    return LatentTexts(texts=decode_latents(model, processor, latents, batch_size, **generation_options), latents=latents)


__all__ = ["arithmetic", "attribute_vector", "move"]
