"""Generation's defaults for a composite, the latent's options as caller and defaults settle them, and averaging over z."""

import copy
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessor

from .configuration_vae import VAEConfig, check_choice
from .gaussian import DiagonalGaussian

LATENT_SOURCES = ("prior", "posterior", "fitted_prior")


def composite_generation_config(config: VAEConfig, decoder_defaults: GenerationConfig) -> GenerationConfig:
    """The decoder's generation defaults with the composite's special tokens; latent options set on it survive saving."""
    defaults = decoder_defaults.to_diff_dict()
    # A configuration that follows from a model's loses its extra fields when it is saved.
    defaults.pop("_from_model_config", None)
    defaults.update(pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id)
    # A chat model may stop at more tokens than its configuration's one.
    defaults.setdefault("eos_token_id", config.eos_token_id)
    return GenerationConfig(**defaults)


@dataclass
class LatentGenerationOptions:
    """
    Args:
        config (`GenerationConfig`): everything else, for the decoder's own `generate`.
        latent_source (`str`, *optional*): `"prior"`, `"posterior"`, `"fitted_prior"` or the model's default.
        latent_temperature (`float`): factor on the source's standard deviation.
        num_return_sequences (`int`, *optional*): sequences for each input, where the caller said.
        average_latents (`int`, *optional*): how many z the one sequence for each input is averaged over.
    """

    config: GenerationConfig
    latent_source: str | None
    latent_temperature: float
    num_return_sequences: int | None
    average_latents: int | None = None

    @classmethod
    def settle(
        cls,
        defaults: GenerationConfig,
        given: GenerationConfig | None,
        latents: torch.Tensor | None,
        latent_source: str | None,
        latent_temperature: float | None,
        num_return_sequences: int | None,
        kwargs: dict,
        average_latents: int | None = None,
    ) -> tuple["LatentGenerationOptions", dict]:
        """
        What the caller says, else what the `given` configuration says, else the model's `defaults`; and those of `kwargs` that are
        no generation option but inputs of the decoder.

        Raises:
            ValueError: an option out of range, or one of where z comes from beside `latents`.
        """
        if latents is not None and (latent_source is not None or latent_temperature is not None):
            raise ValueError("`latents` are given: `latent_source` and `latent_temperature` would have no effect, leave them out.")
        config = copy.deepcopy(defaults if given is None else given)
        if given is not None:
            config.update(**defaults.to_dict(), defaults_only=True, allow_custom_entries=True)

        def option(name, given, default=None):
            return next((value for value in (given, getattr(config, name, None)) if value is not None), default)

        options = cls(
            config=config,
            latent_source=option("latent_source", latent_source),
            latent_temperature=option("latent_temperature", latent_temperature, 1.0),
            num_return_sequences=option("num_return_sequences", num_return_sequences),
            average_latents=average_latents,
        )
        if options.latent_source is not None:
            check_choice("latent_source", options.latent_source, LATENT_SOURCES)
        if options.latent_temperature < 0:
            raise ValueError(f"`latent_temperature` is {options.latent_temperature}; it cannot be negative.")
        if options.num_return_sequences is not None and options.num_return_sequences < 1:
            raise ValueError(f"`num_return_sequences` is {options.num_return_sequences}; it must be at least 1.")
        # The decoder sees one row per sequence: it must neither multiply the rows nor refuse several greedy ones.
        config.num_return_sequences = None
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
        if average_latents < 1 or (self.num_return_sequences or 1) > 1:
            raise ValueError(
                f"`average_latents` is {average_latents} with {self.num_return_sequences or 1} sequence(s) for each input; it "
                "is at least 1, and an average is one sequence."
            )
        if self.config.do_sample or (self.config.num_beams or 1) > 1:
            raise ValueError("`average_latents` decodes greedily: pass `do_sample=False` and no beams.")
        # As many rows, which decode in step.
        self.num_return_sequences = average_latents

    def draw(self, distribution: DiagonalGaussian, generator: torch.Generator | None) -> torch.Tensor:
        """One z for each sequence to return, those of one input next to each other."""
        return distribution.repeat(self.num_return_sequences or 1).sample(generator, self.latent_temperature)

    def accept(self, latents: torch.Tensor, batch_size: int, latent_size: int) -> torch.Tensor:
        """
        `latents` as the caller gave them: one for each sequence to return, or one for each input, whose sequences then share it
        and are the decoder's to multiply.

        Raises:
            ValueError: they are neither.
        """
        count = self.num_return_sequences
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


class AverageOverLatents(LogitsProcessor):
    r"""
    Scores each next token under the mean over z, \(\log \frac1L \sum_l p(y_t, y_{<t}|x,z_l)\) up to a constant, for the L rows of
    each input alike: greedy search then writes one text on all of them (Sohn et al. 2015, section 3).

    Args:
        num_latents (`int`): L; the rows of an input stand next to each other.
    """

    def __init__(self, num_latents: int):
        self.num_latents = num_latents
        self._log_probs: torch.Tensor | None = None
        self._of_text: torch.Tensor | float = 0.0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`(rows, length)` and `(rows, vocab)` to `(rows, vocab)`."""
        if self._log_probs is not None:
            # How well each z has foretold the text so far is its weight in what follows.
            self._of_text = self._of_text + self._log_probs.gather(1, input_ids[:, -1:])
        self._log_probs = scores.float().log_softmax(-1)
        joint = (self._of_text + self._log_probs).unflatten(0, (-1, self.num_latents))
        return joint.logsumexp(1).log_softmax(-1).repeat_interleave(self.num_latents, 0).to(scores)
