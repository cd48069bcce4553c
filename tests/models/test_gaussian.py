"""The closed forms against torch.distributions, and what the shapers do to value and gradient."""

import pytest
import torch
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as kl_of_torch

from hf_vae import DiagonalGaussian, GaussianMixturePrior
from hf_vae.gaussian import LOGVAR_RANGE
from hf_vae.objective import free_bits_per_dimension, free_bits_total, kl_divergence
from hf_vae.posterior import FixedScaleBatchNorm


@pytest.fixture
def gaussians():
    torch.manual_seed(0)
    return DiagonalGaussian(torch.randn(3, 5), torch.randn(3, 5)), DiagonalGaussian(torch.randn(3, 5), torch.randn(3, 5))


def as_torch(gaussian):
    return Normal(gaussian.mean, gaussian.std)


def test_kl_is_the_closed_form(gaussians):
    q, p = gaussians
    torch.testing.assert_close(q.kl(p), kl_of_torch(as_torch(q), as_torch(p)))


def test_kl_to_the_standard_prior_vanishes_only_there():
    prior = DiagonalGaussian.standard(2, 3)
    assert prior.kl(prior).abs().max() == 0
    assert DiagonalGaussian(prior.mean + 1, prior.logvar).kl(prior).sum(-1).tolist() == [1.5, 1.5]


def test_log_prob_is_the_density_and_broadcasts_over_samples(gaussians):
    q, _ = gaussians
    latents = torch.randn(3, 7, 5)
    expected = Independent(as_torch(q), 1).log_prob(latents.transpose(0, 1)).T
    torch.testing.assert_close(q.log_prob(latents), expected)
    torch.testing.assert_close(q.log_prob(latents[:, 0]), expected[:, 0])


def test_noise_becomes_draws_of_each_row(gaussians):
    q, _ = gaussians
    noise = torch.randn(3, 7, 5)
    torch.testing.assert_close(q.from_noise(noise[:, 0]), q.mean + q.std * noise[:, 0])
    draws = q.from_noise(noise, temperature=0.5)
    for sample in range(7):
        torch.testing.assert_close(draws[:, sample], q.mean + 0.5 * q.std * noise[:, sample])
    assert torch.equal(q.from_noise(noise, temperature=0.0), q.mode().unsqueeze(1).expand_as(noise))


def test_samples_have_the_stated_moments(gaussians):
    q, _ = gaussians
    many = q.repeat(20_000)
    for temperature in (1.0, 0.5):
        draws = many.sample(torch.Generator().manual_seed(1), temperature).view(3, 20_000, 5)
        # Standard error of a mean is σ/√20000 < 0.03 here; five of them.
        assert (draws.mean(1) - q.mean).abs().max() < 0.15
        torch.testing.assert_close(draws.std(1), temperature * q.std, rtol=0.05, atol=0)


def test_temperature_zero_is_the_mode_and_seeds_repeat(gaussians):
    q, _ = gaussians
    assert torch.equal(q.sample(temperature=0.0), q.mode())
    first, second = (q.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_everything_is_float32_and_logvar_stays_in_range():
    q = DiagonalGaussian(torch.zeros(1, 2, dtype=torch.bfloat16), torch.tensor([[1e4, -1e4]], dtype=torch.bfloat16))
    assert q.kl(DiagonalGaussian.standard(1, 2)).dtype == torch.float32
    assert q.logvar.tolist() == [[LOGVAR_RANGE[1], LOGVAR_RANGE[0]]]
    assert q.kl(DiagonalGaussian.standard(1, 2)).isfinite().all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"`mean` \(1, 2\) and `logvar` \(1, 3\)"):
        DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 3))


@pytest.mark.parametrize(
    "shaper, expected, gradient",
    [
        # A sentence of 0.5 + 0.1 nats is below two free ones in total; one of 3 + 0 is above.
        (lambda kl: free_bits_total(kl, 2.0), [2.0, 3.0], [[0, 0], [1, 1]]),
        # Each dimension is granted 0.2.
        (lambda kl: free_bits_per_dimension(kl, 0.2), [0.7, 3.2], [[1, 0], [1, 0]]),
    ],
)
def test_free_bits_are_a_floor_without_gradient(shaper, expected, gradient):
    kl = torch.tensor([[0.5, 0.1], [3.0, 0.0]], requires_grad=True)
    shaped = shaper(kl)
    torch.testing.assert_close(shaped, torch.tensor(expected))
    shaped.sum().backward()
    assert kl.grad.tolist() == gradient


@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_batch_norm_holds_its_bound_however_small_the_encoder_makes_its_means(spread):
    norm = FixedScaleBatchNorm(4, gamma=0.6, dtype=torch.float32).train()
    means = norm(0.3 + spread * torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(means.std(0, unbiased=False), torch.full((4,), 0.6), atol=1e-3, rtol=0)
    assert (means.square().sum(-1) / 2).mean() >= 4 * 0.6**2 / 2 - 1e-2


def test_without_a_closed_form_the_kl_is_the_mean_log_ratio_of_the_samples(gaussians):
    q, _ = gaussians
    mixture = GaussianMixturePrior.from_components(torch.tensor([0.3, 0.7]), torch.randn(2, 5), torch.zeros(2, 5))(batch_size=3)
    assert q.kl(mixture) is None
    latents = q.from_noise(torch.randn(3, 7, 5))
    ratio = Independent(as_torch(q), 1).log_prob(latents.transpose(0, 1)).T - mixture.log_prob(latents)
    torch.testing.assert_close(kl_divergence(q, mixture, latents), ratio.mean(1, keepdim=True))
    torch.testing.assert_close(kl_divergence(q, mixture, latents[:, 0]), ratio[:, :1])
