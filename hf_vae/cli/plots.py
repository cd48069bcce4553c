"""Pictures: of a training, of the latent space, and of models side by side."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import BboxBase

from ..evaluation import FrontierPoint, RateDistortionPoint
from ..evaluation.frontier import COPYING
from ..gaussian import DiagonalGaussian
from ..latent_distribution import LatentDistribution
from ..latent_space import Interpolation, smoothness, word_edit_distance

_COLOURS = ("black", "tab:blue", "tab:red", "tab:green", "tab:brown", "tab:purple")
_LINES = ("-", "--", "-.", ":", (0, (1, 1)), (0, (6, 2, 1, 2, 1, 2)))


def picture_kinds() -> list[str]:
    """The endings of the files that a picture may be written to."""
    return list(Figure().canvas.get_supported_filetypes())


def check_picture(name: str, file: str | None) -> None:
    """Raises a `ValueError` if the argument `name` gives a `file` whose ending is that of no picture."""
    kind, kinds = Path(file or "").suffix[1:].lower(), sorted(picture_kinds())
    if kind and kind not in kinds:
        raise ValueError(f"`--{name}` ends in .{kind}, which is no kind of picture; choose one of {', '.join(kinds)}.")


# The panels of a training, with the colour of each.
_PANELS = (
    ("loss", "loss\n(nats per token)", "tab:grey"),
    ("reconstruction", "reconstruction\n(nats per sentence)", "tab:blue"),
    ("kl", "KL(q ‖ p)\n(nats per sentence)", "tab:orange"),
    ("kl_weight", "KL weight", "tab:green"),
)


def plot_training(logs: Mapping[str, list[dict]], path: str | Path) -> None:
    """
    The loss, reconstruction, KL and KL weight against the optimiser's step, one stage after the other, with a border between two.

    Args:
        logs (`dict[str, list[dict]]`): `trainer.state.log_history` of each stage, by what it trained.
        path (`str` or `Path`): the picture to write.

    Raises:
        ValueError: no log holds `kl`, so no callback logged the loss's parts.
    """
    if not any("kl" in entry for log in logs.values() for entry in log):
        raise ValueError("The log has no entry with `kl`: train with KLAnnealingCallback, and past the first logging step.")
    figure = Figure(figsize=(7, 9), layout="constrained")
    panels = figure.subplots(len(_PANELS), 1, sharex=True)
    start = 0
    for number, (what, log) in enumerate(logs.items()):
        for panel, (key, _, colour) in zip(panels, _PANELS):
            points = [(start + entry["step"], entry[key]) for entry in log if key in entry]
            panel.plot(*zip(*points), color=colour, marker=".", markersize=4) if points else None
            if number:
                panel.axvline(start, color="black", linewidth=0.8, linestyle="--")
        end = start + max((entry.get("step", 0) for entry in log), default=0)
        if len(logs) > 1:
            wrapped = textwrap.fill(what, 16)
            panels[0].annotate(wrapped, ((start + end) / 2, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
        start = end
    for panel, (_, label, _) in zip(panels, _PANELS):
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    # The first steps start from a uniform guess and would flatten everything that follows.
    for panel in panels[:2]:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
    for panel in panels[2:]:
        # With room above a line that stays level.
        panel.set_ylim(0, 1.05 * panel.get_ylim()[1])
    panels[-1].set_xlabel("optimiser step" if len(logs) < 2 else "optimiser step, all stages")
    figure.align_ylabels(panels)
    figure.savefig(path, dpi=120)


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


def plot_latents(
    posterior: LatentDistribution, prior: LatentDistribution, path: str | Path, labels: Sequence[str] | None = None
) -> None:
    """
    What z holds of a set of texts: each dimension's mean KL, from the greatest on, and the posteriors' means in the plane in which
    they vary most. There every mean is taken from its prior's and divided by its spread, so that the prior is N(0, I), whose one,
    two and three standard deviations are drawn. If q or p is no Gaussian, the modes of q are drawn as they are; and without a KL
    in closed form of each dimension there are no bars.

    Args:
        posterior, prior ([`LatentDistribution`] with one row a text): q and p.
        path (`str` or `Path`): the picture to write.
        labels (`list[str]`, *optional*): what each text is, in a word or two; the points of a label share a colour, which the
            legend names.

    Raises:
        ValueError: fewer than two texts, or not a label for each.
    """
    modes = posterior.mode()
    if labels is not None and len(labels) != len(modes):
        raise ValueError(f"`labels` has {len(labels)} entries, and `posterior` is of {len(modes)} texts: they must be as many.")
    if len(modes) < 2:
        raise ValueError(f"`posterior` is of {len(modes)} text(s); a plane needs at least two.")
    kl = posterior.kl(prior)
    kl = None if kl is None or kl.shape[-1] != modes.shape[-1] else kl.mean(0)
    panels = 1 if kl is None else 2
    figure = Figure(figsize=(5 * panels + (labels is not None), 4.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if kl is not None:
        _plot_kl(axes[0], kl)
    if isinstance(posterior, DiagonalGaussian) and isinstance(prior, DiagonalGaussian):
        angles = torch.linspace(0, 2 * torch.pi, 200)
        for radius in (1, 2, 3):
            axes[-1].plot((radius * angles.cos()).tolist(), (radius * angles.sin()).tolist(), color="grey", linewidth=0.8)
        _plot_plane(axes[-1], (modes - prior.mean) / prior.std, labels)
        axes[-1].set_title("posterior means; rings: 1, 2, 3 prior deviations", fontsize=10)
    else:
        _plot_plane(axes[-1], modes, labels)
        axes[-1].set_title("modes of the posteriors", fontsize=10)
    figure.savefig(path, dpi=120)


def _plot_kl(axes: Axes, kl: torch.Tensor) -> None:
    """The KL of each dimension, `(latent_size,)`, from the greatest on."""
    axes.bar(range(len(kl)), kl.sort(descending=True).values.tolist(), color="tab:orange", width=1.0)
    axes.set_xlabel("dimension of z, by its KL")
    axes.set_ylabel("mean KL(q ‖ p) (nats)")
    axes.set_title(f"{kl.sum():.2f} nats in {int((kl > 0.01).sum())} of {len(kl)} dimensions above 0.01", fontsize=10)


def _plot_plane(axes: Axes, points: torch.Tensor, labels: Sequence[str] | None) -> None:
    """Points `(rows, latent_size)` in the plane in which they vary most."""
    points = points.double()
    # The directions in which they vary most, as the eigenvectors of their covariance; one dimension has no second.
    directions = torch.linalg.svd(points - points.mean(0), full_matrices=True).Vh[:2].T
    plane = torch.nn.functional.pad(points @ directions, (0, 2 - directions.shape[1]))
    if labels is None:
        axes.plot(*plane.T.tolist(), ".", markersize=4, color="tab:blue")
    else:
        for name, colour in zip(sorted(set(labels)), itertools.cycle(map(colormaps["tab20"], range(20)))):
            of_name = plane[[label == name for label in labels]]
            axes.plot(*of_name.T.tolist(), ".", markersize=5, color=colour, label=name)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, markerscale=2, frameon=False)
    axes.set_aspect("equal")
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")


def plot_rate_distortion(points: Sequence[RateDistortionPoint], path: str | Path) -> None:
    """
    A picture of the points: those on the Pareto front are filled and joined; a dotted line through the best model joins all points
    of its ELBO.
    """
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    front = [point for point in points if point.pareto]
    axes.plot([point.rate for point in front], [point.distortion for point in front], color="tab:blue", linewidth=1)
    for point in points:
        face = "tab:blue" if point.pareto else "none"
        axes.scatter(point.rate, point.distortion, facecolor=face, edgecolor="tab:blue")
        axes.annotate(point.name, (point.rate, point.distortion), xytext=(5, 5), textcoords="offset points", fontsize=8)
    best = min(points, key=lambda point: point.rate + point.distortion)
    axes.axline((best.rate, best.distortion), slope=-1, color="grey", linestyle=":", linewidth=1)
    axes.margins(x=0.2)  # room for the names
    axes.set_xlabel("rate, KL(q ‖ p) (nats per sentence)")
    axes.set_ylabel("distortion, -log p(y|x,z) (nats per sentence)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_frontier(points: Sequence[FrontierPoint], path: str | Path) -> None:
    """
    BLEU of the average and of the best output against self-BLEU, one line a curve, with 95 % intervals; a dashed line is copying.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    for panel, metric, title in zip(figure.subplots(1, 2), ("bleu", "best_bleu"), ("average output", "best of the outputs")):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("self-BLEU of a source's outputs (the lower, the more they differ)")
        panel.set_ylabel("BLEU")
        panel.grid(alpha=0.3)
        _plot_curves(panel, points, metric)
    figure.savefig(path, dpi=120)


