"""Generation's defaults for a composite, and the latent's options, settled between the caller and those defaults."""

import copy
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from .configuration_vae import VAEConfig, check_choice
from .gaussian import DiagonalGaussian

LATENT_SOURCES = ("prior", "posterior")


def composite_generation_config(config: VAEConfig, decoder_defaults: GenerationConfig) -> GenerationConfig:
    """The decoder's generation defaults with the composite's special tokens; latent options set on it survive saving."""
    defaults = decoder_defaults.to_diff_dict()
    # A configuration that follows from a model's loses its extra fields when it is saved.
    defaults.pop("_from_model_config", None)
    special = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    return GenerationConfig(**defaults | {name: getattr(config, name) for name in special})


@dataclass
class LatentGenerationOptions:
    """
    Args:
        config (`GenerationConfig`): everything else, for the decoder's own `generate`.
        latent_source (`str`, *optional*): `"prior"`, `"posterior"` or the model's default.
        latent_temperature (`float`): factor on the source's standard deviation.
        num_return_sequences (`int`): sequences for each input.
    """

    config: GenerationConfig
    latent_source: str | None
    latent_temperature: float
    num_return_sequences: int

    @classmethod
    def settle(
        cls,
        defaults: GenerationConfig,
        latent_source: str | None,
        latent_temperature: float | None,
        num_return_sequences: int | None,
        kwargs: dict,
    ) -> tuple["LatentGenerationOptions", dict]:
        """
        What the caller says, else what the generation configuration says, else the default; and those of `kwargs` that are no
        generation option but inputs of the decoder.

        Raises:
            ValueError: an option out of range.
        """
        config = copy.deepcopy(defaults)

        def option(name, given, default):
            return next(value for value in (given, getattr(config, name, None), default) if value is not None)

        options = cls(
            config=config,
            latent_source=latent_source or getattr(config, "latent_source", None),
            latent_temperature=option("latent_temperature", latent_temperature, 1.0),
            num_return_sequences=option("num_return_sequences", num_return_sequences, 1),
        )
        if options.latent_source is not None:
            check_choice("latent_source", options.latent_source, LATENT_SOURCES)
        if options.latent_temperature < 0:
            raise ValueError(f"`latent_temperature` is {options.latent_temperature}; it cannot be negative.")
        if options.num_return_sequences < 1:
            raise ValueError(f"`num_return_sequences` is {options.num_return_sequences}; it must be at least 1.")
        # The decoder sees one row per sequence: it must neither multiply the rows nor refuse several greedy ones.
        config.num_return_sequences = None
        model_kwargs = config.update(**kwargs)
        # What comes back has no prompt, so a length without one is what `max_length` means.
        if config.max_length is not None:
            config.max_new_tokens = config.max_new_tokens or config.max_length - 1
            config.max_length = None
        return options, model_kwargs

    def draw(self, distribution: DiagonalGaussian, generator: torch.Generator | None) -> torch.Tensor:
        """One z for each sequence to return, those of one input next to each other."""
        return distribution.repeat(self.num_return_sequences).sample(generator, self.latent_temperature)
