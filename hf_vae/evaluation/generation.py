"""Texts in number, for the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from transformers import BatchEncoding

from ..calls import call_with
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .distributed import gather_in_order, process_batches, sample_noise


def decode_tokens(processor: VAEProcessor, tokens: torch.Tensor) -> str:
    """The text of one row of the decoder's tokens; UNK, if it is a token of its own, stands for a word and stays."""
    tokenizer = processor.tokenizer
    # Not all special tokens have a name.
    special = {*tokenizer.all_special_ids, *(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)}
    if tokenizer.unk_token_id not in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        special.discard(tokenizer.unk_token_id)
    return cast(str, tokenizer.decode([token for token in tokens.tolist() if token not in special])).strip()


@torch.no_grad()
def draw_latents(
    model: VAEModel, inputs: BatchEncoding, indices: Sequence[int], num_samples: int, latent_temperature: float, seed: int
) -> torch.Tensor:
    """
    z from the model's prior, `(examples, num_samples, latent_size)`, by noise that follows from the seed, the examples' `indices`
    and the samples' alone.
    """
    prior = model.prior(call_with(model.read_source, inputs), len(indices)).latent_dist
    noise = sample_noise(indices, range(num_samples), prior.noise_size, seed)
    return prior.from_noise(noise, latent_temperature)


def generate_texts(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Sequence,
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
        texts (`list`): the inputs, as the processor takes them.
        num_return_sequences (`int`, defaults to 10): outputs a text.
        latents (`torch.Tensor`, *optional*): z of shape `(texts, num_return_sequences, latent_size)`, or `(texts, 1, latent_size)`
            if the outputs of a text share one; drawn from the model's prior if not given, each output's its own.
        latent_temperature (`float`, defaults to 1.0): factor on that draw.
        seed (`int`, defaults to 0): of that draw, which depends neither on the batches nor on the number of processes.
        batch_size (`int`, defaults to 50): inputs at once.
        max_length (`int`, *optional*): truncates the inputs.
        generation_options: passed to `generate`.

    Returns:
        `list[list[str]]`, in the order of `texts`.
    """
    model.eval()
    indices: list[int] = []
    outputs: list[list[str]] = []
    for batch in process_batches([len(str(text)) for text in texts], batch_size, "generating"):
        inputs = processor([texts[i] for i in batch], max_length=max_length).to(model.device)
        drawn = (
            draw_latents(model, inputs, batch, num_return_sequences, latent_temperature, seed)
            if latents is None
            else latents[batch]
        )
        sequences = model.generate(
            **inputs,
            latents=drawn.flatten(0, 1),
            num_return_sequences=num_return_sequences,
            **generation_options,
        )
        # The first is the start token.
        decoded = [decode_tokens(processor, row) for row in sequences[:, 1:]]
        indices += batch
        outputs += [decoded[row : row + num_return_sequences] for row in range(0, len(decoded), num_return_sequences)]
    return gather_in_order(indices, outputs)
