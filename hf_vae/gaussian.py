"""The diagonal Gaussian: q(z|x,y), p(z|x) and N(0, I), and the KL between two of them."""

from __future__ import annotations

import math

import torch

from .latent_distribution import LatentDistribution, per_sample

# exp(-20) and exp(10): beyond these a float32 KL loses its gradient's meaning long before it overflows.
LOGVAR_RANGE = (-20.0, 10.0)


class DiagonalGaussian(LatentDistribution):
    r"""
    \(\mathcal N(\mu, \mathrm{diag}(e^{\mathrm{logvar}}))\), one independent distribution per row.

    Args:
        mean (`torch.Tensor` of shape `(batch, latent_size)`): means.
        logvar (`torch.Tensor` of shape `(batch, latent_size)`): log variances, kept within `LOGVAR_RANGE`.

    Raises:
        ValueError: `mean` and `logvar` differ in shape.
    """

    parameter_names = ("mean", "logvar")

    def __init__(self, mean: torch.Tensor, logvar: torch.Tensor):
        if mean.shape != logvar.shape:
            raise ValueError(f"`mean` {tuple(mean.shape)} and `logvar` {tuple(logvar.shape)} must have one shape.")
        self.mean = mean.float()
        self.logvar = logvar.float().clamp(*LOGVAR_RANGE)

    @classmethod
    def standard(cls, batch_size: int, latent_size: int, device: torch.device | None = None) -> DiagonalGaussian:
        """The prior N(0, I), `batch_size` rows of it."""
        zeros = torch.zeros(batch_size, latent_size, device=device)
        return cls(zeros, zeros)

    @property
    def std(self) -> torch.Tensor:
        return torch.exp(0.5 * self.logvar)

    @property
    def noise_size(self) -> int:
        return self.mean.shape[-1]

    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        r"""\(\mu + T\sigma\epsilon\) (Kingma & Welling 2014, section 2.4), differentiable in mean and logvar."""
        mean, std = (per_sample(each, noise) for each in (self.mean, self.std))
        return mean + temperature * std * noise.to(mean)

    def mode(self) -> torch.Tensor:
        """The mean."""
        return self.mean

    def kl(self, other: LatentDistribution) -> torch.Tensor | None:
        """KL(self ‖ other) to another diagonal Gaussian in closed form, nats per example and dimension: `(batch, latent_size)`."""
        if not isinstance(other, DiagonalGaussian):
            return None
        squared_distance = (self.mean - other.mean).square() + self.logvar.exp()
        return 0.5 * (other.logvar - self.logvar + squared_distance * torch.exp(-other.logvar) - 1.0)

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        mean, logvar = (per_sample(each, latents) for each in (self.mean, self.logvar))
        scaled = (latents.float() - mean).square() * torch.exp(-logvar)
        return -0.5 * (math.log(2 * math.pi) + logvar + scaled).sum(-1)


__all__ = ["DiagonalGaussian"]
