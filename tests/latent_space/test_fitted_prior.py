"""Priors that are fitted to codes, against scikit-learn and their own moments."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.mixture import GaussianMixture
from torch import nn
from transformers import BertConfig, PreTrainedModel

from helpers import TEXTS
from hf_vae import (
    DiagonalGaussian,
)
from hf_vae.latent_space import (
    encode_texts,
    fit_prior,
    prior_log_densities,
)
from hf_vae.prior import GaussianMixturePrior


@pytest.fixture
def mixture():
    weights = torch.tensor([0.2, 0.5, 0.3])
    means = torch.tensor([[-3.0, 0.0], [1.0, 2.0], [4.0, -1.0]])
    return GaussianMixturePrior.from_components(weights, means, torch.tensor([[-1.0, 0.0], [0.5, -2.0], [0.0, 1.0]]))


def test_a_fitted_priors_density_is_scikit_learns(vae, vae_processor):
    points = np.random.default_rng(0).normal(size=(60, 4)) * [1, 3, 0.2, 1] + np.repeat([[0], [5]], 30, axis=0)
    prior = fit_prior(vae, vae_processor, torch.from_numpy(points), num_components=3, seed=1)
    reference = GaussianMixture(3, covariance_type="diag", random_state=1).fit(points.astype(np.float32).astype(np.float64))
    elsewhere = np.random.default_rng(1).normal(size=(20, 4)) * 4
    expected = torch.from_numpy(reference.score_samples(elsewhere)).float()
    torch.testing.assert_close(prior.log_prob(torch.from_numpy(elsewhere)), expected, rtol=1e-4, atol=1e-3)
    figures = prior_log_densities(vae, vae_processor, prior, torch.from_numpy(points))
    assert figures["fitted"] == pytest.approx(reference.score(points), abs=1e-3)
    standard = -0.5 * (points**2).sum(1).mean() - 2 * math.log(2 * math.pi)
    assert figures["standard"] == pytest.approx(standard, abs=1e-3)
    assert figures["fitted"] > figures["standard"]


def test_one_component_is_the_means_own_gaussian(vae, vae_processor):
    means = encode_texts(vae, vae_processor, TEXTS).mean
    prior = fit_prior(vae, vae_processor, TEXTS, num_components=1)
    torch.testing.assert_close(prior.means[0], means.mean(0))
    torch.testing.assert_close(prior.logvars[0].exp(), means.var(0, correction=0), rtol=1e-3, atol=1e-5)
    held_out = prior_log_densities(vae, vae_processor, prior, TEXTS[:2])
    gaussian = DiagonalGaussian(prior.means, prior.logvars).log_prob(means[:2]).mean()
    assert held_out["fitted"] == pytest.approx(gaussian.item(), abs=1e-4)


def test_a_mixtures_draws_have_its_moments(mixture):
    draws = mixture.sample(40_000, torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, 2) and draws.dtype == torch.float32
    mean = (mixture.weights.unsqueeze(-1) * mixture.means).sum(0)
    second = (mixture.weights.unsqueeze(-1) * (mixture.logvars.exp() + mixture.means.square())).sum(0)
    torch.testing.assert_close(draws.mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(draws.var(0), second - mean.square(), rtol=0.03, atol=0)
    again = mixture.sample(40_000, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)
    # Temperature 0 leaves the components' means, in the proportion of the weights.
    frozen = mixture.sample(20_000, torch.Generator().manual_seed(1), temperature=0.0)
    shares = (torch.cdist(frozen, mixture.means) < 1e-5).float().mean(0)
    torch.testing.assert_close(shares, mixture.weights, atol=0.02, rtol=0)


def test_a_mixtures_density_integrates_to_one(mixture):
    x, y = torch.meshgrid(torch.linspace(-12, 14, 521), torch.linspace(-14, 14, 561), indexing="ij")
    density = mixture.log_prob(torch.stack([x.flatten(), y.flatten()], dim=-1)).double().exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1.0, abs=1e-4)
    halved = GaussianMixturePrior(3, 2)
    halved.load_state_dict(mixture.state_dict())
    # Cast weights do not add up to 1 any more; the density still does.
    density = halved.bfloat16().log_prob(torch.stack([x.flatten(), y.flatten()], dim=-1)).double().exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1.0, abs=1e-3)
    assert halved.sample(2).dtype == torch.float32


def test_a_new_mixture_is_the_standard_normal_and_survives_the_meta_device(mixture):
    latents = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    standard = DiagonalGaussian.standard(5, 2).log_prob(latents)
    torch.testing.assert_close(GaussianMixturePrior(3, 2).log_prob(latents), standard)
    with torch.device("meta"):
        empty = GaussianMixturePrior(3, 2)
    assert empty.means.is_meta and not list(empty.parameters())
    # Materialised memory holds garbage until someone fills it.
    empty.to_empty(device="cpu")
    empty.reset_parameters()
    torch.testing.assert_close(empty.log_prob(latents), standard)
    empty.load_state_dict(mixture.state_dict(), strict=True)
    torch.testing.assert_close(empty.log_prob(latents), mixture.log_prob(latents))


class Holder(PreTrainedModel):
    """A model that holds a fitted prior, as a VAE may."""

    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(2, 2)
        self.fitted_prior = GaussianMixturePrior(3, 2)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, GaussianMixturePrior):
            module.reset_parameters()


def test_a_mixture_is_saved_and_loaded_with_the_model_that_holds_it(mixture, tmp_path):
    latents = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    holder = Holder(BertConfig())
    holder.save_pretrained(tmp_path / "fresh")
    holder.fitted_prior.load_state_dict(mixture.state_dict())
    holder.save_pretrained(tmp_path / "fitted")
    loaded = Holder.from_pretrained(tmp_path / "fitted").fitted_prior
    torch.testing.assert_close(loaded.log_prob(latents), mixture.log_prob(latents))
    # A checkpoint from before there was one.
    save_file(holder.linear.state_dict(prefix="linear."), tmp_path / "fresh" / "model.safetensors", metadata={"format": "pt"})
    without = Holder.from_pretrained(tmp_path / "fresh").fitted_prior
    torch.testing.assert_close(without.log_prob(latents), DiagonalGaussian.standard(5, 2).log_prob(latents))


def test_bad_priors_are_named(vae, vae_processor):
    points = torch.zeros(3, 4)
    for num_components in (0, 4):
        with pytest.raises(ValueError, match=f"`num_components` is {num_components}; it must be from 1 to the number of texts, 3"):
            fit_prior(vae, vae_processor, points, num_components)
    # One text, or one mean, however many letters or dimensions it has.
    for alone in ("one text", ["one text"], torch.zeros(4), torch.zeros(1, 4)):
        for num_components in (1, 2):
            with pytest.raises(ValueError, match="`texts` holds 1; a mixture is fitted to two or more texts"):
                fit_prior(vae, vae_processor, alone, num_components)
    with pytest.raises(ValueError, match="`texts` has latents that are not finite"):
        fit_prior(vae, vae_processor, torch.full((3, 4), float("inf")), 1)
    with torch.no_grad():
        for parameter in vae.posterior_head.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="`texts` has latents that are not finite"):
        fit_prior(vae, vae_processor, TEXTS, 1)
    prior = GaussianMixturePrior(2, 4)
    for call, message in (
        (lambda: GaussianMixturePrior(0, 4), "`num_components` is 0"),
        (lambda: GaussianMixturePrior(1, 0), "`latent_size` is 0"),
        (lambda: prior.sample(0), "`num` is 0"),
        (lambda: prior.sample(1, temperature=-0.5), "`temperature` is -0.5"),
        (lambda: prior.log_prob(torch.zeros(2, 3)), r"expected \(rows, 4\)"),
        (lambda: GaussianMixturePrior.from_components(torch.ones(2), torch.zeros(3, 4), torch.zeros(3, 4)), "expected"),
        (lambda: GaussianMixturePrior.from_components(-torch.ones(3), torch.zeros(3, 4), torch.zeros(3, 4)), "negative"),
        (lambda: GaussianMixturePrior.from_components(torch.ones(1), points[:1] / 0, points[:1]), "`means` holds values"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
