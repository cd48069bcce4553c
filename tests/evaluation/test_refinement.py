"""q refined example by example: closer to the evidence, and never past it."""

import math

import pytest
import torch
from torch.distributions import Normal

from helpers import GRID, TARGETS, TEXTS, exact_nll, nll_on_grid
from hf_vae import DiagonalGaussian
from hf_vae.evaluation import (
    LikelihoodEvaluator,
    refine,
)


def exact_elbo(nll, q):
    """E_q log p(y|x,z) - KL(q ‖ N(0, 1)) of each row of `nll` on the grid under each of its q: `(examples, qs)`."""
    weights = Normal(q.mean.unsqueeze(-1), q.std.unsqueeze(-1)).log_prob(GRID).exp() * 16 / 800
    kl = 0.5 * (q.mean**2 + q.logvar.exp() - q.logvar - 1)
    return -torch.einsum("nqg,ng->nq", weights, nll) - kl


def test_refinement_climbs_as_the_exact_elbo_does_and_stays_below_the_evidence(evaluated):
    before = evaluated.posterior()
    # Where q starts is bad by more than a nat.
    start = DiagonalGaussian(before.mean + 1.5, before.logvar - 1.0)
    nll, evidence = nll_on_grid(evaluated), -exact_nll(evaluated)
    # The same climb by quadrature, without any noise, to the end.
    mean, logvar = (value.clone().requires_grad_(True) for value in (start.mean, start.logvar))
    optimizer = torch.optim.Adam([mean, logvar], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (-exact_elbo(nll, DiagonalGaussian(mean, logvar)).sum()).backward()
        optimizer.step()
    best = exact_elbo(nll, DiagonalGaussian(mean.detach(), logvar.detach())).squeeze(-1)
    refinement = refine(evaluated, num_steps=80, learning_rate=0.1, num_samples=32, num_held_samples=400, posterior=start)
    after = exact_elbo(nll, refinement.posterior).squeeze(-1)
    assert (best <= evidence + 1e-3).all() and (after <= evidence + 1e-3).all()
    torch.testing.assert_close(after, best, atol=0.1, rtol=0)
    # What is reported is that ELBO, up to the error of 400 samples.
    torch.testing.assert_close(refinement.elbo_after, after, atol=0.15, rtol=0)
    figures = refinement.metrics()
    assert figures["refinement_gap"] == pytest.approx((best - exact_elbo(nll, start).squeeze(-1)).mean().item(), abs=0.2)
    assert figures["refinement_gap"] > 0.3 and figures["refinement_elbo_after"] <= evidence.mean().item()


def test_refinement_never_loses_and_leaves_the_model_alone(evaluated):
    weights = {name: parameter.clone() for name, parameter in evaluated.model.named_parameters()}
    # Steps far too large: every example keeps what it had.
    refinement = refine(evaluated, num_steps=3, learning_rate=50.0)
    assert torch.equal(refinement.elbo_after, refinement.elbo_before)
    torch.testing.assert_close(refinement.posterior.mean, evaluated.posterior().mean)
    for name, parameter in evaluated.model.named_parameters():
        assert torch.equal(parameter, weights[name]) and parameter.grad is None
    with pytest.raises(ValueError, match="`num_steps` is 0"):
        refine(evaluated, num_steps=0)
    with pytest.raises(ValueError, match="`learning_rate` is 0"):
        refine(evaluated, learning_rate=0)


def test_refinement_does_not_depend_on_batches(evaluated, processor):
    again = LikelihoodEvaluator(evaluated.model, processor, TEXTS, TARGETS, batch_size=5, samples_per_pass=3)
    first, second = (refine(each, num_steps=5, seed=3) for each in (evaluated, again))
    assert first.metrics()["refinement_gap"] > 0
    torch.testing.assert_close(first.posterior.mean, second.posterior.mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(first.elbo_after, second.elbo_after, atol=1e-4, rtol=0)


def test_refinement_keeps_q_where_a_step_leads_to_no_number(evaluated, monkeypatch):
    def broken(batch, start, *rest):
        return DiagonalGaussian(torch.full_like(start.mean, math.nan), start.logvar)

    monkeypatch.setattr("hf_vae.evaluation.refinement._ascend", broken)
    refined = refine(evaluated, num_steps=1, num_held_samples=2)
    assert refined.elbo_after.isfinite().all() and torch.equal(refined.elbo_after, refined.elbo_before)
    torch.testing.assert_close(refined.posterior.mean, evaluated.posterior().mean)
