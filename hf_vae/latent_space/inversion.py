"""Texts from vectors: what a text said, written again from its embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..checks import check_count, check_number
from ..evaluation.distributed import spread_samples
from ..evaluation.inversion import cosines
from ..given_vectors import check_embeddings
from ..latent_distribution import LatentDistribution, concatenate
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .codes import LatentTexts, decode_latents, evaluation_mode


@dataclass(repr=False)
class InvertedTexts(LatentTexts):
    """
    Args:
        texts (`list[str]`): one for each vector: of its candidates the first, or the nearest to it.
        latents (`torch.Tensor` of shape `(rows, latent_size)`): the z that each was decoded from.
        candidates (`list[list[str]]`): all that was written for each vector. The first is that of the posterior's mean.
        cosines (`torch.Tensor` of shape `(rows, candidates)`, *optional*): of each candidate's vector and the given one.
    """

    candidates: list[list[str]]
    cosines: torch.Tensor | None = None


def encode_embeddings(model: VAEModel, processor: VAEProcessor, embeddings: Any, batch_size: int = 64) -> LatentDistribution:
    """
    The posterior of each vector, as [`encode_texts`] for texts.

    Args:
        model ([`VAEModel`]): one with an `embedding_size`; its training flags come back as they were.
        processor ([`VAEProcessor`]): its processor.
        embeddings (tensor, array or list of shape `(rows, embedding_size)`): the vectors.
        batch_size (`int`, defaults to 64): vectors at once.

    Returns:
        [`LatentDistribution`] with one row per vector, on the CPU.

    Raises:
        ValueError: a model that reads texts, or vectors that are not what its configuration says.
    """
    check_count("batch_size", batch_size)
    if model.config.embedding_size is None:
        raise ValueError("`model` reads texts with its encoder and takes no vectors: use `encode_texts`.")
    vectors = torch.from_numpy(processor(embeddings=embeddings, return_tensors="np")["embeddings"])
    # All of them before the first is read.
    check_embeddings("embeddings", vectors, model.config)
    with evaluation_mode(model):
        parts = [model.encode(embeddings=part.to(model.device)).latent_dist.to("cpu") for part in vectors.split(batch_size)]
    return concatenate(parts)


def invert(
    model: VAEModel,
    processor: VAEProcessor,
    embeddings: Any,
    num_candidates: int = 1,
    embedder: Callable[[Sequence[str]], Any] | None = None,
    latent_temperature: float = 1.0,
    latent_spread: str = "independent",
    seed: int = 0,
    batch_size: int = 64,
    **generation_options,
) -> InvertedTexts:
    """
    The text of each vector. With several candidates and the embedder it is the one whose own vector is nearest to the given one.
    The text need not be known for that (Morris et al. 2023 correct theirs by the same measure).

    Args:
        model ([`VAEModel`]): one with an `embedding_size`; its training flags come back as they were.
        processor ([`VAEProcessor`]): its processor.
        embeddings (tensor, array or list of shape `(rows, embedding_size)`): the vectors.
        num_candidates (`int`, defaults to 1): texts for each vector: that of the posterior's mean, and those of samples of z.
        embedder (callable, *optional*): what made the vectors, such as a [`~hf_vae.evaluation.TextEmbedder`]. Without it the first
            candidate is taken.
        latent_temperature (`float`, defaults to 1.0): factor on the posterior's standard deviation in the samples.
        latent_spread (`str`, defaults to `"independent"`): how the samples of one vector lie to each other, as `generate` takes it.
        seed (`int`, defaults to 0): of the samples, drawn for each vector by its number, whatever the batches.
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        [`InvertedTexts`] with one row per vector.

    Raises:
        ValueError: an option out of range, a model that reads texts, or vectors that are not what its configuration says.
    """
    check_count("num_candidates", num_candidates)
    check_number("latent_temperature", latent_temperature, least=0)
    posterior = encode_embeddings(model, processor, embeddings, batch_size)
    latents = posterior.mode()[:, None]
    if num_candidates > 1:
        rows = range(len(posterior))
        noise = spread_samples(rows, num_candidates - 1, posterior.noise_size, seed, latent_spread)
        samples = posterior.repeat(num_candidates - 1).from_noise(noise.flatten(0, 1), latent_temperature)
        latents = torch.cat([latents, samples.unflatten(0, (len(posterior), -1))], 1)
    written = decode_latents(model, processor, latents.flatten(0, 1), batch_size, **generation_options)
    candidates = [written[row : row + num_candidates] for row in range(0, len(written), num_candidates)]
    near, chosen = None, torch.zeros(len(candidates), dtype=torch.long)
    if embedder is not None:
        vectors = torch.from_numpy(processor(embeddings=embeddings, return_tensors="np")["embeddings"])
        near = cosines(embedder, candidates, vectors)
        chosen = near.argmax(-1)
    texts = [each[which] for each, which in zip(candidates, chosen.tolist())]
    return InvertedTexts(texts, latents[torch.arange(len(texts)), chosen], candidates, near)


__all__ = ["InvertedTexts", "encode_embeddings", "invert"]
