"""Configuration of the conditional VAE with a prior network (Sohn et al. 2015)."""

from huggingface_hub.dataclasses import strict

from .configuration_conditional_vae import ConditionalVAEConfig


@strict
class CVAEConfig(ConditionalVAEConfig):
    r"""
    Configuration of a [`CVAEModel`]: the recognition network q(z|x,y), the prior network p(z|x) and the generation network p(y|x,z)
    of Sohn et al. 2015.

    `encoder` serves q, on the pair, and p(z|x), on x; with `source_conditioning="cross_attention"` or `"initial_state"` also the
    decoder. `tie_encoders=False` gives what reads x a `source_encoder` of its own.

    The arguments are [`ConditionalVAEConfig`]'s; `prior_type` defaults to `"conditional"` here.
    """

    model_type = "text-cvae"

    prior_type: str = "conditional"


__all__ = ["CVAEConfig"]
