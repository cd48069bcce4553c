"""A prior from outside the package: an affine coupling flow with an exact density, trained with the ELBO (Dinh et al. 2017)."""

import pytest
import torch
from torch import nn

from hf_vae import DiagonalGaussian, LatentDistribution, Prior, register_prior
from hf_vae.evaluation import LikelihoodEvaluator
from hf_vae.evaluation.distributed import example_noise

from .contract import SENTENCES, check_evaluates, check_generates, check_saves_and_loads, check_trains, processor, vae


class Coupling(nn.Module):
    """Half of z is scaled and shifted by what the other half says."""

    def __init__(self, latent_size: int):
        super().__init__()
        self.half = latent_size // 2
        self.network = nn.Sequential(nn.Linear(self.half, 8), nn.Tanh(), nn.Linear(8, 2 * (latent_size - self.half)))

    def forward(self, latents: torch.Tensor, inverse: bool) -> tuple[torch.Tensor, torch.Tensor]:
        kept, changed = latents.split([self.half, latents.shape[-1] - self.half], dim=-1)
        scale, shift = self.network(kept).chunk(2, dim=-1)
        scale = scale.tanh()
        changed = (changed - shift) * torch.exp(-scale) if inverse else changed * torch.exp(scale) + shift
        return torch.cat([kept, changed], dim=-1), scale.sum(-1)


class FlowDistribution(LatentDistribution):
    """z = f(u), u from `base`; the network stays the same, whatever rows are selected."""

    parameter_names = ("mean", "logvar")

    def __init__(self, layers: nn.ModuleList, mean: torch.Tensor, logvar: torch.Tensor):
        self.layers, self.mean, self.logvar = layers, mean, logvar

    def with_parameters(self, parameters):
        return FlowDistribution(self.layers, **parameters)

    @property
    def noise_size(self) -> int:
        return self.mean.shape[-1]

    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        latents = DiagonalGaussian(self.mean, self.logvar).from_noise(noise, temperature)
        for layer in self.layers:
            latents, _ = layer(latents, inverse=False)
            latents = latents.flip(-1)
        return latents

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        latents, log_det = latents.float(), 0.0
        for layer in reversed(self.layers):
            latents, scale = layer(latents.flip(-1), inverse=True)
            log_det = log_det + scale
        return DiagonalGaussian(self.mean, self.logvar).log_prob(latents) - log_det

    def mode(self) -> torch.Tensor:
        return self.from_noise(torch.zeros_like(self.mean))


class FlowPrior(Prior):
    def __init__(self, config, source_size, dtype):
        super().__init__(config, source_size, dtype)
        self.layers = nn.ModuleList(Coupling(config.latent_size) for _ in range(4))

    def forward(self, source, batch_size, device):
        zeros = torch.zeros(batch_size, self.latent_size, device=device)
        return FlowDistribution(self.layers, zeros, zeros)


@pytest.fixture(autouse=True)
def registered():
    register_prior("coupling_flow", FlowPrior)


def test_its_density_is_that_of_its_draws():
    torch.manual_seed(0)
    prior = FlowPrior(vae(latent_size=2).config, 0, torch.float32)(None, 1, torch.device("cpu"))
    grid = torch.linspace(-12, 12, 601)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        density = prior.log_prob(points.unsqueeze(0)).exp()
        assert density.sum() * (grid[1] - grid[0]) ** 2 == pytest.approx(1.0, abs=1e-3)
        draws = prior.from_noise(torch.randn(1, 50_000, 2, generator=torch.Generator().manual_seed(1)))
    expected = (density.squeeze(0).unsqueeze(-1) * points).sum(0) * (grid[1] - grid[0]) ** 2
    assert torch.allclose(draws.mean((0, 1)), expected, atol=0.03)


def test_it_trains_saves_generates_and_is_evaluated(tmp_path):
    model = vae(prior_type="coupling_flow")
    before = [parameter.clone() for parameter in model.prior_network.parameters()]
    check_trains(model, tmp_path)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.prior_network.parameters()))
    check_saves_and_loads(model, tmp_path)
    check_generates(model)
    check_evaluates(model)


def test_the_bound_is_taken_under_the_prior_that_is_given():
    """By the same draws of z, whose weights differ by the two densities alone."""
    model = vae(prior_type="coupling_flow").eval()
    for parameter in model.prior_network.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    evaluator = LikelihoodEvaluator(model, processor(), SENTENCES, SENTENCES)
    posterior, prior = evaluator.posterior(), evaluator.prior()
    standard = DiagonalGaussian.standard(len(posterior), 4)
    own, other = (evaluator.importance_weighted(posterior, each, 1) for each in (prior, standard))
    latents = posterior.from_noise(example_noise(len(posterior), 1, 4, seed=0))
    difference = (standard.log_prob(latents) - prior.log_prob(latents)).squeeze(1)
    assert difference.abs().mean() > 0.1
    assert torch.allclose(own.nll - other.nll, difference, atol=1e-3)
