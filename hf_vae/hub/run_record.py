"""What is told of a training run: its record, and its figures in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from transformers import TrainingArguments

from ..training.files import write_whole
from .privacy import is_hub_id, public_command, public_value

# Arguments that say what the parts are and how big; a card tells these of the model itself.
_ABOUT_PARTS = {
    "encoder_name_or_path", "decoder_name_or_path", "encoder_type", "decoder_type", "hidden_size", "embedding_size",
    "encoder_layers", "decoder_layers", "num_attention_heads", "tokenizer_type", "vocab_size", "latent_size",
}  # fmt: skip


@dataclass
class RunRecord:
    """
    What a card tells of a run, nothing of which it can find out by itself.

    Args:
        name (`str`): what `from_pretrained` loads it by.
        command (`str`): the command line that made it.
        dataset (`str`): what it was trained and measured on, in words.
        metrics (`dict[str, float]`): by their names in [`~evaluation.metrics.METRICS`]; details and others are left out.
        measured_on (`str`): how many examples of which split, and how they were decoded.
        training (`dict[str, object]`): settings worth knowing, by name.
        baseline (`dict[str, float]`, *optional*): the same metrics of the model without z.
        samples (`list[tuple[str, list[str]]]`): sources with outputs.
        example (*optional*): what the card's code gives the processor, as JSON has it; the first sample's source by default.
        base_models (`list[str]`): Hub ids of the parts; none where they were trained from nothing.
        dataset_ids (`list[str]`): Hub ids of the data.
        license (`str`, *optional*): the weights' licence, where it is known.
        language (`str`, *optional*): of the text.
    """

    name: str
    command: str
    dataset: str
    metrics: Mapping[str, float]
    measured_on: str
    training: Mapping[str, object]
    baseline: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[tuple[str, Sequence[str]]] = ()
    example: Any = None
    base_models: Sequence[str] = ()
    dataset_ids: Sequence[str] = ()
    license: str | None = None
    language: str | None = None


def run_record(
    script: str,
    argv: Sequence[str],
    model_args: Any,
    training_args: TrainingArguments,
    train_file: str | None,
    embedded_corpus: str,
    **measured,
) -> RunRecord:
    """
    The record of one run of an example script.

    Args:
        script (`str`): its path from the repository's root.
        argv (`Sequence[str]`): its arguments.
        model_args ([`~training.arguments.ModelArguments`]): what differs from the defaults is told.
        training_args (`TrainingArguments`): the run's.
        train_file (`str`, *optional*): a file, a dataset's name, or none for the embedded corpus.
        embedded_corpus (`str`): what that is, in words.
        measured: the other fields of [`RunRecord`].
    """
    settings = {
        each.name: public_value(getattr(model_args, each.name))
        for each in fields(model_args)
        if each.name not in _ABOUT_PARTS and getattr(model_args, each.name) != getattr(type(model_args)(), each.name)
    }
    counted = (
        {"optimiser steps": training_args.max_steps} if training_args.max_steps > 0 else {"epochs": training_args.num_train_epochs}
    )
    settings |= counted | {
        "batch size per device": training_args.per_device_train_batch_size,
        "learning rate": training_args.learning_rate,
        "seed": training_args.seed,
    }
    return RunRecord(
        name=Path(cast(str, training_args.output_dir)).resolve().name,
        command=public_command(script, argv),
        dataset=Path(public_value(train_file)).name if train_file else embedded_corpus,
        training=settings,
        # A folder of this machine is nobody else's repository, and the Hub refuses a card that names one.
        base_models=[
            name for name in (model_args.encoder_name_or_path, model_args.decoder_name_or_path) if name and is_hub_id(name)
        ],
        dataset_ids=[train_file] if train_file and is_hub_id(train_file) and not Path(train_file).suffix else [],
        # Of other data and other weights only their owners can say.
        license=None if train_file else "apache-2.0",
        language=None if train_file else "en",
        **measured,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if getattr(value, "ndim", None) == 0:
        # A number of NumPy or PyTorch, which JSON does not know either.
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_metrics(metrics: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """
    Writes figures as JSON. JSON knows neither infinity, which a perplexity may be, nor NaN: they become `None` at any depth, in
    what is returned too.
    """
    finite = _finite(metrics)
    write_whole(path, json.dumps(finite, indent=2) + "\n")
    return finite
