"""Pictures of the latent space."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ..gaussian import DiagonalGaussian
from .interpolation import Interpolation, smoothness, word_edit_distance


def plot_interpolation(interpolation: Interpolation, path: str | Path, width: int = 90) -> None:
    """
    The text at each point of a path and, between points, how much of it changes.

    Args:
        interpolation ([`Interpolation`]): what `interpolate` returned.
        path (`str` or `Path`): the picture to write.
        width (`int`, defaults to 90): characters to a line of text; a text of more takes two lines and is cut there.
    """
    texts, fractions = interpolation.texts, interpolation.fractions
    distances = [word_edit_distance(first, second) for first, second in pairwise(texts)]
    middles = [(first + second) / 2 for first, second in pairwise(fractions)]
    figure = Figure(figsize=(10, 1.2 + 0.45 * len(texts)), layout="constrained")
    words, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for text, fraction in zip(texts, fractions):
        lines = textwrap.fill(text, width, max_lines=2, placeholder=" …")
        # A dollar sign in a text is no formula.
        words.text(0.02, fraction, lines, va="center", fontsize=9, parse_math=False)
    words.set_xticks([])
    words.set_yticks(fractions, [f"{fraction:.2f}" for fraction in fractions])
    words.set_ylabel("t")
    bars.barh(middles, distances, height=0.8 / (len(texts) - 1), color="tab:blue")
    bars.set_xlim(0, 1)
    bars.set_xlabel(f"word edit distance of neighbours\n(mean {smoothness(texts)['edit_distance']:.2f})")
    bars.grid(axis="x", alpha=0.3)
    margin = 0.5 / (len(texts) - 1)
    # The start on top, as one reads.
    words.set_ylim(1 + margin, -margin)
    figure.savefig(path, dpi=120)


def plot_latents(posterior: DiagonalGaussian, prior: DiagonalGaussian, path: str | Path) -> None:
    """
    What z holds of a set of texts: each dimension's mean KL, from the greatest on, and the posteriors' means in the plane in which
    they vary most. There every mean is taken from its prior's and divided by its spread, so that the prior is N(0, I), whose one,
    two and three standard deviations are drawn.

    Args:
        posterior, prior ([`DiagonalGaussian`] with one row a text): q and p.
        path (`str` or `Path`): the picture to write.

    Raises:
        ValueError: fewer than two texts.
    """
    means = ((posterior.mean - prior.mean) / prior.std).double()
    if len(means) < 2:
        raise ValueError(f"`posterior` is of {len(means)} text(s); a plane needs at least two.")
    kl = posterior.kl(prior).mean(0)
    order = kl.argsort(descending=True)
    # The directions in which they vary most, as the eigenvectors of their covariance; one dimension has no second.
    directions = torch.linalg.svd(means - means.mean(0), full_matrices=True).Vh[:2].T
    plane = torch.nn.functional.pad(means @ directions, (0, 2 - directions.shape[1]))
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    bars, points = figure.subplots(1, 2)
    bars.bar(range(len(kl)), kl[order].tolist(), color="tab:orange", width=1.0)
    bars.set_xlabel("dimension of z, by its KL")
    bars.set_ylabel("mean KL(q ‖ p) (nats)")
    bars.set_title(f"{kl.sum():.2f} nats in {int((kl > 0.01).sum())} of {len(kl)} dimensions above 0.01", fontsize=10)
    angles = torch.linspace(0, 2 * torch.pi, 200)
    for radius in (1, 2, 3):
        points.plot((radius * angles.cos()).tolist(), (radius * angles.sin()).tolist(), color="grey", linewidth=0.8)
    points.plot(*plane.T.tolist(), ".", markersize=4, color="tab:blue")
    points.set_aspect("equal")
    points.set_title("posterior means where the prior is N(0, I)", fontsize=10)
    points.set_xlabel("first direction")
    points.set_ylabel("second direction")
    figure.savefig(path, dpi=120)
