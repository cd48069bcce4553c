"""q(z|x,y): the recognition network's last layer, from one vector of what it has read to a distribution over z."""

import torch
from torch import nn
from transformers import initialization

from .checks import check_choice
from .configuration_vae import POSTERIOR_TYPES, VAEConfig
from .gaussian import DiagonalGaussian
from .latent_distribution import LatentDistribution


class FixedScaleBatchNorm(nn.Module):
    r"""
    Batch normalisation of posterior means to standard deviation `gamma` over the batch, whatever the encoder does, with a trained
    shift (Zhu et al. 2020, BN-VAE). Since the KL to N(0, 1) is at least \(\frac12\mu^2\) in every dimension, the mean KL of a batch
    to N(0, I) cannot fall below `latent_size` · `gamma`² / 2 nats per sentence: the posterior cannot collapse onto that prior. A
    p(z|x) may follow the means, and there is no such bound.

    The statistics are a micro-batch's own in training, running averages in evaluation.
    """

    def __init__(self, latent_size: int, gamma: float, dtype: torch.dtype):
        super().__init__()
        self.gamma = gamma
        # With PyTorch's 1e-5, an encoder that shrinks its means below 0.003 would get round the bound.
        self.norm = nn.BatchNorm1d(latent_size, eps=1e-12, affine=False, dtype=dtype)
        self.shift = nn.Parameter(torch.zeros(latent_size, dtype=dtype))

    def init_weights(self) -> None:
        initialization.zeros_(self.shift)

    def forward(self, mean: torch.Tensor) -> torch.Tensor:
        """
        Means `(batch, latent_size)` to means of the same shape.

        Raises:
            ValueError: in training, a batch of one, which has no spread.
        """
        if self.training and len(mean) < 2:
            raise ValueError(
                "`batch_norm_gamma` normalises posterior means over the batch, and this one has a single row: train with at "
                "least two (`dataloader_drop_last=True` drops a last batch of one)."
            )
        return self.gamma * self.norm(mean) + self.shift


class GaussianHead(nn.Module):
    """
    Mean and log variance of a diagonal Gaussian over z, linear in the input.

    Args:
        hidden_size (`int`): width of the input.
        latent_size (`int`): dimensions of z.
        dtype (`torch.dtype`): of the weights.
        bias (`bool`, defaults to `True`): whether the linear layer has one.
        batch_norm_gamma (`float`, *optional*): the means pass [`FixedScaleBatchNorm`].
        num_vectors (`int`, defaults to 1): how many vectors of a row it will read, all by the same weights. It then gives one
            Gaussian over them side by side.
    """

    def __init__(
        self,
        hidden_size: int,
        latent_size: int,
        dtype: torch.dtype,
        bias: bool = True,
        batch_norm_gamma: float | None = None,
        num_vectors: int = 1,
    ):
        super().__init__()
        self.linear = nn.Linear(hidden_size, 2 * latent_size, bias=bias, dtype=dtype)
        self.mean_norm: nn.Module = nn.Identity()
        if batch_norm_gamma is not None:
            self.mean_norm = FixedScaleBatchNorm(num_vectors * latent_size, batch_norm_gamma, dtype)

    def forward(self, pooled: torch.Tensor) -> DiagonalGaussian:
        """Over `num_vectors` · `latent_size` numbers, of `(batch, hidden_size)` or `(batch, num_vectors, hidden_size)`."""
        mean, logvar = (each.flatten(1) for each in self.linear(pooled).chunk(2, dim=-1))
        return DiagonalGaussian(self.mean_norm(mean), logvar)


class GaussianPosterior(GaussianHead):
    """
    A posterior is made from the model's configuration, the width of the vector that it reads, and the dtype of its weights. Called
    with vectors `(batch, hidden_size)` it gives a [`LatentDistribution`]. This one is a diagonal Gaussian, linear in the vector. Of
    `config.num_latents` vectors in each row it gives one over `config.total_latent_size` numbers; a family that can do so says it.
    """

    reads_several = True

    def __init__(self, config: VAEConfig, hidden_size: int, dtype: torch.dtype):
        options = (config.posterior_bias, config.batch_norm_gamma, config.num_latents)
        super().__init__(hidden_size, config.latent_size, dtype, *options)


# What `config.posterior_type` may name.
POSTERIORS: dict[str, type[nn.Module]] = {"gaussian": GaussianPosterior}


def register_posterior(name: str, posterior_class: type[nn.Module]) -> None:
    """
    Makes `posterior_class` what `posterior_type=name` builds.

    Args:
        name (`str`): what a configuration calls it.
        posterior_class (`type`): made with `(config, hidden_size, dtype)`; its `forward` takes vectors `(batch, hidden_size)` and
            returns a [`LatentDistribution`]. If its `reads_several` is true, it also takes `(batch, num_latents, hidden_size)`.
    """
    POSTERIORS[name] = posterior_class
    if name not in POSTERIOR_TYPES:
        POSTERIOR_TYPES.append(name)


def build_posterior(config: VAEConfig, hidden_size: int, dtype: torch.dtype) -> nn.Module:
    """
    The posterior that `config.posterior_type` names.

    Raises:
        ValueError: there is no such family, or one of a single vector meets several.
    """
    check_choice("posterior_type", config.posterior_type, tuple(POSTERIORS))
    if config.num_latents > 1 and not getattr(POSTERIORS[config.posterior_type], "reads_several", False):
        raise ValueError(
            f"`num_latents` is {config.num_latents}, and `posterior_type={config.posterior_type!r}` reads one vector: choose "
            "'gaussian', or leave `num_latents` out."
        )
    return POSTERIORS[config.posterior_type](config, hidden_size, dtype)


__all__ = ["GaussianPosterior", "LatentDistribution", "register_posterior"]
