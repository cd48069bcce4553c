"""Mutual information, marginal KL and active units, against closed forms and quadrature."""

import math
import subprocess
import sys

import pytest
import torch

from hf_vae import DiagonalGaussian
from hf_vae.evaluation import (
    active_units,
    aggregate_log_prob,
    information_metrics,
)


def mixture(latent_size: int = 3, count: int = 40, logvar: float = -1.0) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(0)
    return DiagonalGaussian(
        2 * torch.randn(count, latent_size, generator=generator),
        logvar + 0.3 * torch.randn(count, latent_size, generator=generator),
    )


def test_mutual_information_of_a_linear_gaussian_channel():
    """x ~ N(0, I), z = a x + s e: I(x; z) = 1/2 Σ ln(1 + a²/s²), and q(z) = N(0, a² + s²)."""
    x = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0))
    gain, noise = torch.tensor([1.5, 0.5]), torch.tensor([0.6, 1.0])
    figures = information_metrics(DiagonalGaussian(gain * x, (2 * noise.log()).expand_as(x)), num_samples=2)
    exact = 0.5 * torch.log1p(gain.square() / noise.square()).sum().item()
    assert figures["mutual_information"] == pytest.approx(exact, abs=0.05)
    variance = gain.square() + noise.square()
    divergence = 0.5 * (variance - 1 - variance.log()).sum().item()
    assert figures["marginal_kl"] == pytest.approx(divergence, abs=0.1)


def test_marginal_kl_and_information_of_a_mixture_by_quadrature():
    posterior = DiagonalGaussian(torch.tensor([[-1.5], [0.2], [2.0]]), torch.tensor([[-1.0], [0.3], [-2.0]]))
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64).unsqueeze(-1)
    width = 24 / 20_000
    # Densities written out, so that nothing of what is tested is in them.
    variance = posterior.logvar.double().exp().T
    each = torch.exp(-0.5 * (grid - posterior.mean.double().T) ** 2 / variance) / torch.sqrt(2 * math.pi * variance)
    whole, prior = each.mean(1), torch.exp(-0.5 * grid.squeeze(-1) ** 2) / math.sqrt(2 * math.pi)
    divergence = (whole * torch.log(whole / prior)).sum().item() * width
    information = torch.xlogy(each, each / whole.unsqueeze(-1)).sum(0).mean().item() * width
    figures = information_metrics(posterior, num_samples=20_000)
    assert figures["marginal_kl"] == pytest.approx(divergence, abs=0.02)
    assert figures["mutual_information"] == pytest.approx(information, abs=0.02)
    assert figures["kl_minus_mutual_information"] == pytest.approx(divergence, abs=0.02)
    torch.testing.assert_close(
        aggregate_log_prob(grid[::50].float(), posterior, rows_per_pass=37), whole[::50].log(), atol=1e-4, rtol=1e-6
    )


