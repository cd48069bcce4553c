"""
Quality against diversity of several outputs for one source. Each way of decoding is a curve: that of a model with z, whose outputs
differ by z, and those of one without, whose outputs differ by sampling or are beams.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from transformers import set_seed

from ..checks import check_count
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .bootstrap import Estimate, bootstrapped_metrics
from .embedder import TextEmbedder, source_cosines
from .generation import generate_texts
from .text_lists import check_texts

# By its name the options of `generate_texts`, and so of `generate`, that each point of a curve is decoded with.
Curves = Mapping[str, Sequence[Mapping[str, Any]]]

COPYING = "copying the source"
# With more than one beam a better text is found for each z, and so z may differ more at the same quality.
LATENT_CURVES: dict[str, list[dict[str, Any]]] = {
    name: [{"do_sample": False, "num_beams": beams, "latent_temperature": each} for each in temperatures]
    for name, beams, temperatures in (
        ("z, greedy", 1, (0.5, 0.7, 0.85, 1.0, 1.2, 1.5)),
        ("z, 4 beams each", 4, (0.7, 1.0, 1.3, 1.6)),
    )
}


def baseline_curves(num_outputs: int = 10) -> dict[str, list[dict[str, Any]]]:
    """
    How a model without z writes several outputs: sampling at several temperatures, from nuclei of several sizes, sampling inside
    four beams for each output, and as many beams as outputs. Diverse beam search is not among them: transformers runs it by code
    that it fetches from the Hub, which knows of no z.
    """
    shared = {"latent_temperature": 0.0, "latents_per_text": 1}
    # A decoder's own defaults may say otherwise.
    sampled = {**shared, "do_sample": True, "num_beams": 1, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return {
        "sampling": [{**sampled, "temperature": each} for each in (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)],
        "nucleus": [{**sampled, "top_p": each} for each in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)],
        # Beams of its own for each output, as z has them; their likelihood counts, as it does there.
        "sampling, 4 beams each": [
            {**sampled, "num_beams": 4, "latents_per_text": num_outputs, "temperature": each} for each in (0.4, 0.7, 1.0, 1.3)
        ],
        "beams": [{**shared, "do_sample": False, "num_beams": num_outputs}],
    }


@dataclass(frozen=True)
class FrontierPoint:
    """
    Args:
        curve (`str`): the way of decoding.
        options (`dict`): those of [`generate_texts`].
        metrics (`dict[str, Estimate]`): those of [`bootstrapped_metrics`], and `source_cosine` with an embedder.
        seconds (`float`): of decoding, for each source.
    """

    curve: str
    options: Mapping[str, Any]
    metrics: Mapping[str, Estimate]
    seconds: float = 0.0


def frontier(
    model: VAEModel,
    processor: VAEProcessor,
    sources: Sequence[Any],
    references: Sequence[Sequence[str]],
    curves: Curves = LATENT_CURVES,
    num_outputs: int = 10,
    embedder: TextEmbedder | None = None,
    tokenize: str | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    batch_size: int = 50,
    max_length: int | None = None,
    **generation_options,
) -> list[FrontierPoint]:
    """
    Several outputs for each source, decoded in several ways, and how good and how different they are.

    Args:
        model ([`VAEModel`]): a conditional one, with z or trained with z = 0. The prior of the latter has its mean there, as in
            what `--with_baseline` saves.
        processor ([`VAEProcessor`]): its processor.
        sources (`list`): as the processor takes them.
        references (`list[list[str]]`): one or more for each source.
        curves (`dict[str, list[dict]]`): by the name of each curve the options of [`generate_texts`] for each of its points:
            [`LATENT_CURVES`] of a model with z, [`baseline_curves`] of one without, or others.
        num_outputs (`int`, defaults to 10): outputs for each source.
        embedder ([`TextEmbedder`], *optional*): whose cosine says how much of the source an output keeps; sources are then texts.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, for texts without spaces between words.
        num_resamples (`int`, defaults to 1000): of the sources, for the intervals.
        seed (`int`, defaults to 0): of z, of sampling, which also depends on the batches, and of the resamples, which are the same
            for all points.
        batch_size (`int`, defaults to 50): sources at once.
        max_length (`int`, *optional*): truncates the sources.
        generation_options: of every point, such as `max_new_tokens`.

    Returns:
        The points, curve by curve.

    Raises:
        ValueError: as [`bootstrapped_metrics`]; sources and references differ in number; or an embedder for sources that are no
            texts.
    """
    check_count("num_outputs", num_outputs, least=2)
    if len(sources) != len(references):
        raise ValueError(f"{len(sources)} sources and {len(references)} lists of references: they must be as many.")
    if embedder is not None:
        check_texts("row", "sources", [[source] for source in sources])
    common: dict[str, Any] = {"num_return_sequences": num_outputs, "seed": seed, "batch_size": batch_size, "max_length": max_length}
    # The first call on a device takes longer than those after it.
    generate_texts(model, processor, sources[:1], **common, **generation_options)
    points = []
    for curve, options in ((curve, options) for curve, several in curves.items() for options in several):
        set_seed(seed)
        start = time.perf_counter()
        outputs = generate_texts(model, processor, sources, **common, **{**generation_options, **options})
        seconds = (time.perf_counter() - start) / len(sources)
        cosines = {} if embedder is None else {"source_cosine": source_cosines(embedder, sources, outputs)}
        metrics = bootstrapped_metrics(outputs, references, tokenize, cosines, num_resamples, seed)
        points.append(FrontierPoint(curve, dict(options), metrics, seconds))
    return points


def copying(
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    num_outputs: int = 10,
    tokenize: str | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> FrontierPoint:
    """
    The point of repeating the source, which every other one must be read beside. Arguments are those of [`frontier`].

    Raises:
        ValueError: as [`bootstrapped_metrics`].
    """
    outputs = [[source] * num_outputs for source in sources]
    return FrontierPoint(COPYING, {}, bootstrapped_metrics(outputs, references, tokenize, None, num_resamples, seed))


def above(curve: Sequence[FrontierPoint], others: Sequence[FrontierPoint], metric: str = "bleu") -> list[tuple[float, float]]:
    """
    At which self-BLEU a curve lies above every other one. Between neighbouring points a curve is a straight line; beyond its last
    ones it is not known, and nothing is said.

    Args:
        curve (`list[FrontierPoint]`): the points of one curve.
        others (`list[FrontierPoint]`): those of the curves to compare it with, each by its name.
        metric (`str`, defaults to `"bleu"`): of quality, the higher the better.

    Returns:
        Intervals of self-BLEU, rising. In each the curve lies above all others that are known there, and one is.
    """
    line = _line(curve, metric)
    rivals = [_line([each for each in others if each.curve == name], metric) for name in {each.curve: None for each in others}]

    def lead(rival: tuple[np.ndarray, np.ndarray], at: float) -> float:
        """How far the curve is above `rival`; not a number if one of them is not known."""
        own, its = (np.interp(at, *each, left=np.nan, right=np.nan) for each in (line, rival))
        return float(own - its)

    def is_above(at: float) -> bool:
        leads = [each for each in (lead(rival, at) for rival in rivals) if not np.isnan(each)]
        return bool(leads) and min(leads) > 0

    ends = sorted({float(at) for each in (line, *rivals) for at in each[0]})
    crossings = []
    for left, right in pairwise(ends):
        for rival in rivals:
            first, last = lead(rival, left), lead(rival, right)
            if first * last < 0:
                crossings.append(left + (right - left) * first / (first - last))
    found: list[tuple[float, float]] = []
    for left, right in pairwise(sorted({*ends, *crossings})):
        if not is_above((left + right) / 2):
            continue
        goes_on = found and found[-1][1] == left and is_above(left)
        found.append((found.pop()[0] if goes_on else left, right))
    return found


def _line(points: Sequence[FrontierPoint], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Self-BLEU, rising, and the `metric` there: of points of the same self-BLEU the best."""
    best: dict[float, float] = {}
    for point in sorted(points, key=lambda point: point.metrics[metric].value):
        best[point.metrics["self_bleu"].value] = point.metrics[metric].value
    rising = sorted(best.items())
    return np.array([at for at, _ in rising]), np.array([value for _, value in rising])


