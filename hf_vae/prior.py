"""p(z) and p(z|x): N(0, I), the prior network, and the mixture that was fitted after training, all called alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from .checks import check_choice, check_count, shaped_latents
from .configuration_vae import PRIOR_TYPES, VAEConfig
from .gaussian import DiagonalGaussian
from .latent_distribution import LatentDistribution, per_sample
from .posterior import GaussianHead
from .resampler import beside, build_resampler
from .source import EncodedSource


class Prior(nn.Module, ABC):
    """
    A prior is made from the model's configuration, the width of the one vector of x, and the dtype of its weights. Called with the
    encoded source it gives the distribution of z for each row.
    """

    # Whether it is p(z|x): the model then reads x for it.
    reads_source = False

    def __init__(self, config: VAEConfig, source_size: int, dtype: torch.dtype):
        super().__init__()
        self.latent_size = config.total_latent_size

    @abstractmethod
    def forward(self, source: EncodedSource | None, batch_size: int, device: torch.device) -> LatentDistribution:
        """
        Args:
            source ([`EncodedSource`], *optional*): x; its `vector` is there if the prior reads it.
            batch_size (`int`): rows.
            device (`torch.device`): where the distribution is to live.
        """


class StandardPrior(Prior):
    """N(0, I)."""

    def forward(self, source: EncodedSource | None, batch_size: int, device: torch.device) -> DiagonalGaussian:
        return DiagonalGaussian.standard(batch_size, self.latent_size, device)


class PriorNetwork(Prior):
    """
    p(z|x): one layer with a tanh over the vector that an encoder made of x, and a Gaussian of that (Sohn et al. 2015; Zhao et al.
    2017, whose recognition network has no such layer either). With `pooling="attention"` it has queries of its own over the states
    of x, one for each vector of z.
    """

    reads_source = True

    def __init__(self, config: VAEConfig, source_size: int, dtype: torch.dtype):
        super().__init__(config, source_size, dtype)
        self.resampler = build_resampler(config, dtype)
        self.hidden = nn.Linear(source_size, source_size, dtype=dtype)
        self.head = GaussianHead(source_size, config.latent_size, dtype)

    def forward(self, source: EncodedSource | None, batch_size: int, device: torch.device) -> DiagonalGaussian:
        if source is None or source.vector is None:
            raise ValueError("`source` was read without the vector that p(z|x) needs: leave `with_prior=True` in `read_source`.")
        return self.head(torch.tanh(self.hidden(self._read(source))))

    def _read(self, source: EncodedSource) -> torch.Tensor:
        """One vector of x, or one for each vector of z, with what is known of a dialogue besides its turns."""
        if self.resampler is None:
            return cast(torch.Tensor, source.vector)
        vectors = self.resampler(source.hidden_states, source.attention_mask)
        return vectors if source.meta is None else beside(vectors, source.meta)


class GaussianMixture(LatentDistribution):
    r"""
    \(\sum_k w_k \mathcal N(\mu_k, \mathrm{diag}(\sigma_k^2))\) in each row.

    Args:
        weights (`torch.Tensor` of shape `(batch, components)`): they sum to 1.
        means, logvars (`torch.Tensor` of shape `(batch, components, latent_size)`): of each component.
    """

    parameter_names = ("weights", "means", "logvars")

    def __init__(self, weights: torch.Tensor, means: torch.Tensor, logvars: torch.Tensor):
        self.weights, self.means, self.logvars = weights.float(), means.float(), logvars.float()

    @property
    def noise_size(self) -> int:
        # One number more chooses the component.
        return self.means.shape[-1] + 1

    @property
    def smooth(self) -> bool:
        # From component to component it jumps.
        return self.weights.shape[1] == 1

    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        r"""
        A component by its weight, from the last number of `noise`, then \(\mu_k + T\sigma_k\epsilon\). A temperature of 0 gives the
        components' means, still drawn by weight.
        """
        noise = noise.to(self.means)
        several = noise.unsqueeze(1) if noise.ndim == 2 else noise
        edges = self.weights.cumsum(-1).contiguous()
        # What rounding leaves of the sum belongs to the last component.
        share = torch.special.ndtr(several[..., -1]).contiguous() * edges[:, -1:]
        component = torch.searchsorted(edges, share, right=True).clamp(max=edges.shape[1] - 1)
        index = component.unsqueeze(-1).expand(*component.shape, self.means.shape[-1])
        mean, logvar = self.means.gather(1, index), self.logvars.gather(1, index)
        latents = mean + temperature * torch.exp(0.5 * logvar) * several[..., :-1]
        return latents.squeeze(1) if noise.ndim == 2 else latents

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        joint = []
        for weight, mean, logvar in zip(self.weights.unbind(1), self.means.unbind(1), self.logvars.unbind(1)):
            density = DiagonalGaussian(mean, logvar).log_prob(latents)
            joint.append(density + per_sample(weight.log().unsqueeze(-1), latents).squeeze(-1))
        return torch.stack(joint).logsumexp(0)

    def mode(self) -> torch.Tensor:
        """The mean of the component with the largest weight."""
        return self.means[torch.arange(len(self.means), device=self.device), self.weights.argmax(1)]


class GaussianMixturePrior(nn.Module):
    r"""
    \(p(z) = \sum_k w_k \mathcal{N}(z; \mu_k, \mathrm{diag}(\sigma_k^2))\), fitted after training to where the encoder puts its
    codes (ex-post density estimation: Ghosh et al. 2020, section 4). Its parameters are persistent buffers: they are saved with
    the model that holds it, and no optimiser sees them. A new one is N(0, I). It is called as any [`Prior`] is.

    Args:
        num_components (`int`): k.
        latent_size (`int`): dimensions of z.

    Raises:
        ValueError: one of them is below 1.
    """

    reads_source = False
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
            means, logvars (`torch.Tensor` of shape `(components, latent_size)`): of each component, per dimension.

        Raises:
            ValueError: shapes that do not fit, a value that is not finite, or weights that are negative or all zero.
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

    def forward(
        self, source: EncodedSource | None = None, batch_size: int = 1, device: torch.device | None = None
    ) -> GaussianMixture:
        """The mixture, the same in each of `batch_size` rows, in float32."""
        # Weights that were cast to half precision no longer sum to 1.
        weights = self.weights.float() / self.weights.float().sum()
        rows = (each.unsqueeze(0).expand(batch_size, *each.shape).to(device) for each in (weights, self.means, self.logvars))
        return GaussianMixture(*rows)

    def sample(self, num: int, generator: torch.Generator | None = None, temperature: float = 1.0) -> torch.Tensor:
        """
        `num` draws of z, `(num, latent_size)`.

        Raises:
            ValueError: `num` is below 1.
        """
        check_count("num", num)
        return self(batch_size=num).sample(generator, temperature)

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        """
        log p(z) in nats, `(rows, latent_size)` to `(rows,)`.

        Raises:
            ValueError: `latents` have another shape.
        """
        return self().log_prob(shaped_latents(latents, None, self.latent_size))


# What `config.prior_type` may name, besides `"fitted"`, which is the prior that was fitted to the model's codes. Each is made from
# the configuration, the width of x's vector and a dtype, and called as a [`Prior`] is. `flow_prior.py` adds `"flow"`.
PRIORS: dict[str, Callable[..., Any]] = {"standard": StandardPrior, "conditional": PriorNetwork}


def register_prior(name: str, prior_class: type[Prior]) -> None:
    """
    Makes `prior_class` what `prior_type=name` builds.

    Args:
        name (`str`): what a configuration calls it.
        prior_class (`type`): a subclass of [`Prior`], or what is made and called as one.
    """
    PRIORS[name] = prior_class
    PRIOR_TYPES[name] = prior_class.reads_source


def build_prior(config: VAEConfig, source_size: int, dtype: torch.dtype) -> Prior:
    """The prior that `config.prior_type` names."""
    check_choice("prior_type", config.prior_type, tuple(PRIORS))
    return PRIORS[config.prior_type](config, source_size, dtype)


__all__ = ["GaussianMixture", "GaussianMixturePrior", "Prior", "PriorNetwork", "StandardPrior", "register_prior"]
