"""
How much of the ELBO the encoder leaves on the table: each example's own q, moved by gradient steps from where the encoder put it,
with the model fixed (Hoffman et al. 2013; Kim et al. 2018; the amortisation gap of Cremer et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..checks import check_count, check_number
from ..gaussian import DiagonalGaussian
from ..latent_distribution import LatentDistribution
from ..objective import kl_divergence
from .distributed import copied_rows, sample_noise
from .evaluator import LikelihoodEvaluator
from .example_batch import ExampleBatch


@dataclass
class Refinement:
    """
    Args:
        posterior ([`DiagonalGaussian`]): the refined q of every example; the encoder's if no step improved it.
        elbo_before, elbo_after (`torch.Tensor` of shape `(examples,)`): nats per sentence, by the same noise.
        num_steps (`int`): gradient steps.
    """

    posterior: DiagonalGaussian
    elbo_before: torch.Tensor
    elbo_after: torch.Tensor
    num_steps: int

    def metrics(self) -> dict[str, float]:
        """`refinement_elbo_before`, `refinement_elbo_after`, their difference `refinement_gap`; `refinement_steps`."""
        before, after = self.elbo_before.mean().item(), self.elbo_after.mean().item()
        return {
            "refinement_elbo_before": before,
            "refinement_elbo_after": after,
            "refinement_gap": after - before,
            "refinement_steps": self.num_steps,
        }


def refine(
    evaluator: LikelihoodEvaluator,
    num_steps: int = 20,
    learning_rate: float = 0.1,
    num_samples: int = 4,
    num_held_samples: int = 32,
    seed: int = 0,
    posterior: LatentDistribution | None = None,
    prior: LatentDistribution | None = None,
) -> Refinement:
    r"""
    Stochastic variational inference for each example: Adam on its own \((\mu, \log\sigma^2)\), which ascends the ELBO.

    Args:
        evaluator ([`LikelihoodEvaluator`]): the examples. The model's parameters get no gradient and do not change.
        num_steps (`int`, defaults to 20): gradient steps.
        learning_rate (`float`, defaults to 0.1): Adam's, in units of z.
        num_samples (`int`, defaults to 4): samples of z a step, new ones at each.
        num_held_samples (`int`, defaults to 32): samples of z by which the ELBO is measured before and after, the same for both and
            none that a step has seen. An example keeps the better of its two q, so the gap is never negative; that choice
            favours `elbo_after` by less than the measure's own error, which more samples make smaller.
        seed (`int`, defaults to 0): of all noise.
        posterior, prior ([`LatentDistribution`], *optional*): `evaluator.posterior()` and `.prior()`, if they are there already. q
            must be a diagonal Gaussian, whose mean and log variance the steps move.

    Raises:
        ValueError: a number below 1, a learning rate that is not positive, or a q of another family.
    """
    for name, value in (("num_steps", num_steps), ("num_samples", num_samples), ("num_held_samples", num_held_samples)):
        check_count(name, value)
    check_number("learning_rate", learning_rate, above=0)
    with evaluator.reading_once():
        posterior = evaluator.posterior() if posterior is None else posterior
        prior = evaluator.prior() if prior is None else prior
        if not isinstance(posterior, DiagonalGaussian):
            raise ValueError(
                f"Refinement moves the mean and the log variance of a diagonal Gaussian, and q is a {type(posterior).__name__}: "
                "leave it out."
            )

        def improve(batch: ExampleBatch) -> list[tuple[torch.Tensor, ...]]:
            start, p = posterior.select(batch.indices), prior.select(batch.indices)
            # The steps' noise is another stream than the measure's.
            end = _ascend(batch, start, p, num_steps, learning_rate, num_samples, seed + 1)
            with torch.no_grad():
                before, after = (_elbo(batch, q, p, range(num_held_samples), seed) for q in (start, end))
                better = (after > before).unsqueeze(-1)
                mean, logvar = torch.where(better, end.mean, start.mean), torch.where(better, end.logvar, start.logvar)
                # Not the maximum, which is no number if a step led to none.
                kept = torch.where(after > before, after, before)
            return list(zip(*map(copied_rows, (mean, logvar, before, kept))))

        rows = evaluator.map(improve, f"{num_steps} steps of refinement")
    mean, logvar, before, after = (torch.stack(column) for column in zip(*rows))
    return Refinement(DiagonalGaussian(mean, logvar), before, after, num_steps)


def _ascend(
    batch: ExampleBatch,
    start: DiagonalGaussian,
    prior: LatentDistribution,
    num_steps: int,
    learning_rate: float,
    num_samples: int,
    seed: int,
) -> DiagonalGaussian:
    mean, logvar = (value.clone().requires_grad_(True) for value in (start.mean, start.logvar))
    # Adam works on each number by itself, so an example's steps do not depend on its batch.
    optimizer = torch.optim.Adam([mean, logvar], lr=learning_rate)
    for step in range(num_steps):
        samples = range(step * num_samples, (step + 1) * num_samples)
        # cuDNN's recurrent networks have no backward pass in evaluation mode.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            loss = -_elbo(batch, DiagonalGaussian(mean, logvar), prior, samples, seed).sum()
            mean.grad, logvar.grad = torch.autograd.grad(loss, [mean, logvar])
        optimizer.step()
    return DiagonalGaussian(mean.detach(), logvar.detach())


def _elbo(batch: ExampleBatch, q: DiagonalGaussian, prior: LatentDistribution, samples: range, seed: int) -> torch.Tensor:
    """Of each example, `(examples,)`, differentiable in q; the KL in closed form if there is one."""
    latents = q.from_noise(sample_noise(batch.indices, samples, q.noise_size, seed))
    return -batch.nll(latents).cpu().mean(1) - kl_divergence(q, prior, latents).sum(-1)
