"""Texts in number, for the metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .examples import example_noise, gather_in_order, own_batches


def generate_texts(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Sequence[str],
    num_return_sequences: int = 10,
    latents: torch.Tensor | None = None,
    latent_temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 50,
    max_length: int | None = None,
    **generation_options,
) -> list[list[str]]:
    """
    Several outputs for each text.

    Args:
        model ([`VAEModel`]): put into evaluation mode.
        processor ([`VAEProcessor`]): its processor.
        texts (`list[str]`): the inputs.
        num_return_sequences (`int`, defaults to 10): outputs a text.
        latents (`torch.Tensor`, *optional*): z of shape `(texts, num_return_sequences, latent_size)`, or `(texts, 1, latent_size)`
            where the outputs of a text share one; drawn from N(0, I) where not given, each output's its own.
        latent_temperature (`float`, defaults to 1.0): factor on that draw.
        seed (`int`, defaults to 0): of that draw, which depends neither on the batches nor on the number of processes.
        batch_size (`int`, defaults to 50): inputs at once.
        max_length (`int`, *optional*): truncates the inputs.
        generation_options: passed to `generate`.

    Returns:
        `list[list[str]]`, in the order of `texts`.
    """
    model.eval()
    if latents is None:
        latents = latent_temperature * example_noise(len(texts), num_return_sequences, model.config.latent_size, seed)
    numbers: list[int] = []
    outputs: list[list[str]] = []
    for batch in own_batches([len(text) for text in texts], batch_size, "generating"):
        sequences = model.generate(
            **processor([texts[i] for i in batch], max_length=max_length).to(model.device),
            latents=latents[batch].flatten(0, 1),
            num_return_sequences=num_return_sequences,
            **generation_options,
        )
        decoded = [text.strip() for text in processor.batch_decode(sequences, skip_special_tokens=True)]
        numbers += batch
        outputs += [decoded[row : row + num_return_sequences] for row in range(0, len(decoded), num_return_sequences)]
    return gather_in_order(numbers, outputs)
