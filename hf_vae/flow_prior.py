"""p(z) as a flow: z is a mixture of Gaussians seen through an invertible network, so its density is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import nn
from transformers import initialization

from .checks import check_choice, check_count, check_flow, shaped_latents
from .configuration_vae import VAEConfig
from .prior import PRIORS, GaussianMixture
from .source import EncodedSource

# The largest |log s| of one coupling. With a larger one a short fit leaves places where the density is next to nothing.
LOG_SCALE = 1.0


class Coupling(nn.Module):
    r"""
    An invertible matrix mixes the numbers of z, as Glow's 1 × 1 convolution does (Kingma & Dhariwal 2018, section 3.2). Then half
    of them are scaled and shifted by what a network makes of the other half, \(u_b = e^{s(u_a)} u_b + t(u_a)\) (Dinh et al. 2017,
    equations 7 and 8).

    Args:
        latent_size (`int`): numbers in z, at least 2.
        hidden_size (`int`): width of the network's two hidden layers.
        dtype (`torch.dtype`, *optional*): of the weights; all is computed in float32.
    """

    def __init__(self, latent_size: int, hidden_size: int, dtype: torch.dtype | None = None):
        super().__init__()
        self.kept = latent_size // 2
        self.changed = latent_size - self.kept
        self.mixing = nn.Parameter(torch.empty(latent_size, latent_size, dtype=dtype))
        self.input = nn.Linear(self.kept, hidden_size, dtype=dtype)
        self.hidden = nn.Linear(hidden_size, hidden_size, dtype=dtype)
        self.output = nn.Linear(hidden_size, 2 * self.changed, dtype=dtype)

    def reset_parameters(self) -> None:
        """A random rotation, and no scale and shift."""
        # Half precision has no QR decomposition. What a checkpoint has filled stays: transformers guards its own functions.
        rotation = nn.init.orthogonal_(torch.empty_like(self.mixing, dtype=torch.float32))
        initialization.copy_(self.mixing, rotation)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def scale_and_shift(self, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log s and t, `(…, changed)` each."""
        hidden = kept
        for layer in (self.input, self.hidden):
            hidden = nn.functional.silu(nn.functional.linear(hidden, layer.weight.float(), layer.bias.float()))
        output = nn.functional.linear(hidden, self.output.weight.float(), self.output.bias.float())
        log_scale, shift = output.chunk(2, dim=-1)
        return LOG_SCALE * torch.tanh(log_scale / LOG_SCALE), shift

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Towards the noise: `(…, latent_size)` to the same and log |det| of the Jacobian, `(…)`."""
        mixing = self.mixing.float()
        kept, changed = (latents @ mixing.T).split([self.kept, self.changed], dim=-1)
        log_scale, shift = self.scale_and_shift(kept)
        changed = changed * torch.exp(log_scale) + shift
        return torch.cat([kept, changed], dim=-1), log_scale.sum(-1) + torch.linalg.slogdet(mixing).logabsdet

    def inverse(self, noise: torch.Tensor) -> torch.Tensor:
        """From the noise to z."""
        kept, changed = noise.split([self.kept, self.changed], dim=-1)
        log_scale, shift = self.scale_and_shift(kept)
        mixed = torch.cat([kept, (changed - shift) * torch.exp(-log_scale)], dim=-1)
        return torch.linalg.solve(self.mixing.float(), mixed.flatten(0, -2).T).T.reshape(mixed.shape)


class FlowDistribution(GaussianMixture):
    r"""
    \(z = f^{-1}(u)\) with u from a mixture of Gaussians, so \(\log p(z) = \log p_u(f(z)) + \log |\det \partial f / \partial z|\)
    (Dinh et al. 2017, equation 2). Its temperature is that of u.

    Args:
        flow ([`FlowPrior`]): f, which stays the same, whatever rows are selected, and stays on its own device.
        weights, means, logvars: of u, as in [`GaussianMixture`].
    """

    def __init__(self, flow: FlowPrior, weights: torch.Tensor, means: torch.Tensor, logvars: torch.Tensor):
        super().__init__(weights, means, logvars)
        self.flow = flow

    def with_parameters(self, parameters: Mapping[str, torch.Tensor]) -> Self:
        return type(self)(self.flow, **parameters)

    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        return self.flow.to_latents(super().from_noise(noise, temperature))

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        noise, log_determinant = self.flow.to_noise(latents)
        return super().log_prob(noise) + log_determinant

    def mode(self) -> torch.Tensor:
        """What the mean of the base's heaviest component becomes; the density may be higher elsewhere."""
        return self.flow.to_latents(super().mode())


