"""A mixture of Gaussians over z, for where the encoder's codes have left N(0, I)."""

from __future__ import annotations

import math

import torch
from torch import nn

from .checks import check_count, check_number


class GaussianMixturePrior(nn.Module):
    r"""
    \(p(z) = \sum_k w_k \mathcal{N}(z; \mu_k, \mathrm{diag}(\sigma_k^2))\), fitted after training to where the encoder puts its
    codes (ex-post density estimation: Ghosh et al. 2020, section 4). Its parameters are persistent buffers: they are saved with
    the model that holds it, and no optimiser sees them. A new one is N(0, I).

    Args:
        num_components (`int`): k.
        latent_size (`int`): dimensions of z.

    Raises:
        ValueError: one of them is below 1.
    """

    weights: torch.Tensor
    means: torch.Tensor
    logvars: torch.Tensor

    def __init__(self, num_components: int, latent_size: int):
        super().__init__()
        for name, value in (("num_components", num_components), ("latent_size", latent_size)):
            check_count(name, value)
        self.register_buffer("weights", torch.empty(num_components))
        self.register_buffer("means", torch.empty(num_components, latent_size))
        self.register_buffer("logvars", torch.empty(num_components, latent_size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """
        N(0, I) in every component. A model that is built without storage and whose checkpoint lacks the buffers calls this from its
        `_init_weights`; what a checkpoint has filled stays, because these are the functions that transformers guards.
        """
        nn.init.constant_(self.weights, 1.0 / self.num_components)
        nn.init.zeros_(self.means)
        nn.init.zeros_(self.logvars)

    @classmethod
    def from_components(cls, weights: torch.Tensor, means: torch.Tensor, logvars: torch.Tensor) -> GaussianMixturePrior:
        """
        The mixture of these components.

        Args:
            weights (`torch.Tensor` of shape `(components,)`): not negative; their sum is brought to 1.
            means, logvars (`torch.Tensor` of shape `(components, latent_size)`): of each, per dimension.

        Raises:
            ValueError: shapes that do not fit, a value that is not finite, or weights that are no weights.
        """
        if means.ndim != 2 or logvars.shape != means.shape or weights.shape != means.shape[:1]:
            raise ValueError(
                f"`weights` {tuple(weights.shape)}, `means` {tuple(means.shape)} and `logvars` {tuple(logvars.shape)}: expected "
                "(components,), (components, latent_size) and the same again."
            )
        for name, values in (("weights", weights), ("means", means), ("logvars", logvars)):
            if not values.isfinite().all():
                raise ValueError(f"`{name}` holds values that are not finite.")
        if (weights < 0).any() or weights.sum() <= 0:
            raise ValueError(f"`weights` are {weights.tolist()}; they must not be negative, nor all zero.")
        prior = cls(*means.shape)
        prior.weights.copy_(weights / weights.sum())
        prior.means.copy_(means)
        prior.logvars.copy_(logvars)
        return prior

    @property
    def num_components(self) -> int:
        return self.means.shape[0]

    @property
    def latent_size(self) -> int:
        return self.means.shape[1]

    def extra_repr(self) -> str:
        return f"num_components={self.num_components}, latent_size={self.latent_size}"

    def sample(self, num: int, generator: torch.Generator | None = None, temperature: float = 1.0) -> torch.Tensor:
        """
        Draws of z: a component by its weight, then \\(\\mu_k + T\\sigma_k\\epsilon\\).

        Args:
            num (`int`): how many.
            generator (`torch.Generator`, *optional*): source of both draws; it may live on another device than the mixture.
            temperature (`float`, defaults to 1.0): factor on the components' standard deviations; 0 gives components' means, still
                drawn by weight.

        Returns:
            `torch.Tensor` of shape `(num, latent_size)`, float32.

        Raises:
            ValueError: `num` below 1 or a negative temperature.
        """
        check_count("num", num)
        check_number("temperature", temperature, least=0)
        home = self.means.device
        device = home if generator is None else generator.device
        component = torch.multinomial(self.weights.float().to(device), num, replacement=True, generator=generator).to(home)
        noise = torch.randn(num, self.latent_size, generator=generator, device=device).to(home)
        return self.means[component].float() + temperature * torch.exp(0.5 * self.logvars[component].float()) * noise

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        """
        log p(z) in nats, `(rows, latent_size)` to `(rows,)`.

        Raises:
            ValueError: `latents` of another shape.
        """
        if latents.ndim != 2 or latents.shape[1] != self.latent_size:
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}; expected (rows, {self.latent_size}).")
        weights, means, logvars = self.weights.float(), self.means.float(), self.logvars.float()
        log_densities = [
            -0.5 * (math.log(2 * math.pi) + logvar + (latents.float() - mean).square() * torch.exp(-logvar)).sum(-1)
            for mean, logvar in zip(means, logvars)
        ]
        # Weights that were cast to half precision no longer sum to 1.
        return torch.logsumexp(torch.stack(log_densities, dim=-1) + torch.log(weights / weights.sum()), dim=-1)


__all__ = ["GaussianMixturePrior"]
