"""A run's figures and examples: in files beside the model, and on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from .model_card import write_model_card
from .run_record import RunRecord, write_metrics


def report_run(
    model: PreTrainedModel, record: RunRecord, references: Sequence[Sequence[str]], directory: str | Path
) -> dict[str, Any]:
    """
    Writes `metrics.json` and the card into the model's directory, and prints the record's samples, each with its own of the
    `references`, and all figures.

    Returns:
        The figures as they were written.
    """
    directory = Path(directory)
    metrics = write_metrics(record.metrics, directory / "metrics.json")
    write_model_card(model, record, directory)
    for (source, outputs), wanted in zip(record.samples, references):
        print(f"\n{source}")
        for output in outputs:
            print(f"  -> {output}")
        for reference in wanted:
            print(f"   = {reference}")
    print("\n" + json.dumps(metrics, indent=2))
    print(f"\nSaved to {directory}")
    return metrics
