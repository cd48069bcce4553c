"""Texts in number, for the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ..calls import call_with
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from ..source import EncodedSource
from .distributed import map_examples, spread_samples
from .evaluator import LikelihoodEvaluator
from .example_batch import ExampleBatch


def decode_tokens(processor: VAEProcessor, tokens: torch.Tensor) -> str:
    """The text of one row of the decoder's tokens; UNK, if it is a token of its own, stands for a word and stays."""
    tokenizer = processor.tokenizer
    # Not all special tokens have a name.
    special = {*tokenizer.all_special_ids, *(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)}
    if tokenizer.unk_token_id not in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        special.discard(tokenizer.unk_token_id)
    return cast(str, tokenizer.decode([token for token in tokens.tolist() if token not in special])).strip()


@torch.no_grad()
def draw_from_prior(
    model: VAEModel,
    source: EncodedSource,
    indices: Sequence[int],
    num_samples: int,
    latent_temperature: float,
    seed: int,
    latent_spread: str = "independent",
) -> torch.Tensor:
    """
    z from the model's prior, `(examples, num_samples, latent_size)`, by noise that follows from the seed and the examples'
    `indices` alone; with another spread than the independent one, from `num_samples` too.
    """
    prior = model.prior(source, len(indices)).latent_dist
    noise = spread_samples(indices, num_samples, prior.noise_size, seed, latent_spread)
    return prior.from_noise(noise, latent_temperature)


def write_texts(model: VAEModel, processor: VAEProcessor, latents: torch.Tensor, **options) -> list[list[str]]:
    """A list of texts for each input, of `latents` of shape `(inputs, 1 or samples, latent_size)`; `options` are `generate`'s."""
    sequences = model.generate(latents=latents.flatten(0, 1), **options)
    # The first is the start token.
    texts = [decode_tokens(processor, row) for row in sequences[:, 1:]]
    count = len(texts) // len(latents)
    return [texts[row : row + count] for row in range(0, len(texts), count)]


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
    latents_per_text: int | None = None,
    latent_spread: str = "independent",
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
        latents_per_text (`int`, *optional*): how many z are drawn for each text: as many as outputs, the default, or 1, which its
            outputs then share.
        latent_spread (`str`, defaults to `"independent"`): how the z of one text lie to each other, as `generate` takes it.
        generation_options: passed to `generate`.

    Returns:
        `list[list[str]]`, in the order of `texts`.

    Raises:
        ValueError: another number of z.
    """
    if latents_per_text not in (None, 1, num_return_sequences):
        raise ValueError(
            f"`latents_per_text` is {latents_per_text} and `num_return_sequences` {num_return_sequences}: leave `latents_per_text` "
            "out, and each output has a z of its own, or set it to 1, and they share one."
        )
    model.eval()

    def write(indices: list[int]) -> list[list[str]]:
        inputs = processor([texts[i] for i in indices], max_length=max_length).to(model.device)
        with torch.no_grad():
            source = call_with(model.read_source, inputs, with_prior=latents is None)
        if latents is None:
            count = latents_per_text or num_return_sequences
            drawn = draw_from_prior(model, source, indices, count, latent_temperature, seed, latent_spread)
        else:
            drawn = latents[indices]
        options = {**generation_options, "num_return_sequences": num_return_sequences}
        return write_texts(model, processor, drawn, **inputs, source=source, **options)

    return map_examples(write, [len(str(text)) for text in texts], batch_size, "generating")


def generate_from_prior(
    evaluator: LikelihoodEvaluator,
    num_return_sequences: int,
    latent_temperature: float,
    seed: int,
    latent_spread: str = "independent",
    **generation_options,
) -> list[list[str]]:
    """
    [`generate_texts`] for the evaluator's sources, which need not be encoded again, with z from the prior. What only q knows, such
    as a reply's act, is not read.
    """
    model = evaluator.model

    def write(batch: ExampleBatch) -> list[list[str]]:
        drawn = (num_return_sequences, latent_temperature, seed, latent_spread)
        latents = draw_from_prior(model, batch.source, batch.indices, *drawn)
        options = {**generation_options, "num_return_sequences": num_return_sequences}
        inputs = {"input_ids": batch.inputs.get("input_ids"), "source": batch.source}
        return write_texts(model, evaluator.processor, latents, **inputs, **options)

    return evaluator.map(write, "generating")
