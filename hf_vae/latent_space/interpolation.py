"""Paths between two codes, and how smoothly the text changes along one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from ..checks import check_choice, check_count
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .codes import LatentTexts, codes_of, decode_latents, shown_texts, source_rows

# Below this sine of the angle between two codes, rounding chooses the plane in which a great circle would run.
SMALLEST_SINE = 1e-6


@dataclass(repr=False)
class Interpolation(LatentTexts):
    """
    Args:
        texts (`list[str]`): along the path, the ends included.
        latents (`torch.Tensor` of shape `(steps, latent_size)`): the path.
        fractions (`list[float]`): how far along each point is, 0 at the start and 1 at the end.
    """

    fractions: list[float]

    def __repr__(self) -> str:
        return shown_texts(self, [f"{fraction:.2f}  {text}" for fraction, text in zip(self.fractions, self.texts)])


def linear_path(start: torch.Tensor, end: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """(1 - t)·start + t·end for each of `fractions` `(steps,)`: `(latent_size,)` twice to `(steps, latent_size)`."""
    t = fractions.unsqueeze(-1)
    return (1 - t) * start + t * end


def spherical_path(start: torch.Tensor, end: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """
    The direction turns at constant speed along the great circle (slerp: Shoemake 1985), the norm changes linearly: ends of equal
    norm give a path of that norm, where a straight line would pass through regions that the prior hardly ever visits (White 2016).

    Where a great circle is not defined, the path is [`linear_path`]: an end at zero, and ends that point the same way (there both
    agree) or opposite ways (there the line passes through zero), that is with a sine of their angle below `SMALLEST_SINE`.

    Args:
        start, end (`torch.Tensor` of shape `(latent_size,)`).
        fractions (`torch.Tensor` of shape `(steps,)`): 0 is the start, 1 the end.

    Returns:
        `torch.Tensor` of shape `(steps, latent_size)`.
    """
    norms = start.norm(), end.norm()
    if not (norms[0] and norms[1]):
        return linear_path(start, end, fractions)
    directions = start / norms[0], end / norms[1]
    cosine = torch.dot(*directions)
    # The sine from the rejection: an arc cosine near 1 has lost its digits.
    sine = (directions[1] - cosine * directions[0]).norm()
    if sine < SMALLEST_SINE:
        return linear_path(start, end, fractions)
    angle = torch.atan2(sine, cosine)
    t = fractions.unsqueeze(-1)
    direction = (torch.sin((1 - t) * angle) * directions[0] + torch.sin(t * angle) * directions[1]) / sine
    return ((1 - t) * norms[0] + t * norms[1]) * direction


PATHS = {"linear": linear_path, "spherical": spherical_path}


def interpolate_latents(start: torch.Tensor, end: torch.Tensor, steps: int, method: str = "linear") -> torch.Tensor:
    """
    `steps` points from `start` to `end`, both included, evenly spaced.

    Args:
        start, end (`torch.Tensor` of shape `(latent_size,)`).
        steps (`int`): at least 2.
        method (`str`, defaults to `"linear"`): or `"spherical"` ([`spherical_path`]).

    Returns:
        `torch.Tensor` of shape `(steps, latent_size)`, float32, whose first and last rows are the ends exactly.

    Raises:
        ValueError: an unknown method, fewer than two steps, or ends of other shapes.
    """
    check_choice("method", method, tuple(PATHS))
    check_count("steps", steps, least=2)
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"`start` {tuple(start.shape)} and `end` {tuple(end.shape)} must both be of shape (latent_size,).")
    fractions = torch.linspace(0, 1, steps, dtype=torch.float64)
    path = PATHS[method](start.double(), end.double(), fractions).float()
    path[0], path[-1] = start, end
    return path


def interpolate(
    model: VAEModel,
    processor: VAEProcessor,
    start: str | torch.Tensor,
    end: str | torch.Tensor,
    steps: int = 11,
    method: str = "linear",
    sources: Any = None,
    batch_size: int = 64,
    **generation_options,
) -> Interpolation:
    r"""
    The texts on the way from one to another. `"linear"`, decoded greedily, is the homotopy of Bowman et al. (2015, tables 8 and
    12), \(z(t) = z_1 (1 - t) + z_2 t\); Optimus' interpolation is the same in steps of 0.1 (Li et al. 2020).

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        start, end (`str`, or `torch.Tensor` of shape `(latent_size,)`): the ends; of a text the posterior mean.
        steps (`int`, defaults to 11): points, the ends included.
        method (`str`, defaults to `"linear"`): or `"spherical"` ([`spherical_path`]).
        sources (*optional*): x of the path, a single one as the processor takes it, for a conditional model: q reads both ends with
            it, the decoder sees it.
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        [`Interpolation`].

    Raises:
        ValueError: more than one text or z for an end, an unknown method, or fewer than two steps, or sources that the model needs
            or does not read.
    """
    check_choice("method", method, tuple(PATHS))
    check_count("steps", steps, least=2)
    sources = None if sources is None else source_rows(model, processor, sources)
    codes = codes_of(model, processor, {"start": start, "end": end}, sources, batch_size)
    first, last = (one_latent(name, code) for name, code in codes.items())
    if sources is not None:
        generation_options = {**processor(sources), **generation_options}
    latents = interpolate_latents(first, last, steps, method)
    texts = decode_latents(model, processor, latents, batch_size, **generation_options)
    return Interpolation(texts=texts, latents=latents, fractions=[step / (steps - 1) for step in range(steps)])


def one_latent(name: str, latents: torch.Tensor) -> torch.Tensor:
    """The only row of `latents`."""
    if len(latents) != 1:
        raise ValueError(f"`{name}` holds {len(latents)} texts or latents; a path has one start and one end.")
    return latents[0]


def word_edit_distance(first: str, second: str) -> float:
    """
    Fewest insertions, deletions and replacements of a word that turn one text into the other, divided by the number of words of
    the longer: 0 for equal texts, 1 for texts that share no word. Words are what whitespace separates, case counts.
    """
    # Exact, where sacrebleu's search for TER looks only near the diagonal.
    a, b = first.split(), second.split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1] / max(len(a), len(b), 1)


def smoothness(texts: Sequence[str]) -> dict[str, float]:
    """
    How the text changes along one path.

    Args:
        texts (`list[str]`): in the path's order, at least two.

    Returns:
        `edit_distance`: mean over neighbours of [`word_edit_distance`], 0 to 1, smaller is smoother; `max_edit_distance`: the
        greatest jump; `repeated`: share of neighbours with the same words, which makes a path look smooth by standing still.

    Raises:
        ValueError: fewer than two texts.
    """
    if isinstance(texts, str) or len(texts) < 2:
        raise ValueError("`texts` must be a list of at least two texts: smoothness is about neighbours.")
    distances = [word_edit_distance(first, second) for first, second in pairwise(texts)]
    return {
        "edit_distance": sum(distances) / len(distances),
        "max_edit_distance": max(distances),
        "repeated": distances.count(0.0) / len(distances),
    }


__all__ = ["Interpolation", "interpolate", "interpolate_latents", "smoothness", "word_edit_distance"]
