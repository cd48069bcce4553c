"""Generation's defaults for a composite, and the latent's options as caller and defaults settle them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from .checks import check_choice, check_count, check_number, float_latents
from .compat import CACHE_NAMES
from .configuration_vae import VAEConfig
from .latent_control import Energy, draw_latents
from .latent_distribution import LatentDistribution
from .latent_spread import LATENT_SPREADS

LATENT_SOURCES = ("prior", "posterior", "fitted_prior")
# Whole numbers among GenerationMixin's options, and the least that each may be. `max_length` counts the start token.
LEAST = {
    "num_beams": 1,
    "max_length": 2,
    "max_new_tokens": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_return_sequences": 1,
    "top_k": 0,
    "no_repeat_ngram_size": 0,
    "prefill_chunk_size": 1,
    "num_assistant_tokens": 1,
    "prompt_lookup_num_tokens": 1,
    "pad_token_id": 0,
}
SHARE: dict[str, float] = {"least": 0, "most": 1}
# Other numbers among them, and their bounds.
BOUNDS: dict[str, dict[str, float]] = {
    "temperature": {"least": 0},
    "top_p": SHARE,
    "min_p": SHARE,
    "typical_p": SHARE,
    "epsilon_cutoff": SHARE,
    "eta_cutoff": SHARE,
    "repetition_penalty": {"above": 0},
    "encoder_repetition_penalty": {"above": 0},
    "length_penalty": {},
    "max_time": {"above": 0},
}
FROM_HUB = "transformers runs it by code from the Hub, which knows of no z"
WITHOUT_Z = "it compares with a text that is written without z, which this decoder cannot"
OWN_PROMPT = "the text begins with the start token; what it is to go on from stands in `prompt_input_ids`"
# Options of GenerationMixin that mean nothing for a text from z, or would do something else than they say; and why.
REFUSED = {
    "token_healing": "it would take the start token for half a word and write another one in its place",
    "guidance_scale": WITHOUT_Z,
    "negative_prompt_ids": WITHOUT_Z,
    "negative_prompt_attention_mask": WITHOUT_Z,
    "forced_bos_token_id": "the text begins with the start token, and behind a prompt nothing would be forced",
    "decoder_start_token_id": "the text begins as in training, with `model.config.decoder_start_token_id`",
    "assistant_early_exit": "the decoder has no layers of its own to leave early; pass an `assistant_model`",
    "use_mtp": "the decoder has no heads for several tokens at once; pass an `assistant_model`",
    "speculation_type": "it speculates on states of a model that reads no z; pass an `assistant_model`",
    "custom_generate": "it would run other code than this model's, which knows of no z",
    "constraints": FROM_HUB,
    "force_words_ids": FROM_HUB,
    "num_beam_groups": FROM_HUB,
    "diversity_penalty": FROM_HUB,
    "penalty_alpha": FROM_HUB,
    "dola_layers": FROM_HUB,
    "inputs": OWN_PROMPT,
    "inputs_embeds": OWN_PROMPT,
    "decoder_input_ids": OWN_PROMPT,
    **dict.fromkeys(CACHE_NAMES, "the model fills its own, beginning with z"),
    "position_ids": "positions are counted from the prompt's mask",
}
# Values that leave an option off, besides `None` and `False`.
OFF = {"guidance_scale": 1, "num_beam_groups": 1, "diversity_penalty": 0}


def refuse_options(given: Mapping[str, Any], start_token_id: int | None) -> None:
    """Raises a `ValueError` that names the first option of `given` that is on and that no text from z can be written with."""
    off = {**OFF, "decoder_start_token_id": start_token_id}
    for name, reason in REFUSED.items():
        value = given.get(name)
        if value is not None and value is not False and not (name in off and value == off[name]):
            raise ValueError(f"`{name}` has no place in this model's `generate`: {reason}. Leave it out.")


def check_options(given: Mapping[str, Any]) -> None:
    """Raises a `ValueError` that names the first option of `given` that is no such number as it must be."""
    for name, least in LEAST.items():
        if given.get(name) is not None:
            check_count(name, given[name], least)
    for name, bounds in BOUNDS.items():
        if given.get(name) is not None:
            check_number(name, given[name], **bounds)
    eos = given.get("eos_token_id")
    for token in eos if isinstance(eos, (list, tuple)) else [eos]:
        if token is not None:
            # -1 stands for none.
            check_count("eos_token_id", token, least=-1)


def end_tokens(*named: int | list[int] | None) -> list[int]:
    """All tokens that are named as an EOS, each once; -1 stands for none."""
    each = [token for tokens in named for token in (tokens if isinstance(tokens, list) else [tokens])]
    return [token for token in dict.fromkeys(each) if token is not None and token >= 0]


def composite_generation_config(config: VAEConfig, decoder_defaults: GenerationConfig) -> GenerationConfig:
    """
    The decoder's generation defaults with the composite's special tokens; latent options set on it survive saving. A text ends with
    the composite's EOS, and with whatever the decoder's own defaults end with: a chat model's may name more than its configuration.
    """
    defaults = decoder_defaults.to_diff_dict()
    # A configuration that follows from a model's loses its extra fields when it is saved.
    defaults.pop("_from_model_config", None)
    # What the language model by itself begins its texts with, for instance.
    for name in REFUSED:
        defaults.pop(name, None)
    defaults.update(pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id)
    ends = end_tokens(config.eos_token_id, defaults.pop("eos_token_id", None))
    if ends:
        defaults["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    return GenerationConfig(**defaults)


def plain(name: str, value: Any) -> Any:
    """
    `value` of the option `name` as transformers takes it: Python's numbers, not those of an array or a tensor, and a whole one as
    a float if the option need not be whole.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    return float(value) if name in BOUNDS and type(value) is int else value