def test_the_aggregate_in_blocks_is_the_plain_formula():
    posterior = mixture(latent_size=5, count=2_500)
    latents = mixture(latent_size=5, count=700).sample()
    mean, logvar = posterior.mean.double(), posterior.logvar.double()
    scaled = (latents.double().unsqueeze(1) - mean).square() * torch.exp(-logvar)
    plain = torch.logsumexp(-0.5 * (scaled + logvar + math.log(2 * math.pi)).sum(-1), dim=1) - math.log(2_500)
    torch.testing.assert_close(aggregate_log_prob(latents, posterior), plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aggregate_log_prob(latents, posterior, rows_per_pass=699), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_information_of_many_examples_takes_flat_memory():
    code = """
import resource, torch
from hf_vae import DiagonalGaussian
from hf_vae.evaluation import information_metrics
torch.set_num_threads(1)
posterior = DiagonalGaussian(torch.randn(20_000, 32), torch.zeros(20_000, 32))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
information_metrics(posterior)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # 20,000 numbers of 8 bytes for each of 1,024 z alone are 156 MiB.
    assert float(done.stdout.split()[-1]) < 130


@pytest.mark.parametrize("logvar", [-18.0, -2.0, 1.0])
def test_information_reaches_its_ceiling_if_nothing_overlaps(logvar):
    posterior = mixture(logvar=logvar)
    figures = information_metrics(posterior, num_samples=3)
    assert figures["num_examples"] == 40 and figures["mutual_information_ceiling"] == math.log(40)
    assert figures["mutual_information"] <= math.log(40) + 1e-6
    if logvar == -18.0:
        assert figures["mutual_information"] == pytest.approx(math.log(40), abs=1e-4)
    else:
        assert figures["mutual_information"] < math.log(40) - 1e-3


def test_the_kl_is_information_and_marginal_kl():
    posterior = mixture()
    figures = information_metrics(posterior, num_samples=500)
    kl = posterior.kl(DiagonalGaussian.standard(40, 3)).sum(-1).mean().item()
    assert figures["mutual_information"] + figures["marginal_kl"] == pytest.approx(kl, abs=0.05)
    assert figures["mutual_information"] + figures["kl_minus_mutual_information"] == pytest.approx(kl, abs=1e-5)
    # One q for all: z says nothing, and the KL is all distance from the prior.
    alike = information_metrics(DiagonalGaussian(torch.full((40, 3), 2.0), torch.zeros(40, 3)))
    assert alike["mutual_information"] == pytest.approx(0, abs=1e-6)
    assert alike["kl_minus_mutual_information"] == pytest.approx(6.0) and alike["active_units_0.01"] == 0


def test_active_units_by_hand():
    # Variances 2, 0.0098 and 0.0128: the last two stand on the two sides of the threshold.
    means = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.14, 0.16]])
    assert active_units(means) == 2 and active_units(means, threshold=0.2) == 1
    figures = information_metrics(DiagonalGaussian(means, torch.zeros(2, 3)))
    assert figures["active_units_0.01"] == 2 and figures["active_units_0.01_fraction"] == pytest.approx(2 / 3)
    assert information_metrics(DiagonalGaussian(means[:, :1], torch.zeros(2, 1)))["latent_size"] == 1
    with pytest.raises(ValueError, match="1 example"):
        active_units(means[:1])
    with pytest.raises(ValueError, match="`num_samples` is 0"):
        information_metrics(mixture(), num_samples=0)
    with pytest.raises(ValueError, match=r"`prior` has the shape \(3, 3\) and `posterior` \(2, 3\)"):
        information_metrics(DiagonalGaussian(means, torch.zeros(2, 3)), DiagonalGaussian.standard(3, 3))
    for_all, for_each = (information_metrics(DiagonalGaussian(means, means), DiagonalGaussian.standard(n, 3)) for n in (1, 2))
    assert for_all == pytest.approx(for_each)


def test_there_is_no_marginal_kl_to_a_prior_that_depends_on_the_example():
    q = mixture()
    one = DiagonalGaussian.standard(len(q.mean), q.mean.shape[1])
    assert "marginal_kl" in information_metrics(q, one) and "prior_depends_on_source" not in information_metrics(q, one)
    figures = information_metrics(q, DiagonalGaussian(q.mean + 1, q.logvar))
    assert figures["prior_depends_on_source"] and not {"marginal_kl", "kl_minus_mutual_information"} & set(figures)


def test_equal_examples_lower_the_ceiling():
    q = DiagonalGaussian(torch.arange(5.0).repeat(4).unsqueeze(1) * 100, torch.zeros(20, 1))
    figures = information_metrics(q, examples=[0, 1, 2, 3, 4] * 4)
    assert figures["mutual_information_ceiling"] == pytest.approx(math.log(5))
    assert figures["mutual_information"] == pytest.approx(math.log(5), abs=1e-3)
    uneven = information_metrics(q, examples=[0] * 15 + [1] * 5)["mutual_information_ceiling"]
    with pytest.raises(ValueError, match="`examples` has 1 and `posterior` 20 rows"):
        information_metrics(q, examples=[0])
    assert uneven == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
