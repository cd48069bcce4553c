"""The bounds under any prior, and what is measured of any family of latents."""

import math

import pytest
import torch

from helpers import TARGETS, TEXTS, make_model, on_a_line, resized
from hf_vae import DiagonalGaussian, LatentDistribution, ParaphraseVAEModel
from hf_vae.cli.plots import plot_latents
from hf_vae.evaluation import (
    LikelihoodEvaluator,
    aggregate_log_prob,
    evaluate_vae,
    information_metrics,
    likelihood_metrics,
    refine,
)
from hf_vae.latent_space import GaussianMixturePrior, fit_prior


def mixture(dimensions):
    means = torch.tensor([[-1.5, 1.0], [1.2, -0.5], [0.0, 0.4]])[:, :dimensions]
    logvars = torch.tensor([[-1.0, -0.5], [-0.3, 0.1], [0.4, -1.2]])[:, :dimensions]
    return GaussianMixturePrior.from_components(torch.tensor([0.5, 0.3, 0.2]), means, logvars)


def evaluator_with(latent_size, vae_processor):
    torch.manual_seed(3)
    model = resized(make_model("vae", latent_size=latent_size), vae_processor)
    with torch.no_grad():
        model.decoder.latent_injection.embedding.projection.weight *= 10
        # A q that covers the priors: its importance weights have a small spread.
        model.posterior_head.linear.weight *= 0.2
    return LikelihoodEvaluator(model, vae_processor, TARGETS, TARGETS, batch_size=3, samples_per_pass=500)


def grid(dimensions):
    """Points, and the log of the volume that each stands for."""
    line = torch.linspace(-7, 7, 401 if dimensions == 1 else 71)
    points = torch.cartesian_prod(*[line] * dimensions).view(-1, dimensions)
    return points, dimensions * math.log(14 / (len(line) - 1))


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_bound_under_a_fitted_prior_is_the_integral_under_it(dimensions, vae_processor):
    evaluator = evaluator_with(dimensions, vae_processor)
    evaluator.model.set_fitted_prior(mixture(dimensions))
    points, log_volume = grid(dimensions)
    nll = evaluator.nll(points.expand(len(evaluator), -1, -1))
    exact = {}
    for name, log_prior in {
        "prior": DiagonalGaussian.standard(1, dimensions).log_prob(points),
        "fitted_prior": mixture(dimensions).log_prob(points),
    }.items():
        exact[name] = -(torch.logsumexp(log_prior - nll, dim=1) + log_volume).mean().item()
        metrics = likelihood_metrics(evaluator, num_samples=2_000, prior=evaluator.prior(name))
        assert metrics["iw_nll"] == pytest.approx(exact[name], abs=4 * metrics["iw_nll_error"] + 1e-3)
        assert metrics["iw_nll_error"] < 0.05
        # The KL in closed form, or by the samples; of both the ELBO is the integral under q.
        density = evaluator.posterior().log_prob(points.expand(len(evaluator), -1, -1))
        kl = ((density + log_volume).exp() * (density - log_prior)).sum(1).mean().item()
        assert metrics["kl"] == pytest.approx(kl, abs=0.05)
        assert metrics["elbo"] == pytest.approx(-(metrics["reconstruction"] + metrics["kl"]))
    assert abs(exact["prior"] - exact["fitted_prior"]) > 0.1


def test_samples_from_a_fitted_prior_give_the_integral_too(processor):
    evaluator = on_a_line(ParaphraseVAEModel, processor, seed=0)
    evaluator.model.set_fitted_prior(mixture(1))
    points, log_volume = grid(1)
    nll = evaluator.nll(points.expand(len(evaluator), -1, -1))
    exact = -(torch.logsumexp(mixture(1).log_prob(points) - nll, dim=1) + log_volume).mean().item()
    metrics = likelihood_metrics(evaluator, num_samples=2_000, prior=evaluator.prior("fitted_prior"))
    assert metrics["mc_nll"] == pytest.approx(exact, abs=4 * metrics["mc_nll_error"] + 1e-3)


def test_a_mixture_of_one_component_is_that_gaussian(vae_processor):
    evaluator = evaluator_with(2, vae_processor)
    mean, logvar = torch.tensor([[0.3, -0.2]]), torch.tensor([[0.5, -0.4]])
    single = evaluator.prior(GaussianMixturePrior.from_components(torch.ones(1), mean, logvar))
    gaussian = DiagonalGaussian(mean.expand(len(evaluator), -1), logvar.expand(len(evaluator), -1))
    found, expected = (likelihood_metrics(evaluator, num_samples=1_000, prior=prior) for prior in (single, gaussian))
    assert found["iw_nll"] == pytest.approx(expected["iw_nll"], abs=1e-4)
    assert found["nll_zero"] == expected["nll_zero"] and found["kl"] == pytest.approx(expected["kl"], abs=0.1)
    found, expected = (information_metrics(evaluator.posterior(), prior, num_samples=1_000) for prior in (single, gaussian))
    assert found.keys() == expected.keys()
    # Without a closed form the KL is that of the draws, and both estimates are one.
    assert found["marginal_kl"] == pytest.approx(expected["marginal_kl"], abs=1e-4)
    assert found["kl_minus_mutual_information"] == pytest.approx(found["marginal_kl"], abs=1e-9)
    assert found["kl_minus_mutual_information"] == pytest.approx(expected["kl_minus_mutual_information"], abs=0.05)
    before, after = (refine(evaluator, num_steps=3, num_held_samples=200, prior=prior) for prior in (single, gaussian))
    assert before.metrics()["refinement_elbo_after"] == pytest.approx(after.metrics()["refinement_elbo_after"], abs=0.1)