def option(name: str, given: Any, defaults: GenerationConfig, fallback: Any = None) -> Any:
    """What the caller has `given`, else what `defaults` say of the option `name`, else the `fallback`."""
    return next((value for value in (given, getattr(defaults, name, None)) if value is not None), fallback)


def _says_length(options: Mapping[str, Any]) -> bool:
    return any(options.get(name) is not None for name in ("max_new_tokens", "max_length"))


@dataclass
class LatentGenerationOptions:
    """
    Args:
        config (`GenerationConfig`): everything else, for the decoder's own `generate`.
        latent_source (`str`, *optional*): `"prior"`, `"posterior"`, `"fitted_prior"` or the model's default.
        latent_temperature (`float`): factor on the source's standard deviation.
        latent_spread (`str`): how the z of one input lie to each other, a name of `LATENT_SPREADS`.
        num_return_sequences (`int`, *optional*): sequences for each input, if the caller said so.
        generator (`torch.Generator`, *optional*): source of the noise in z.
        average_latents (`int`, *optional*): how many z the one sequence for each input is averaged over.
    """

    config: GenerationConfig
    latent_source: str | None
    latent_temperature: float
    latent_spread: str
    num_return_sequences: int | None
    generator: torch.Generator | None = None
    average_latents: int | None = None

    @classmethod
    def resolve(
        cls,
        defaults: GenerationConfig,
        given: GenerationConfig | None,
        latents: torch.Tensor | None,
        latent_source: str | None,
        latent_temperature: float | None,
        latent_spread: str | None,
        num_return_sequences: int | None,
        generator: torch.Generator | None,
        kwargs: dict,
        average_latents: int | None = None,
    ) -> tuple["LatentGenerationOptions", dict]:
        """
        What the caller says, else what the `given` configuration says, else the model's `defaults`; and those of `kwargs` that are
        no generation option but inputs of the decoder.

        Raises:
            ValueError: an option out of range or without a meaning here, or one of where z comes from beside `latents`.
        """
        if given is not None and not isinstance(given, GenerationConfig):
            raise ValueError(f"`generation_config` is a {type(given).__name__}; make a `GenerationConfig` of it.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ValueError(
                f"`generator` is a {type(generator).__name__}; give one `torch.Generator`, which draws the z of all rows. For one "
                "of its own for each input, draw `latents` with them."
            )
        if latents is not None and any(each is not None for each in (latent_source, latent_temperature, latent_spread)):
            raise ValueError(
                "`latents` are given: `latent_source`, `latent_temperature` and `latent_spread` would have no effect, leave them "
                "out."
            )
        kwargs = {name: plain(name, value) if hasattr(defaults, name) else value for name, value in kwargs.items()}
        config = copy.deepcopy(defaults if given is None else given)
        for name, value in vars(config).items():
            setattr(config, name, plain(name, value))
        if given is not None:
            length = config.max_new_tokens, config.max_length
            config.update(**defaults.to_dict(), defaults_only=True, allow_custom_entries=True)
            if _says_length(vars(given)):
                config.max_new_tokens, config.max_length = length

        options = cls(
            config=config,
            latent_source=option("latent_source", latent_source, config),
            latent_temperature=option("latent_temperature", plain("latent_temperature", latent_temperature), config, 1.0),
            latent_spread=option("latent_spread", latent_spread, config, "independent"),
            num_return_sequences=option("num_return_sequences", plain("num_return_sequences", num_return_sequences), config),
            generator=generator,
            average_latents=average_latents,
        )
        if options.latent_source is not None:
            check_choice("latent_source", options.latent_source, LATENT_SOURCES)
        check_choice("latent_spread", options.latent_spread, tuple(LATENT_SPREADS))
        check_number("latent_temperature", options.latent_temperature, least=0)
        asked = {**config.to_dict(), **kwargs, "num_return_sequences": options.num_return_sequences}
        refuse_options(asked, defaults.decoder_start_token_id)
        check_options(asked)
        # The decoder sees one row per sequence: it must neither multiply the rows nor refuse several greedy ones.
        config.num_return_sequences = None
        if _says_length(kwargs):
            # One of the two lengths is said, and the model's own would be the other.
            config.max_new_tokens = config.max_length = None
        model_kwargs = config.update(**kwargs)
        # What comes back has no prompt, so a length without one is what `max_length` means.
        if config.max_length is not None:
            config.max_new_tokens = config.max_new_tokens or config.max_length - 1
            config.max_length = None
        if config.min_length:
            config.min_new_tokens = config.min_new_tokens or config.min_length - 1
            config.min_length = None
        if average_latents is not None:
            options._check_average(average_latents)
        return options, model_kwargs

    def _check_average(self, average_latents: int) -> None:
        check_count("average_latents", average_latents)
        if (self.num_return_sequences or 1) > 1:
            raise ValueError(
                f"`average_latents` is {average_latents} with {self.num_return_sequences} sequences for each input; an average is "
                "one sequence."
            )
        if self.config.do_sample or (self.config.num_beams or 1) > 1:
            raise ValueError("`average_latents` decodes greedily: pass `do_sample=False` and no beams.")
        # As many rows, which decode in step.
        self.num_return_sequences = average_latents

    def sample(self, distribution: LatentDistribution, draws: int = 1, energy: Energy | None = None) -> torch.Tensor:
        """
        One z for each sequence to return: for each row of `distribution` as many as for `draws` inputs, next to each other; with
        an `energy`, of the density that it makes of the distribution's.
        """
        count = draws * (self.num_return_sequences or 1)
        latents = draw_latents(
            distribution,
            count,
            energy,
            spread=self.latent_spread,
            generator=self.generator,
            temperature=self.latent_temperature,
        )
        return latents.flatten(0, 1)

    def validate(self, latents: torch.Tensor, batch_size: int, latent_size: int) -> torch.Tensor:
        """
        `latents` as the caller gave them: one for each sequence to return, or one for each input, whose sequences then share it
        and are the decoder's to multiply.

        Raises:
            ValueError: they are neither, or no tensor of real numbers.
        """
        latents = float_latents(latents)
        count = self.num_return_sequences
        if not latents.ndim:
            raise ValueError(f"`latents` is one number; expected shape (rows, {latent_size}).")
        rows, fits = latents.shape[0], latents.ndim == 2 and latents.shape[1] == latent_size
        if count is not None and count > 1 and rows == batch_size:
            self.config.num_return_sequences = count
        elif count is None:
            fits = fits and rows > 0 and rows % batch_size == 0
        else:
            fits = fits and rows == batch_size * count
        if not fits:
            expected = f"({batch_size * (count or 1)}, {latent_size})" + (" or a multiple of its rows" if count is None else "")
            shared = f", or ({batch_size}, {latent_size}) to share" if count is not None and count > 1 else ""
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}; expected {expected}{shared}.")
        return latents
