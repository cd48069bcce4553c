"""The conditional VAE of Sohn et al. 2015."""

from .configuration_cvae import CVAEConfig
from .modeling_conditional_vae import ConditionalVAEModel


class CVAEModel(ConditionalVAEModel):
    r"""
    The recognition network q(z|x,y), the prior network p(z|x) and the generation network p(y|x,z) (Sohn et al. 2015), trained on
    the conditional ELBO, on z from the prior (`objective="gsnn"`) or on both (`"hybrid"`).

    At inference z comes from p(z|x): `latent_temperature=0` decodes its mean, several z give several texts.
    """

    config: CVAEConfig


__all__ = ["CVAEModel"]