def settings_of(points: Sequence[FrontierPoint]) -> list[str]:
    """Of each point in words what tells it from the others of its curve, such as `temperature 0.7`."""
    of_curve: dict[str, list[FrontierPoint]] = {}
    for point in points:
        of_curve.setdefault(point.curve, []).append(point)

    def differs(point: FrontierPoint, name: str) -> bool:
        return any(each.options.get(name) != point.options[name] for each in of_curve[point.curve])

    return [", ".join(f"{name} {point.options[name]}" for name in point.options if differs(point, name)) for point in points]


def frontier_table(points: Sequence[FrontierPoint]) -> str:
    """The points as a Markdown table, BLEU and self-BLEU with their 95 % intervals."""
    columns = {"self-BLEU": "self_bleu", "BLEU, average": "bleu", "BLEU, best": "best_bleu", "chrF, average": "chrf"}
    columns |= {"chrF, best": "best_chrf", "distinct-2": "distinct_2", "cosine": "source_cosine"}
    columns = {title: name for title, name in columns.items() if any(name in point.metrics for point in points)}
    rows = [["decoding", "setting", *columns, "s a source"], ["---", "---", *["---:"] * (len(columns) + 1)]]
    for point, setting in zip(points, settings_of(points)):
        rows.append([point.curve, setting, *(_shown(point, name) for name in columns.values()), f"{point.seconds:.3f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(point: FrontierPoint, name: str) -> str:
    if name not in point.metrics:
        return ""
    value, low, high = point.metrics[name]
    if name in ("distinct_2", "source_cosine"):
        return f"{value:.3f}"
    return f"{value:.1f} ({low:.1f}-{high:.1f})" if name.endswith("bleu") else f"{value:.1f}"
