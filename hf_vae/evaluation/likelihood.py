"""Bounds on log p(y|x) in nats per sentence, and what becomes of them when z is exchanged."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..checks import check_count
from ..latent_distribution import LatentDistribution
from .distributed import example_noise
from .evaluator import LikelihoodEvaluator, check_several
from .importance_sampling import error_of_mean


def likelihood_metrics(
    evaluator: LikelihoodEvaluator,
    num_samples: int = 100,
    seed: int = 0,
    posterior: LatentDistribution | None = None,
    prior: LatentDistribution | None = None,
) -> dict[str, float]:
    """
    Bounds on the log-likelihood, and the ablations that show whether z matters. x is encoded once, whatever is made of it.

    Args:
        evaluator ([`LikelihoodEvaluator`]): the examples.
        num_samples (`int`, defaults to 100): K of the importance-weighted bound.
        seed (`int`, defaults to 0): of all noise.
        posterior ([`LatentDistribution`], *optional*): q of each example; by default `evaluator.posterior()`.
        prior ([`LatentDistribution`], *optional*): p of each example; by default `evaluator.prior()`. All bounds are then of the
            model with this prior: `evaluator.prior("fitted_prior")`, say.

    Returns:
        Means over examples, nats per sentence: `reconstruction` (-log p(y|x,z), z from q, one sample), `kl` (to the prior; in
        closed form if there is one, else the mean of log q(z) - log p(z) over the samples of the bound), `elbo` (minus their sum),
        `iw_nll`; `nll_posterior` (the same as `reconstruction`), `nll_prior` (z from the prior), `nll_shuffled` (z from the
        posterior of the next example with another target), `nll_zero` (z = 0). Of conditional models also `mc_nll`, -log 1/K Σ_k
        p(y|x,z_k) with z_k from the prior (Sohn et al. 2015, equation 6): an upper bound like `iw_nll`, the better one if the
        decoder is good with any z. `iw_nll_error` and `mc_nll_error` are standard errors over draws of z, on these very examples.

    Raises:
        ValueError: `num_samples` below 1, a single example, which has no other to take a z from, or examples of more tokens than
            the model holds.
    """
    check_count("num_samples", num_samples)
    check_several(len(evaluator))
    evaluator.check_lengths()
    with evaluator.reading_once():
        posterior = evaluator.posterior() if posterior is None else posterior
        prior = evaluator.prior() if prior is None else prior
        bound = evaluator.importance_weighted(posterior, prior, num_samples, seed)
        first = posterior.from_noise(example_noise(len(evaluator), 1, posterior.noise_size, seed))
        # Another stream than the posterior's noise: a prior sample must know nothing of y.
        from_prior = prior.from_noise(example_noise(len(evaluator), 1, prior.noise_size, seed + 1))
        exchanged = evaluator.nll(torch.cat([from_prior, first[evaluator.shuffled_partners()], torch.zeros_like(first)], dim=1))
        conditional = {}
        if evaluator.model.config.is_conditional:
            # Importance weights are 1 if the proposal is the prior itself.
            sampled = evaluator.importance_weighted(prior, prior, num_samples, seed + 1)
            conditional = {"mc_nll": sampled.nll.mean().item(), "mc_nll_error": error_of_mean(sampled.error)}
    reconstruction, closed_form = bound.reconstruction, posterior.kl(prior)
    kl = bound.kl if closed_form is None else closed_form.sum(-1)
    return {
        "elbo": -(reconstruction + kl).mean().item(),
        "kl": kl.mean().item(),
        "iw_nll": bound.nll.mean().item(),
        "iw_nll_error": error_of_mean(bound.error),
        "reconstruction": reconstruction.mean().item(),
        "nll_posterior": reconstruction.mean().item(),
        "nll_prior": exchanged[:, 0].mean().item(),
        "nll_shuffled": exchanged[:, 1].mean().item(),
        "nll_zero": exchanged[:, 2].mean().item(),
        **conditional,
    }


def conditional_log_likelihoods(metrics: Mapping[str, float]) -> dict[str, float]:
    """
    The two bounds of [`likelihood_metrics`] as Sohn et al. 2015 give them, the CLL log p(y|x) in nats per sentence: `cll_mc` over
    the prior (equation 6) and `cll_is` over q (equation 7), lower bounds both, with their standard errors `cll_mc_error` and
    `cll_is_error` if there are any.
    """
    log_likelihoods = {}
    for name, bound in (("cll_mc", "mc_nll"), ("cll_is", "iw_nll")):
        log_likelihoods[name] = -metrics[bound]
        if f"{bound}_error" in metrics:
            log_likelihoods[f"{name}_error"] = metrics[f"{bound}_error"]
    return log_likelihoods
