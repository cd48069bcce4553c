"""A run's metrics and examples: in files beside the model, and on the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from ..evaluation.metrics import metrics_table
from ..hub import RunRecord, write_metrics, write_model_card
from .outcome import output_warnings, verdict
from .task import Measured

logger = logging.get_logger(__name__)


def draw_pictures(directory: str | Path, pictures: Mapping[str, Callable[[Path], object]]) -> None:
    """Draws each picture into its file in `directory`. One that cannot be drawn is left out, and a warning says why."""
    for name, draw in pictures.items():
        try:
            draw(Path(directory) / name)
        except Exception as error:
            # A plotting library, its fonts or a full disk: nothing of it is worth a run.
            logger.warning(f"{name} is not drawn: {error}")


def write_report(
    model: PreTrainedModel, record: RunRecord, directory: str | Path, pictures: Mapping[str, Callable[[Path], object]]
) -> dict[str, Any]:
    """
    Writes `metrics.json` into the model's directory, then the card, then the `pictures`, which the card shows if they could be
    drawn.

    Returns:
        The metrics as they were written.
    """
    metrics = write_metrics(record.metrics, Path(directory) / "metrics.json")
    write_model_card(model, record, directory)
    draw_pictures(directory, pictures)
    write_model_card(model, record, directory)
    return metrics


def report_run(model: PreTrainedModel, record: RunRecord, measured: Measured, directory: str | Path) -> dict[str, Any]:
    """
    [`write_report`], and prints samples, metrics and, last of all, whether z is used.

    Returns:
        The metrics as they were written.
    """
    metrics = write_report(model, record, directory, measured.pictures)
    without_z = metrics.get("baseline")
    print(measured.printed)
    print(f"\n{metrics_table(metrics, **({'without_z': without_z} if without_z else {}))}")
    print(f"\nSaved to {directory}: the model, its card (README.md), metrics.json and pictures.")
    print("", *output_warnings(measured.outputs), verdict(measured.metrics), sep="\n")
    return metrics


def show_line(kind: str, text: str) -> str:
    """A sample as the terminal shows it: what it is, and the text."""
    return f"  {kind:<9}  {text or '(empty)'}"
