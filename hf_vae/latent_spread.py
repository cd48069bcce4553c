"""How the several z of one input lie to each other: `latent_spread`. Each by itself is a draw from the prior, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from .checks import check_choice, check_count

# Sobol's points as whole numbers of so many bits, which is what torch computes them with.
SOBOL_BITS = 30
# The most points of one input that are pushed apart: each pushes each.
MOST_REPELLED = 2048


def independent(rows: int, samples: int, size: int, **drawn) -> torch.Tensor:
    """Each draw knows nothing of the others."""
    return torch.randn((rows, samples, size), **drawn)


def antithetic(rows: int, samples: int, size: int, **drawn) -> torch.Tensor:
    """Every second draw is the one before it with the other sign (Hammersley & Morton 1956)."""
    half = torch.randn((rows, (samples + 1) // 2, size), **drawn)
    return torch.stack([half, -half], dim=2).flatten(1, 2)[:, :samples]


def quasi_random(rows: int, samples: int, size: int, **drawn) -> torch.Tensor:
    """
    Sobol's points, scrambled (Owen 1995), through the inverse of the normal distribution: every number of z is spread evenly, and
    most pairs of numbers are. The scrambling's matrix is one for all rows, its shift is each row's own.

    Raises:
        ValueError: z has more numbers than Sobol's points can have.
    """
    engine = torch.quasirandom.SobolEngine
    if size > engine.MAXDIM:
        raise ValueError(
            f"`latent_spread='quasi_random'` holds for at most {engine.MAXDIM} numbers, and a draw of z takes {size}: choose "
            "'repelled' or 'antithetic'."
        )
    shifts = torch.randint(2**SOBOL_BITS, (rows, 1, size), **drawn)
    seed = int(torch.randint(2**SOBOL_BITS, (1,), **drawn))
    points = engine(size, scramble=True, seed=seed).draw(samples, dtype=torch.float64).to(shifts.device)
    shifted = (points * 2**SOBOL_BITS).long() ^ shifts
    # The middle of each cell: neither 0 nor 1, whose inverse is infinite.
    return torch.special.ndtri((shifted + 0.5) / 2**SOBOL_BITS).float()


def repelled(rows: int, samples: int, size: int, **drawn) -> torch.Tensor:
    """
    The directions push each other apart, and are then turned at random; the lengths are independent. Up to `size` + 1 draws all
    have the same angle between them.

    Raises:
        ValueError: more than 2048 draws for one input.
    """
    if samples > MOST_REPELLED:
        raise ValueError(
            f"`latent_spread='repelled'` pushes at most {MOST_REPELLED} z of an input apart, and {samples} are asked for: choose "
            "'quasi_random'."
        )
    lengths = torch.randn((rows, samples, size), **drawn).norm(dim=-1, keepdim=True)
    rank = max(min(samples - 1, size), 1)
    # Without these signs the frame would not be uniform (Mezzadri 2007).
    frame, triangle = torch.linalg.qr(torch.randn((rows, size, rank), **drawn))
    frame = frame * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return lengths * (_directions(samples, rank).to(frame) @ frame.mT)


@lru_cache(maxsize=64)
def _directions(num: int, size: int) -> torch.Tensor:
    """Unit vectors `(num, size)` that are far from each other: descent on the sum of the inverse squared distances."""
    points = torch.randn((num, size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = torch.nn.functional.normalize(points, dim=-1)
    for step in range(200):
        cosine = points @ points.T
        # 1/d² with d² = 2 - 2 cos has the gradient Σ pⱼ / (2 (1 - cosᵢⱼ)²) along each pⱼ.
        push = (1 - cosine).clamp(min=1e-3).square().reciprocal().fill_diagonal_(0)
        away = -(push @ points) / push.sum(-1, keepdim=True).clamp(min=1e-12)
        points = torch.nn.functional.normalize(points + 0.5 * (1 - step / 200) * away, dim=-1)
    return points.float()


# What `latent_spread` may name. Each makes `samples` standard normal draws `(rows, samples, size)` for each of `rows` inputs; by
# itself each draw is exactly N(0, I), so a mean over them has no bias.
LATENT_SPREADS: dict[str, Callable[..., torch.Tensor]] = {
    each.__name__: each for each in (independent, quasi_random, repelled, antithetic)
}


def spread_noise(
    spread: str,
    rows: int,
    samples: int,
    size: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """
    Standard normal noise for several z of each input, for [`LatentDistribution.from_noise`].

    Args:
        spread (`str`): how those of one input lie to each other: `"independent"`; `"quasi_random"`, scrambled points of Sobol's,
            which cover the prior evenly; `"repelled"`, whose directions push each other apart; `"antithetic"`, each second one
            opposite to the one before.
        rows (`int`): inputs; a draw of one says nothing of a draw of another.
        samples (`int`): draws for each.
        size (`int`): numbers in a draw.
        generator (`torch.Generator`, *optional*): source of the noise; the noise is drawn on its device.
        device (`torch.device`, *optional*): where the noise is drawn without a generator.

    Returns:
        `torch.Tensor` of shape `(rows, samples, size)`. Each draw by itself is N(0, I), whatever the spread.

    Raises:
        ValueError: a spread without such a name, no draw, or more of them or of their numbers than the spread can have.
    """
    check_choice("latent_spread", spread, tuple(LATENT_SPREADS))
    check_count("samples", samples)
    # With a `generator`, be it `None`, torch.compile draws no tensor whose sizes it is to leave open.
    drawn = {"device": device} if generator is None else {"generator": generator, "device": generator.device}
    return LATENT_SPREADS[spread](rows, samples, size, **drawn)


__all__ = ["LATENT_SPREADS", "spread_noise"]
