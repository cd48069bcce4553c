"""
Rate and distortion of several models side by side (Alemi et al. 2018). One trained model is one point: its rate is KL(q ‖ p), its
distortion -log p(y|x,z) with z from q, both in nats per sentence, their sum the negative ELBO. A curve needs models trained with
several weights of the KL, or thresholds of free bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RateDistortionPoint:
    """
    Args:
        name (`str`): the model's.
        rate, distortion (`float`): nats per sentence.
        pareto (`bool`): no other model has less of one without having more of the other.
    """

    name: str
    rate: float
    distortion: float
    pareto: bool = False


def load_metrics(path: str | Path) -> dict[str, float]:
    """
    A model's metrics, as `examples/evaluate.py --output_file` and the training scripts save them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON, or no finite `kl` and `reconstruction` in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path} of metrics to compare with.")
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); give the metrics of a model that was measured.") from error
    _rate_and_distortion(str(path), metrics)
    return metrics


def _rate_and_distortion(name: str, metrics: Mapping[str, float]) -> tuple[float, float]:
    for key in ("kl", "reconstruction"):
        value = metrics.get(key) if isinstance(metrics, Mapping) else None
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"The metrics of {name!r} hold no finite {key!r} (found {value!r}); measure the model first.")
    return metrics["kl"], metrics["reconstruction"]


def rate_distortion_points(models: Mapping[str, Mapping[str, float] | str | Path]) -> list[RateDistortionPoint]:
    """
    One point for each model, by rising rate.

    Args:
        models (`dict`): by name, metrics with `kl` and `reconstruction`, or the JSON file that holds them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no JSON, metrics without those two or with one that is not finite, or no model.
    """
    if not models:
        raise ValueError("`models` is empty; a point needs a model's metrics.")
    pairs = {}
    for name, metrics in models.items():
        pairs[name] = _rate_and_distortion(name, load_metrics(metrics) if isinstance(metrics, (str, Path)) else metrics)

    def beaten(pair):
        return any(other != pair and other[0] <= pair[0] and other[1] <= pair[1] for other in pairs.values())

    points = [RateDistortionPoint(name, *pair, pareto=not beaten(pair)) for name, pair in pairs.items()]
    return sorted(points, key=lambda point: (point.rate, point.distortion))


def rate_distortion_table(points: Sequence[RateDistortionPoint]) -> str:
    """The points as a Markdown table; a star marks those that no other beats in both."""
    rows = ["| model | rate (KL) | distortion | -ELBO | Pareto |", "|---|---:|---:|---:|:---:|"]
    for point in points:
        nats = f"{point.rate:.2f} | {point.distortion:.2f} | {point.rate + point.distortion:.2f}"
        rows.append(f"| {point.name} | {nats} | {'*' if point.pareto else ''} |")
    return "\n".join(rows)