def test_a_prior_for_all_takes_the_memory_of_one_row(vae_processor):
    evaluator = evaluator_with(2, vae_processor)
    for prior in (evaluator.prior(mixture(2)), evaluator.prior(fit_prior(evaluator.model, vae_processor, TEXTS, 2))):
        assert len(prior) == len(evaluator)
        assert prior.means.stride(0) == 0


def test_bad_priors_are_named(vae_processor):
    evaluator = evaluator_with(2, vae_processor)
    with pytest.raises(ValueError, match="this model has none: fit one"):
        evaluator.prior("fitted_prior")
    with pytest.raises(ValueError, match="`latent_source` is 'posterior'; choose one of 'prior', 'fitted_prior'"):
        evaluator.prior("posterior")
    with pytest.raises(ValueError, match="over 1 dimensions; the model's z has 2"):
        evaluator.prior(mixture(1))


class Cauchy(LatentDistribution):
    """A family that knows nothing in closed form, and no mean; three numbers of noise make one draw in two dimensions."""

    parameter_names = ("location",)

    def __init__(self, location):
        self.location = location

    @property
    def noise_size(self):
        return self.location.shape[-1] + 1

    def from_noise(self, noise, temperature=1.0):
        location = self.location.unsqueeze(1) if noise.ndim == 3 else self.location
        return location + temperature * torch.tan(math.pi * (torch.special.ndtr(noise[..., :-1]) - 0.5)) / 4

    def log_prob(self, latents):
        location = self.location.unsqueeze(1) if latents.ndim == 3 else self.location
        return (math.log(4 / math.pi) - torch.log1p((4 * (latents - location)).square())).sum(-1)

    def mode(self):
        return self.location


def test_an_aggregate_of_any_family_is_the_plain_mean(monkeypatch):
    monkeypatch.setattr("hf_vae.evaluation.information._EXAMPLES_AT_ONCE", 7)
    posterior, latents = Cauchy(torch.randn(10, 2)), torch.randn(9, 2)
    plain = torch.stack([posterior.log_prob(z.expand(10, 2)).double() for z in latents]).logsumexp(1) - math.log(10)
    torch.testing.assert_close(aggregate_log_prob(latents, posterior, rows_per_pass=4), plain, atol=1e-6, rtol=1e-6)


def test_information_of_a_family_without_closed_forms():
    """Examples that z tells apart altogether, and none that it tells apart."""
    far = Cauchy(1e4 * torch.arange(8.0).unsqueeze(-1).expand(8, 2))
    prior = Cauchy(torch.zeros(8, 2))
    apart = information_metrics(far, prior)
    assert apart["mutual_information"] == pytest.approx(math.log(8), abs=0.01)
    assert apart["active_units_0.01"] == 2 and apart["latent_size"] == 2
    same = information_metrics(Cauchy(torch.zeros(8, 2)), prior)
    assert same["mutual_information"] == pytest.approx(0, abs=1e-5) and same["marginal_kl"] == pytest.approx(0, abs=1e-5)
    assert information_metrics(far, Cauchy(torch.randn(8, 2)))["prior_depends_on_source"]


def test_a_model_with_such_a_posterior_is_measured(vae_processor, monkeypatch, tmp_path):
    evaluator = evaluator_with(2, vae_processor)
    head = evaluator.model.posterior_head
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda pooled: Cauchy(forward(pooled).mean))
    metrics = evaluate_vae(evaluator, importance_samples=2_000)
    points, log_volume = grid(2)
    nll = evaluator.nll(points.expand(len(evaluator), -1, -1))
    log_prior = DiagonalGaussian.standard(1, 2).log_prob(points)
    exact = -(torch.logsumexp(log_prior - nll, dim=1) + log_volume).mean().item()
    assert metrics["iw_nll"] == pytest.approx(exact, abs=4 * metrics["iw_nll_error"] + 1e-3)
    assert metrics["collapse_report"]["verdict"]
    plot_latents(evaluator.posterior(), evaluator.prior(), tmp_path / "latent.png")
    assert (tmp_path / "latent.png").stat().st_size > 0
    with pytest.raises(ValueError, match="of a diagonal Gaussian, and q is a Cauchy: leave it out"):
        refine(evaluator)
