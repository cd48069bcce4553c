"""Texts from the posterior of texts, and from the prior."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BatchEncoding

from ..calls import call_with
from ..checks import check_choice, check_count, check_number
from ..evaluation.distributed import example_noise, spread_samples
from ..flow_prior import FlowPrior
from ..latent_spread import LATENT_SPREADS
from ..modeling_vae import VAEModel
from ..prior import GaussianMixturePrior
from ..processing_vae import Texts, VAEProcessor
from .codes import LatentTexts, decode_latents, encode_texts, evaluation_mode, source_rows


def reconstruct(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Texts,
    latent_temperature: float = 0.0,
    latent_spread: str = "independent",
    num_return_sequences: int = 1,
    sources: Any = None,
    seed: int = 0,
    batch_size: int = 64,
    **generation_options,
) -> LatentTexts:
    """
    Each text through the encoder and back: from the posterior's mean, or from samples, whose spread shows what the code leaves open
    (Bowman et al. 2015, table 7).

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        texts (`str` or `list[str]`): y.
        latent_temperature (`float`, defaults to 0.0): factor on the posterior's standard deviation; 0 is its mean, 1 a sample.
        latent_spread (`str`, defaults to `"independent"`): how the z of one text lie to each other, as `generate` takes it.
        num_return_sequences (`int`, defaults to 1): z for each text; at temperature 0 they are equal, and only `do_sample` makes
            their texts differ.
        sources (*optional*): x of each text, as the processor takes it, for a conditional model: q reads the pair, the decoder
            sees x.
        seed (`int`, defaults to 0): of the noise in z, drawn for each text by its number, whatever the batches.
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        [`LatentTexts`], those of one text next to each other.

    Raises:
        ValueError: an option out of range, or texts that [`encode_texts`] refuses.
    """
    check_count("num_return_sequences", num_return_sequences)
    check_number("latent_temperature", latent_temperature, least=0)
    sources = None if sources is None else source_rows(model, processor, sources)
    posterior = encode_texts(model, processor, texts, sources, batch_size).repeat(num_return_sequences)
    rows = range(len(posterior) // num_return_sequences)
    noise = spread_samples(rows, num_return_sequences, posterior.noise_size, seed, latent_spread)
    latents = posterior.from_noise(noise.flatten(0, 1), latent_temperature)
    conditioning = {}
    if sources is not None:
        features = processor(sources)
        conditioning = {name: tensor.repeat_interleave(num_return_sequences, 0) for name, tensor in features.items()}
    decoded = decode_latents(model, processor, latents, batch_size, **conditioning, **generation_options)
    return LatentTexts(texts=decoded, latents=latents)


def sample_prior(
    model: VAEModel,
    processor: VAEProcessor,
    num_samples: int = 1,
    latent_temperature: float = 1.0,
    latent_spread: str = "independent",
    fitted_prior: GaussianMixturePrior | FlowPrior | None = None,
    seed: int | None = None,
    batch_size: int = 64,
    **generation_options,
) -> LatentTexts:
    """
    Texts decoded from draws of z out of the prior (Bowman et al. 2015 decode them greedily).

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        num_samples (`int`, defaults to 1): draws.
        latent_temperature (`float`, defaults to 1.0): factor on the prior's standard deviation; 0 is its mean.
        latent_spread (`str`, defaults to `"independent"`): how the draws lie to each other, as `generate` takes it.
        fitted_prior ([`GaussianMixturePrior`] or [`FlowPrior`], *optional*): drawn from instead of the model's prior.
        seed (`int`, *optional*): of the draws; without it, they are other ones at every call and follow from torch's own seed.
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`; greedy if they do not say otherwise. A conditional model needs one row of
            `**processor(source)` here: all draws are then for that source.

    Returns:
        [`LatentTexts`] with `num_samples` rows.

    Raises:
        ValueError: an option out of range, or a fitted prior of another latent size.
    """
    check_count("num_samples", num_samples)
    check_number("latent_temperature", latent_temperature, least=0)
    check_choice("latent_spread", latent_spread, tuple(LATENT_SPREADS))
    seed = int(torch.randint(2**31, ())) if seed is None else seed
    if fitted_prior is not None:
        size = model.config.total_latent_size
        if fitted_prior.latent_size != size:
            raise ValueError(f"`fitted_prior` is over {fitted_prior.latent_size} dimensions, the model's z has {size}.")
        generator = torch.Generator().manual_seed(seed)
        latents = fitted_prior().draw(num_samples, latent_spread, generator, latent_temperature).squeeze(0).cpu()
    else:
        given = {name: value for name, value in generation_options.items() if isinstance(value, torch.Tensor)}
        rows = {name: tensor.to(model.device) for name, tensor in given.items()}
        for name, tensor in given.items():
            if len(tensor) not in (1, num_samples):
                raise ValueError(f"`{name}` has {len(tensor)} rows; expected 1, or one for each of {num_samples} samples.")
        with evaluation_mode(model):
            # Of one source all draws are for that.
            count = max((len(tensor) for tensor in rows.values()), default=1)
            source = call_with(model.read_source, BatchEncoding(rows))
            prior = model.prior(source, count).latent_dist
        if latent_spread == "independent":
            # Each draw its own stream, so that it is the same one however many are drawn.
            noise = example_noise(num_samples, 1, prior.noise_size, seed).squeeze(1)
        else:
            noise = spread_samples([0], num_samples, prior.noise_size, seed, latent_spread).squeeze(0)
        prior = prior.repeat(num_samples) if len(prior) == 1 else prior
        # A prior that is trained has a gradient, which nobody wants of a draw.
        latents = prior.from_noise(noise, latent_temperature).detach().cpu()
    return LatentTexts(texts=decode_latents(model, processor, latents, batch_size, **generation_options), latents=latents)


__all__ = ["reconstruct", "sample_prior"]