class FlowPrior(nn.Module):
    r"""
    p(z) as a flow of affine couplings (RealNVP, Dinh et al. 2017) over a standardised z. Either it is trained with the ELBO, with
    `prior_type="flow"`; or it is fitted after training to samples of q (`hf_vae.latent_space.fit_flow_prior`) and kept by
    `model.set_fitted_prior`. A new one is N(0, I). It is called as any [`Prior`] is.

    With `labels` the noise is a mixture of one Gaussian for each label, so one flow has p(z|label) of each and their sum p(z)
    (Izmailov et al. 2020).

    Args:
        latent_size (`int`): dimensions of z, at least 2.
        num_layers (`int`, defaults to 8): couplings.
        hidden_size (`int`, defaults to 128): width of their networks.
        labels (`list[str]`, *optional*): values of an attribute.
        dtype (`torch.dtype`, *optional*): of the weights; all is computed in float32.

    Raises:
        ValueError: a size that is too small, or labels that are not different texts.
    """

    reads_source = False
    center: torch.Tensor
    spread: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self,
        latent_size: int,
        num_layers: int = 8,
        hidden_size: int = 128,
        labels: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_flow(latent_size, num_layers, hidden_size, labels)
        self.latent_size, self.hidden_size = latent_size, hidden_size
        self.labels = None if labels is None else list(labels)
        self.layers = nn.ModuleList(Coupling(latent_size, hidden_size, dtype) for _ in range(num_layers))
        num_components = len(labels or [""])
        # Moments of the codes and shares of the labels, which are counted and not trained.
        self.register_buffer("center", torch.empty(latent_size))
        self.register_buffer("spread", torch.empty(latent_size))
        self.register_buffer("weights", torch.empty(num_components))
        self.means = nn.Parameter(torch.empty(num_components, latent_size, dtype=dtype))
        self.logvars = nn.Parameter(torch.empty(num_components, latent_size, dtype=dtype))
        self.reset_parameters()

    @classmethod
    def from_config(cls, config: VAEConfig, source_size: int = 0, dtype: torch.dtype | None = None) -> FlowPrior:
        """The flow that `prior_type="flow"` builds."""
        return cls(config.total_latent_size, config.flow_layers, config.flow_hidden_size, dtype=dtype)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """N(0, I), as [`~GaussianMixturePrior.reset_parameters`] does it."""
        for layer in self.layers:
            cast(Coupling, layer).reset_parameters()
        nn.init.zeros_(self.center)
        nn.init.ones_(self.spread)
        nn.init.constant_(self.weights, 1.0 / len(self.weights))
        nn.init.zeros_(self.means)
        nn.init.zeros_(self.logvars)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def sizes(self) -> dict[str, Any]:
        """What makes a flow of this size again, besides `latent_size`; `config.fitted_prior_flow` holds it."""
        return {"num_layers": self.num_layers, "hidden_size": self.hidden_size, "labels": self.labels}

    def freeze(self) -> FlowPrior:
        """Makes persistent buffers of the weights: they are saved with the model that holds them, and no optimiser sees them."""
        for module in self.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach())
        return self

    def extra_repr(self) -> str:
        return f"latent_size={self.latent_size}, num_layers={self.num_layers}, hidden_size={self.hidden_size}"

    def forward(
        self,
        source: EncodedSource | None = None,
        batch_size: int = 1,
        device: torch.device | None = None,
        label: str | None = None,
    ) -> FlowDistribution:
        """p(z), or p(z|label), the same in each of `batch_size` rows, in float32."""
        # Weights that were cast to half precision no longer sum to 1.
        weights = self.weights.float() / self.weights.float().sum()
        if label is not None:
            weights = nn.functional.one_hot(torch.tensor(self._component(label)), len(weights)).to(weights)
        means, logvars = self.means.float(), self.logvars.float()
        rows = (each.unsqueeze(0).expand(batch_size, *each.shape).to(device) for each in (weights, means, logvars))
        return FlowDistribution(self, *rows)

    def _component(self, label: str) -> int:
        if self.labels is None:
            raise ValueError(f"`label` is {label!r}, and this flow was fitted without labels: pass `labels` to `fit_flow_prior`.")
        check_choice("label", label, tuple(self.labels))
        return self.labels.index(label)

    def to_noise(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        f(z).

        Args:
            latents (`torch.Tensor` of shape `(…, latent_size)`).

        Returns:
            `torch.Tensor` of the same shape and log |det ∂f/∂z| of shape `(…)`, float32, on the device of `latents`.
        """
        device = self.center.device
        # Under autocast f and its inverse would be rounded differently.
        with torch.autocast(device.type, enabled=False):
            noise = (latents.to(device).float() - self.center.float()) / self.spread.float()
            log_determinant = -self.spread.float().log().sum().expand(noise.shape[:-1])
            for layer in self.layers:
                noise, log_scale = layer(noise)
                log_determinant = log_determinant + log_scale
        return noise.to(latents.device), log_determinant.to(latents.device)

    def to_latents(self, noise: torch.Tensor) -> torch.Tensor:
        """The z whose f(z) is `noise`, of any shape `(…, latent_size)`, in float32."""
        device = self.center.device
        with torch.autocast(device.type, enabled=False):
            latents = noise.to(device).float()
            for layer in reversed(self.layers):
                latents = cast(Coupling, layer).inverse(latents)
            return (latents * self.spread.float() + self.center.float()).to(noise.device)

    def sample(
        self, num: int, generator: torch.Generator | None = None, temperature: float = 1.0, label: str | None = None
    ) -> torch.Tensor:
        """
        `num` draws of z from p(z) or p(z|label), `(num, latent_size)`; `model.generate(latents=…)` takes them.

        Raises:
            ValueError: `num` is below 1, or `label` is not one of the `labels`.
        """
        check_count("num", num)
        return self(batch_size=num, label=label).sample(generator, temperature)

    def log_prob(self, latents: torch.Tensor, label: str | None = None) -> torch.Tensor:
        """
        log p(z) or log p(z|label) in nats, `(rows, latent_size)` to `(rows,)`.

        Raises:
            ValueError: `latents` have another shape, or `label` is not one of the `labels`.
        """
        return self(label=label).log_prob(shaped_latents(latents, None, self.latent_size))


PRIORS["flow"] = FlowPrior.from_config

__all__ = ["FlowDistribution", "FlowPrior"]
