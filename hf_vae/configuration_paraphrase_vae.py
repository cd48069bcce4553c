"""Configuration of the paraphrase VAE (VAE-SVG)."""

from huggingface_hub.dataclasses import strict

from .configuration_conditional_vae import ConditionalVAEConfig


@strict
class ParaphraseVAEConfig(ConditionalVAEConfig):
    r"""
    Configuration of a [`ParaphraseVAEModel`], VAE-SVG of Gupta et al. 2018: q(z|x,y) reads the pair, the prior is N(0, I), z
    enters the decoder at every step.

    `encoder` serves q. With `source_conditioning="cross_attention"` or `"initial_state"` it also serves the decoder (VAE-SVG-eq)
    unless `tie_encoders=False` gives the decoder a `source_encoder` of its own (VAE-SVG).

    The arguments are [`ConditionalVAEConfig`]'s.
    """

    model_type = "paraphrase-vae"


__all__ = ["ParaphraseVAEConfig"]