def _plot_curves(axes: Axes, points: Sequence[FrontierPoint], metric: str) -> None:
    """The curves, each told by its line, its marker and its name, which stands where there is room."""
    curves: dict[str, list[FrontierPoint]] = {}
    for point in points:
        curves.setdefault(point.curve, []).append(point)
    for point in curves.pop(COPYING, ()):
        height = point.metrics[metric].value
        axes.axhline(height, color="grey", linestyle=(0, (6, 4)), linewidth=1)
        # On the left, from which the curves rise.
        axes.annotate(COPYING, (0.01, height), xycoords=axes.get_yaxis_transform(), va="bottom", fontsize=8, color="dimgrey")
    styles = zip(curves.items(), itertools.cycle("osD^vP"), itertools.cycle(_LINES), itertools.cycle(_COLOURS))
    places, colours = {}, {}
    for (name, curve), marker, line, colour in styles:
        curve = sorted(curve, key=lambda point: point.metrics["self_bleu"].value)
        x, y = (np.array([point.metrics[each] for point in curve]).T for each in ("self_bleu", metric))
        # From the value down to the lower bound and up to the upper one.
        bars = {"xerr": abs(x[1:] - x[0]), "yerr": abs(y[1:] - y[0]), "elinewidth": 0.7, "capsize": 2}
        axes.errorbar(x[0], y[0], **bars, linestyle=line, marker=marker, color=colour, markersize=5, linewidth=1.3)
        places[name], colours[name] = list(zip(x[0], y[0])), colour
    axes.autoscale_view()
    everywhere = axes.transData.transform([each for several in places.values() for each in several])
    for name, own in places.items():
        in_pixels = axes.transData.transform(own)
        place, (right, up), middle = _free_corner(name, in_pixels, everywhere, axes.bbox)
        # The next name keeps away from all of this one.
        everywhere = np.vstack([everywhere, *(np.add(middle, (offset * _half_width(name), 0)) for offset in (-1, 0, 1))])
        axes.annotate(
            name, own[place], xytext=(7 * right, 7 * up), textcoords="offset points", ha="left" if right > 0 else "right",
            va="bottom" if up > 0 else "top", fontsize=9, weight="bold", color=colours[name], zorder=5,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def _half_width(name: str) -> float:
    """Half of what a name takes on the picture, in pixels, about."""
    return 5.5 * len(name)


def _free_corner(name: str, own: np.ndarray, everywhere: np.ndarray, box: BboxBase) -> tuple[int, tuple[int, int], np.ndarray]:
    """
    Which of a curve's `own` places has the most room for its `name` beside it, and on which side: right or left, above or below;
    and where the name then has its middle. All in pixels; the name stays in the `box`.
    """
    half = _half_width(name)
    corners = [(place, side) for place in range(len(own)) for side in itertools.product((1, -1), (1, -1))]
    middles = np.array([own[place] + np.multiply(side, (half + 10, 18)) for place, side in corners])
    # It is wider than it is high: what lies above or below any part of it is as near as that is high.
    aside = np.maximum(abs(middles[:, None, 0] - everywhere[:, 0]) - half, 0)
    room = np.hypot(aside, middles[:, None, 1] - everywhere[:, 1]).min(1)
    inside = (middles[:, 0] - half > box.x0) & (middles[:, 0] + half < box.x1)
    best = int(np.where(inside, room, -1).argmax())
    return *corners[best], middles[best]
