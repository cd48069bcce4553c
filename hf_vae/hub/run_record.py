"""The record of a training run, which its model card is written from, and its metrics in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from transformers import TrainingArguments

from ..training.files import write_whole
from .privacy import is_hub_id, public_argument, public_command, public_value

# Arguments that describe the encoder and the decoder. A card reads these from the model itself.
_ABOUT_PARTS = {
    "encoder_name_or_path", "decoder_name_or_path", "encoder_type", "decoder_type", "hidden_size", "embedding_size",
    "encoder_layers", "decoder_layers", "num_attention_heads", "tokenizer_type", "vocab_size", "latent_size",
}  # fmt: skip


@dataclass
class RunRecord:
    """
    Facts about a training run that a model card cannot infer from the model.

    Args:
        name (`str`): the name that `from_pretrained` loads the model by.
        command (`str`): the command line of the run.
        dataset (`str`): the data for training and evaluation, in words.
        metrics (`dict[str, float]`): by their names in [`~evaluation.metrics.METRICS`]; details and others are left out.
        measured_on (`str`): the number of examples, their split, and how outputs were decoded, in words.
        training (`dict[str, object]`): the settings of the training, by name.
        verdict (`str`): whether z is used, in words; the first line of the card's results.
        baseline (`dict[str, float]`, *optional*): the same metrics of the model without z.
        samples (`list[tuple[str, list[str]]]`): sources with their outputs.
        example (*optional*): the input in the card's code, a value of JSON; by default the source of the first sample.
        base_models (`list[str]`): the Hub ids of the encoder and the decoder; empty if they were trained from scratch.
        dataset_ids (`list[str]`): the Hub ids of the data.
        license (`str`, *optional*): the licence of the weights, if it is known.
        language (`str`, *optional*): the language of the texts.
    """

    name: str
    command: str
    dataset: str
    metrics: Mapping[str, float]
    measured_on: str
    training: Mapping[str, object]
    verdict: str = ""
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
    Makes the record of a run of a training script.

    Args:
        script (`str`): the script's path from the repository's root.
        argv (`Sequence[str]`): the script's arguments.
        model_args ([`~training.arguments.ModelArguments`]): the run's arguments; the record has those that are not the default.
        training_args (`TrainingArguments`): the run's training arguments.
        train_file (`str`, *optional*): a file or a dataset's name; without it the embedded corpus.
        embedded_corpus (`str`): a description of the embedded corpus.
        measured: the other fields of [`RunRecord`].
    """
    settings = {
        each.name: _legible(public_argument(each.name, getattr(model_args, each.name)))
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
        # A folder of this machine is no repository, and the Hub refuses a card that names one.
        base_models=[
            name for name in (model_args.encoder_name_or_path, model_args.decoder_name_or_path) if name and is_hub_id(name)
        ],
        dataset_ids=[train_file] if train_file and is_hub_id(train_file) and not Path(train_file).suffix else [],
        # The licence and the language of other data and weights are not known here.
        license=None if train_file else "apache-2.0",
        language=None if train_file else "en",
        **measured,
    )


def _legible(value: Any) -> Any:
    """A text whose line breaks a table would lose, as it is written in code."""
    return repr(value) if isinstance(value, str) and value != " ".join(value.split()) else value


def _finite(value: Any) -> Any:
    """`value` as JSON can write it: `None` in place of infinity and NaN, at any depth."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if getattr(value, "ndim", None) == 0:
        # JSON cannot write numbers of NumPy and PyTorch.
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_metrics(metrics: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """
    Writes metrics as JSON and returns them as they were written. JSON has neither infinity, which a perplexity may be, nor NaN:
    both become `None`, at any depth.
    """
    finite = _finite(metrics)
    write_whole(path, json.dumps(finite, indent=2) + "\n")
    return finite
