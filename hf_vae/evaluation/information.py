"""
What z says about the example, under q over a set of N examples, in nats: mutual information, the divergence of the aggregate
posterior from the prior, active units.

The aggregate posterior is q(z) = 1/N Σ_n q(z|x_n), over all N examples, never over a batch; the work grows with N², memory
with N. For conditional models read (x, y) for x.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch

from ..checks import check_count
from ..gaussian import DiagonalGaussian
from ..latent_distribution import LatentDistribution
from .distributed import sample_noise
from .evaluator import check_several

# The variance of a dimension's posterior means above which Burda et al. 2016 (section 5.2) call it active. Published counts
# also use 0.2, so the figure's name says which.
ACTIVE_UNITS_THRESHOLD = 0.01
# Draws of z that bring the Monte Carlo error of a few nats to a few hundredths.
_DRAWS = 10_000
_SAMPLES_AT_ONCE = 8
# Examples in a block of log q(z|x_n): with 256 rows 2 MiB; larger ones are slower, and leave holes in the memory.
_EXAMPLES_AT_ONCE = 1024


def active_units(modes: torch.Tensor, threshold: float = ACTIVE_UNITS_THRESHOLD) -> int:
    """
    Dimensions whose posterior mean varies over the examples by more than `threshold`: Var_x(μ_i) > threshold.

    Args:
        modes (`torch.Tensor` of shape `(examples, latent_size)`): of the posteriors; Gaussians' modes are their means.

    Raises:
        ValueError: fewer than two examples.
    """
    check_several(len(modes))
    return int((modes.double().var(0) > threshold).sum())


def aggregate_log_prob(latents: torch.Tensor, posterior: LatentDistribution, rows_per_pass: int = 256) -> torch.Tensor:
    """
    log q(z) = log 1/N Σ_n q(z|x_n) in nats. Memory grows with the rows and with N, not with their product.

    Args:
        latents (`torch.Tensor` of shape `(rows, latent_size)`).
        posterior ([`LatentDistribution`]): q(z|x_n), one row for each of the N examples.
        rows_per_pass (`int`, defaults to 256): rows at once.

    Returns:
        `torch.Tensor` of shape `(rows,)`, float64.
    """
    log_probs = _gaussian_blocks(posterior) if isinstance(posterior, DiagonalGaussian) else _blocks(posterior)
    parts = []
    for z in latents.split(rows_per_pass):
        z = z.double()
        total = z.new_full((len(z),), -torch.inf)
        for log_prob in log_probs:
            total = torch.logaddexp(total, torch.logsumexp(log_prob(z), dim=1))
        parts.append(total)
    return torch.cat(parts) - math.log(len(posterior))


def _gaussian_blocks(posterior: DiagonalGaussian) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """For each block of examples the function from z `(rows, latent_size)` to log q(z|x_n) `(rows, examples)`, in float64."""
    mean, logvar = posterior.mean.double(), posterior.logvar.double()
    precision = torch.exp(-logvar)
    # The squared distance multiplied out is a product of matrices; float64, because its terms cancel.
    weighted, constant = mean * precision, (mean.square() * precision + logvar + math.log(2 * math.pi)).sum(-1)

    def log_prob(precision: torch.Tensor, weighted: torch.Tensor, constant: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.addmm(constant, z.square(), precision.T).addmm_(z, weighted.T, alpha=-2).mul_(-0.5)

    blocks = zip(*(each.split(_EXAMPLES_AT_ONCE) for each in (precision, weighted, constant)))
    return [partial(log_prob, *block) for block in blocks]


def _blocks(posterior: LatentDistribution) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """As `_gaussian_blocks`, of any family; in float32, as its `log_prob` is."""

    def log_prob(some: LatentDistribution, z: torch.Tensor) -> torch.Tensor:
        return some.log_prob(z.float().unsqueeze(0).expand(len(some), -1, -1)).double().T

    # Here z stands beside every example, so a block is smaller by what z has dimensions.
    size = max(_EXAMPLES_AT_ONCE // posterior.mode().shape[-1], 1)
    return [partial(log_prob, posterior.select(rows)) for rows in torch.arange(len(posterior)).split(size)]


def information_metrics(
    posterior: LatentDistribution,
    prior: LatentDistribution | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    examples: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """
    Mutual information and its relatives (Hoffman & Johnson 2016: KL = I(x; z) + KL(q(z) ‖ p(z))).

    Args:
        posterior ([`LatentDistribution`]): q of the N examples.
        prior ([`LatentDistribution`], *optional*): p, one row an example, or one for all; N(0, I) by default.
        num_samples (`int`, *optional*): samples of z of each example; by default as many as make 10,000 of all.
        seed (`int`, defaults to 0): of their noise.
        examples (`list`, *optional*): what each example is, if some may be equal, which no z tells apart.

    Returns:
        `num_examples`: N; `latent_size`. `mutual_information`: I(x; z), the mean of log q(z|x) - log q(z) over z from q(z|x);
        `mutual_information_ceiling`: the entropy of the examples, ln N if all differ, which it cannot exceed, so a value close
        to it says only that N is too small. Two estimates of KL(q(z) ‖ p(z)), which agree to Monte Carlo error: `marginal_kl`,
        the mean of log q(z) - log p(z); and `kl_minus_mutual_information`, with the KL in closed form (without one, by the same
        draws, and then both are one estimate). There is no such thing if the prior differs from example to example;
        `prior_depends_on_source` says so in their place.
        `active_units_0.01`: dimensions with Var_x(μ_i) > 0.01, and `active_units_0.01_fraction` of all.

    Raises:
        ValueError: fewer than two examples, `examples` or rows of `prior` in another number, or no samples.
    """
    check_several(len(posterior))
    modes = posterior.mode()
    count, latent_size = modes.shape
    if examples is not None and len(examples) != count:
        raise ValueError(f"`examples` has {len(examples)} and `posterior` {count} rows; they must be as many.")
    num_samples = math.ceil(_DRAWS / count) if num_samples is None else num_samples
    check_count("num_samples", num_samples)
    if prior is None:
        prior = DiagonalGaussian.standard(count, latent_size)
    shape = prior.mode().shape
    if shape not in (modes.shape, (1, latent_size)):
        raise ValueError(
            f"`prior` has the shape {tuple(shape)} and `posterior` {tuple(modes.shape)}: give one row for each example, or one for "
            "all."
        )
    information, marginal = [], []
    for start in range(0, num_samples, _SAMPLES_AT_ONCE):
        samples = range(start, min(start + _SAMPLES_AT_ONCE, num_samples))
        noise = sample_noise(range(count), samples, posterior.noise_size, seed)
        latents = posterior.from_noise(noise)
        aggregate = aggregate_log_prob(latents.flatten(0, 1), posterior)
        information.append(_log_prob(latents, posterior).flatten() - aggregate)
        marginal.append(aggregate - _log_prob(latents, prior).flatten())
    mutual_information = torch.cat(information).mean().item()
    marginal_kl, closed_form = torch.cat(marginal).mean().item(), posterior.kl(prior)
    kl = mutual_information + marginal_kl if closed_form is None else closed_form.sum(-1).double().mean().item()
    marginals = {"kl_minus_mutual_information": kl - mutual_information, "marginal_kl": marginal_kl}
    active = active_units(modes)
    name = f"active_units_{ACTIVE_UNITS_THRESHOLD}"
    return {
        "num_examples": count,
        "latent_size": latent_size,
        "mutual_information": mutual_information,
        "mutual_information_ceiling": math.log(count) if examples is None else _entropy(examples),
        **({"prior_depends_on_source": True} if depends(prior) else marginals),
        name: active,
        f"{name}_fraction": active / latent_size,
    }


def depends(prior: LatentDistribution) -> bool:
    """Whether the examples' priors differ."""
    # One prior may come out a little different in another batch.
    return not all(torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-5) for rows in prior.parameters().values())


def _entropy(examples: Sequence[Hashable]) -> float:
    """Of one drawn from `examples`, in nats."""
    counts = torch.tensor(list(Counter(examples).values()), dtype=torch.float64)
    return math.log(len(examples)) - (counts * counts.log()).sum().item() / len(examples)


def _log_prob(latents: torch.Tensor, distribution: LatentDistribution) -> torch.Tensor:
    """Of `(examples, samples, latent_size)`, in float64 as the aggregate is: with narrow posteriors their difference is small."""
    if not isinstance(distribution, DiagonalGaussian):
        return distribution.log_prob(latents).double()
    mean, logvar = distribution.mean.double().unsqueeze(1), distribution.logvar.double().unsqueeze(1)
    scaled = (latents.double() - mean).square() * torch.exp(-logvar)
    return -0.5 * (math.log(2 * math.pi) + logvar + scaled).sum(-1)
