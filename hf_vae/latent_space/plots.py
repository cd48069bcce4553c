"""Pictures of the latent space."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..gaussian import DiagonalGaussian
from ..latent_distribution import LatentDistribution
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


def plot_latents(posterior: LatentDistribution, prior: LatentDistribution, path: str | Path) -> None:
    """
    What z holds of a set of texts: each dimension's mean KL, from the greatest on, and the posteriors' means in the plane in which
    they vary most. There every mean is taken from its prior's and divided by its spread, so that the prior is N(0, I), whose one,
    two and three standard deviations are drawn. If q or p is no Gaussian, the modes of q are drawn as they are; and without a KL
    in closed form of each dimension there are no bars.

    Args:
        posterior, prior ([`LatentDistribution`] with one row a text): q and p.
        path (`str` or `Path`): the picture to write.

    Raises:
        ValueError: fewer than two texts.
    """
    modes = posterior.mode()
    if len(modes) < 2:
        raise ValueError(f"`posterior` is of {len(modes)} text(s); a plane needs at least two.")
    kl = posterior.kl(prior)
    has_bars = kl is not None and kl.shape[-1] == modes.shape[-1]
    figure = Figure(figsize=(10 if has_bars else 5.5, 4.5), layout="constrained")
    axes = figure.subplots(1, 2 if has_bars else 1, squeeze=False)[0]
    if has_bars:
        _plot_kl(axes[0], kl.mean(0))
    if isinstance(posterior, DiagonalGaussian) and isinstance(prior, DiagonalGaussian):
        angles = torch.linspace(0, 2 * torch.pi, 200)
        for radius in (1, 2, 3):
            axes[-1].plot((radius * angles.cos()).tolist(), (radius * angles.sin()).tolist(), color="grey", linewidth=0.8)
        _plot_plane(axes[-1], (modes - prior.mean) / prior.std)
        axes[-1].set_title("posterior means where the prior is N(0, I)", fontsize=10)
    else:
        _plot_plane(axes[-1], modes)
        axes[-1].set_title("modes of the posteriors", fontsize=10)
    figure.savefig(path, dpi=120)


def _plot_kl(axes: Axes, kl: torch.Tensor) -> None:
    """The KL of each dimension, `(latent_size,)`, from the greatest on."""
    axes.bar(range(len(kl)), kl.sort(descending=True).values.tolist(), color="tab:orange", width=1.0)
    axes.set_xlabel("dimension of z, by its KL")
    axes.set_ylabel("mean KL(q ‖ p) (nats)")
    axes.set_title(f"{kl.sum():.2f} nats in {int((kl > 0.01).sum())} of {len(kl)} dimensions above 0.01", fontsize=10)


def _plot_plane(axes: Axes, points: torch.Tensor) -> None:
    """Points `(rows, latent_size)` in the plane in which they vary most."""
    points = points.double()
    # The directions in which they vary most, as the eigenvectors of their covariance; one dimension has no second.
    directions = torch.linalg.svd(points - points.mean(0), full_matrices=True).Vh[:2].T
    plane = torch.nn.functional.pad(points @ directions, (0, 2 - directions.shape[1]))
    axes.plot(*plane.T.tolist(), ".", markersize=4, color="tab:blue")
    axes.set_aspect("equal")
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
