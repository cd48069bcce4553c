"""A latent family from outside the package: von Mises-Fisher on the sphere, with the uniform prior (Davidson et al. 2018)."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from hf_vae import LatentDistribution, Prior, register_posterior, register_prior

from .contract import check_evaluates, check_generates, check_saves_and_loads, check_trains, vae


class UniformSphere(LatentDistribution):
    """Uniform on the unit sphere of `anchor`'s dimensions; `anchor` only says how many rows there are, and where."""

    parameter_names = ("anchor",)

    def __init__(self, anchor: torch.Tensor):
        self.anchor = anchor

    @property
    def noise_size(self) -> int:
        return self.anchor.shape[-1]

    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        return F.normalize(noise.to(self.anchor), dim=-1)

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.full(latents.shape[:-1], -math.log(4 * math.pi))

    def mode(self) -> torch.Tensor:
        return F.normalize(torch.ones_like(self.anchor), dim=-1)


class VonMisesFisher(LatentDistribution):
    """On the sphere in three dimensions, where everything is elementary: density kappa exp(kappa mu'z) / (4 pi sinh(kappa))."""

    parameter_names = ("mean", "concentration")

    def __init__(self, mean: torch.Tensor, concentration: torch.Tensor):
        self.mean, self.concentration = mean.float(), concentration.float()

    @property
    def noise_size(self) -> int:
        return 3

    def _log_normaliser(self) -> torch.Tensor:
        kappa = self.concentration.squeeze(-1)
        return kappa.log() - math.log(2 * math.pi) - kappa - torch.log1p(-torch.exp(-2 * kappa))

    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        mean, kappa = (each.unsqueeze(1) if noise.ndim == 3 else each for each in (self.mean, self.concentration))
        noise = noise.to(mean)
        share = torch.special.ndtr(noise[..., :1])
        # The inverse of the distribution function of the cosine between z and the mean.
        cosine = 1 + torch.log(share + (1 - share) * torch.exp(-2 * kappa)) / kappa * temperature
        side = torch.cat([noise[..., 1:], torch.zeros_like(noise[..., :1])], dim=-1)
        # A direction in the plane at right angles to the first axis, turned so that the axis becomes the mean.
        first = torch.zeros_like(mean)
        first[..., 0] = 1
        plane = F.normalize(torch.cat([torch.zeros_like(side[..., :1]), side[..., :2]], dim=-1), dim=-1)
        point = cosine * first + (1 - cosine.square()).clamp(min=0).sqrt() * plane
        axis = F.normalize(first - mean, dim=-1, eps=1e-6)
        return point - 2 * (point * axis).sum(-1, keepdim=True) * axis

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        several = latents.ndim == 3
        mean, kappa = (each.unsqueeze(1) if several else each for each in (self.mean, self.concentration))
        normaliser = self._log_normaliser().unsqueeze(1) if several else self._log_normaliser()
        return normaliser + (kappa * mean * latents.float()).sum(-1)

    def mode(self) -> torch.Tensor:
        return self.mean

    def kl(self, other: LatentDistribution) -> torch.Tensor | None:
        if not isinstance(other, UniformSphere):
            return None
        kappa = self.concentration
        return self._log_normaliser().unsqueeze(-1) + kappa / torch.tanh(kappa) - 1 + math.log(4 * math.pi)


class UniformSpherePrior(Prior):
    def forward(self, source, batch_size, device):
        return UniformSphere(torch.zeros(batch_size, self.latent_size, device=device))


class VonMisesFisherPosterior(nn.Module):
    def __init__(self, config, hidden_size, dtype):
        super().__init__()
        self.linear = nn.Linear(hidden_size, config.latent_size + 1, dtype=dtype)

    def forward(self, pooled):
        mean, concentration = self.linear(pooled).split([3, 1], dim=-1)
        return VonMisesFisher(F.normalize(mean, dim=-1), F.softplus(concentration) + 1)


@pytest.fixture(autouse=True)
def registered():
    register_prior("uniform_sphere", UniformSpherePrior)
    register_posterior("von_mises_fisher", VonMisesFisherPosterior)


@pytest.fixture
def model():
    return vae(latent_size=3, posterior_type="von_mises_fisher", prior_type="uniform_sphere")


def test_it_is_a_density_and_its_kl_is_the_mean_log_ratio():
    q = VonMisesFisher(F.normalize(torch.tensor([[1.0, 2.0, -1.0]]), dim=-1), torch.tensor([[3.0]]))
    p = UniformSphere(torch.zeros(1, 3))
    noise = torch.randn(1, 100_000, 3, generator=torch.Generator().manual_seed(0))
    uniform = p.from_noise(noise)
    assert q.log_prob(uniform).exp().mean() * 4 * math.pi == pytest.approx(1.0, abs=0.02)
    latents = q.from_noise(noise)
    assert torch.allclose(latents.norm(dim=-1), torch.ones(()), atol=1e-5)
    assert (q.log_prob(latents) - p.log_prob(latents)).mean() == pytest.approx(q.kl(p).item(), abs=0.01)
    assert (latents @ q.mean.T).mean() == pytest.approx(1 / math.tanh(3) - 1 / 3, abs=0.01)


def test_it_trains_saves_generates_and_is_evaluated(model, tmp_path):
    check_trains(model, tmp_path)
    check_saves_and_loads(model, tmp_path)
    check_generates(model)
    check_evaluates(model)


def test_free_bits_per_dimension_need_a_sum_over_dimensions(model, tmp_path):
    model.config.free_bits, model.config.free_bits_per = 1.0, "dimension"
    with pytest.raises(ValueError, match="not a sum over dimensions"):
        check_trains(model, tmp_path)
