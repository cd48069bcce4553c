"""A run's figures and examples: in files beside the model, and on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from .model_card import write_model_card
from .run_record import RunRecord, write_metrics

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


def report_run(
    model: PreTrainedModel,
    record: RunRecord,
    references: Sequence[Sequence[str]],
    directory: str | Path,
    pictures: Mapping[str, Callable[[Path], object]] | None = None,
) -> dict[str, Any]:
    """
    [`write_report`], and prints the record's samples, each with its own of the `references`, and all metrics.

    Returns:
        The metrics as they were written.
    """
    metrics = write_report(model, record, directory, pictures or {})
    for (source, outputs), wanted in zip(record.samples, references):
        print(f"\n{source}")
        for output in outputs:
            print(f"  -> {output}")
        for reference in wanted:
            print(f"   = {reference}")
    print("\n" + json.dumps(metrics, indent=2))
    print(f"\nSaved to {directory}")
    return metrics
