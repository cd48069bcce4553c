"""Diagonal Gaussians over the latent z: sampling, densities, KL divergences, and the shapers that change a KL term in a loss.

Pure torch. Everything is float32 whatever the model's dtype: a KL is a difference of close numbers, and bfloat16 keeps 8 bits.
"""

from __future__ import annotations

import math

import torch

# exp(-20) and exp(10): beyond these a float32 KL loses its gradient's meaning long before it overflows.
LOGVAR_RANGE = (-20.0, 10.0)


class DiagonalGaussian:
    r"""
    \(\mathcal N(\mu, \mathrm{diag}(e^{\mathrm{logvar}}))\), one independent distribution per row.

    Args:
        mean (`torch.Tensor` of shape `(batch, latent_size)`): means.
        logvar (`torch.Tensor` of shape `(batch, latent_size)`): log variances, kept within `LOGVAR_RANGE`.

    Raises:
        ValueError: `mean` and `logvar` differ in shape.
    """

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

    def sample(self, generator: torch.Generator | None = None, temperature: float = 1.0) -> torch.Tensor:
        """
        One reparameterised draw per row, \\(\\mu + T\\sigma\\epsilon\\) (Kingma & Welling 2014, section 2.4).

        Args:
            generator (`torch.Generator`, *optional*): source of the noise; it may live on another device than the means.
            temperature (`float`, defaults to 1.0): factor on the standard deviation; 0 gives the mode.

        Returns:
            `torch.Tensor` of shape `(batch, latent_size)`, differentiable in mean and logvar.
        """
        device = generator.device if generator is not None else self.mean.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device).to(self.mean.device)
        return self.from_noise(noise, temperature)

    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """
        The draw that standard normal `noise` stands for, \\(\\mu + T\\sigma\\epsilon\\).

        Args:
            noise (`torch.Tensor` of shape `(batch, latent_size)`): one draw a row; or `(batch, samples, latent_size)`, several.
            temperature (`float`, defaults to 1.0): factor on the standard deviation; 0 gives the mode.

        Returns:
            `torch.Tensor` of the shape of `noise`, differentiable in mean and logvar.
        """
        mean, std = (each if each.ndim >= noise.ndim else each.unsqueeze(1) for each in (self.mean, self.std))
        return mean + temperature * std * noise.to(mean)

    def mode(self) -> torch.Tensor:
        """The mean."""
        return self.mean

    def kl(self, other: DiagonalGaussian) -> torch.Tensor:
        """KL(self ‖ other) in closed form, nats per example and dimension: shape `(batch, latent_size)`."""
        squared_distance = (self.mean - other.mean).square() + self.logvar.exp()
        return 0.5 * (other.logvar - self.logvar + squared_distance * torch.exp(-other.logvar) - 1.0)

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        """
        Log density in nats per row and dimension: `latents` may have leading dimensions that broadcast, as in
        `(samples, batch, latent_size)`.
        """
        scaled = (latents.float() - self.mean).square() * torch.exp(-self.logvar)
        return -0.5 * (math.log(2 * math.pi) + self.logvar + scaled)

    def repeat(self, count: int) -> DiagonalGaussian:
        """Each row `count` times in succession."""
        return DiagonalGaussian(self.mean.repeat_interleave(count, 0), self.logvar.repeat_interleave(count, 0))


def free_bits_total(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """
    max(KL, `nats`) per sentence: below the threshold the KL costs nothing and gets no gradient (Kingma et al. 2016).

    Args:
        kl (`torch.Tensor` of shape `(batch, latent_size)`): KL per example and dimension, nats.

    Returns:
        `torch.Tensor` of shape `(batch,)`, nats per sentence, for the loss only; report `kl.sum(-1)`.
    """
    return kl.sum(-1).clamp(min=nats)


def free_bits_per_dimension(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """Sum over dimensions of max(KL_i, `nats`) per sentence (Li et al. 2020, equation 9); shapes as in `free_bits_total`."""
    return kl.clamp(min=nats).sum(-1)


def free_bits_per_dimension_of_batch(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """
    Sum over dimensions of max(mean of KL_i over the batch, `nats`), the same for every row (Kingma et al. 2016, appendix C.8). The
    batch is the micro-batch of one process. Shapes as in `free_bits_total`.
    """
    return kl.mean(0).clamp(min=nats).sum().expand(len(kl))


def distance_to_capacity(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """
    |KL - `nats`| of the batch's mean KL, the same for every row (Burgess et al. 2018, equation 8): the rate is pulled to a capacity
    from both sides. The batch is the micro-batch of one process. Shapes as in `free_bits_total`.
    """
    return (kl.sum(-1).mean() - nats).abs().expand(len(kl))


# What `config.free_bits_per` may say; each shapes a (batch, latent_size) KL into the loss's (batch,) term.
FREE_BITS = {"sentence": free_bits_total, "dimension": free_bits_per_dimension, "batch": free_bits_per_dimension_of_batch}
