"""Pictures of the latent space."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure

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
