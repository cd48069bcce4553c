"""What the commands refuse before anything is computed or written. What a technique refuses stands in its own file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any, cast

from transformers import TrainingArguments

from ..checks import check_choice, check_number, check_seed
from ..configuration_vae import PARTS, default_pooling
from ..latent_spread import LATENT_SPREADS
from ..options.model import ModelArguments
from ..options.report import ReportArguments
from ..part_files import part_config, settle_pooling
from ..training.checkpoints import check_resume
from ..training.techniques import check_techniques
from .lora import parse_lora

DTYPES = ("auto", "float32", "bfloat16", "float16")
# Files that tell what else a directory holds, beside which a model of ours would be loaded wrongly.
_OTHER_MODELS = {
    "adapter_config.json": "an adapter",
    "modules.json": "a sentence-transformers model",
    "model_index.json": "a diffusers pipeline",
}


def run_steps(training_args: TrainingArguments, train: Any) -> int:
    """The optimiser steps of a run over the rows of `train`, whose number matters only if the run counts epochs."""
    if training_args.max_steps > 0:
        return training_args.max_steps
    batches = len(train) / (training_args.train_batch_size * training_args.world_size)
    batches = math.floor(batches) if training_args.dataloader_drop_last else math.ceil(batches)
    in_an_epoch = max(math.ceil(batches / training_args.gradient_accumulation_steps), 1)
    return math.ceil(training_args.num_train_epochs * in_an_epoch)


def check_rows(model_args: ModelArguments, training_args: TrainingArguments, train: Sized) -> None:
    """
    Refuses what the training set is too small for, before anything is trained.

    Raises:
        ValueError: names the argument.
    """
    batch = training_args.train_batch_size * training_args.world_size
    if training_args.dataloader_drop_last and len(train) < batch:
        raise ValueError(
            f"The training set has {len(train)} row(s), a batch {batch}, and `--dataloader_drop_last` drops what makes no batch: "
            "lower `--per_device_train_batch_size`."
        )
    reset, steps = model_args.decoder_reset_step, run_steps(training_args, train)
    if reset is not None and steps <= reset:
        raise ValueError(f"`--decoder_reset_step` is {reset}, and training ends at step {steps}.")


def check_arguments(model_args: ModelArguments, training_args: TrainingArguments, has_data: bool, model_type: str) -> None:
    """
    Refuses what no training command can do, before anything is computed or written.

    Args:
        has_data (`bool`): whether the user brought data, as pretrained parts need.
        model_type (`str`): of the model that is to be trained, which may overwrite another of its type.

    Raises:
        ValueError: names the argument.
    """
    check_draws(vars(training_args))
    check_parts(model_args, has_data)
    check_resume(training_args)
    if model_args.batch_norm_gamma is not None and not training_args.dataloader_drop_last:
        raise ValueError("`--batch_norm_gamma` needs `--dataloader_drop_last`: a last batch of one row has no spread to normalise.")
    if model_args.batch_norm_gamma is not None and training_args.per_device_train_batch_size < 2:
        raise ValueError("`--batch_norm_gamma` needs a `--per_device_train_batch_size` of at least 2: one row has no spread.")
    check_techniques(model_args, training_args)
    check_output_dir(cast(str, training_args.output_dir), model_type)


def check_parts(model_args: ModelArguments, has_data: bool) -> None:
    """Raises a `ValueError` for an encoder and a decoder that cannot be had, frozen or adapted in this way."""
    pretrained = bool(model_args.encoder_name_or_path)
    if model_args.decoder_name_or_path and not pretrained:
        raise ValueError(
            "`--decoder_name_or_path` is given without `--encoder_name_or_path`: give both, an encoder alone in front of a small "
            "decoder from scratch, or neither to train both from scratch."
        )
    if pretrained and not model_args.decoder_name_or_path:
        check_encoder_alone(model_args)
    if pretrained and not has_data:
        raise ValueError("Pretrained parts need `--train_file`; the embedded grammar is for models trained from scratch.")
    if model_args.save_trained_only:
        if not (model_args.freeze_encoder or model_args.freeze_decoder) or not pretrained:
            raise ValueError("`--save_trained_only` needs a pretrained part that is frozen: add `--freeze_decoder`, for instance.")
        if model_args.lora:
            raise ValueError("`--save_trained_only` cannot leave out a part that adapters are merged into; leave `--lora` out.")
    if "task_type" in parse_lora(model_args.lora):
        raise ValueError("`--lora` names a `task_type`; leave it out: peft's task types expect arguments of other models.")
    if model_args.recurrent_dropout and (pretrained or "lstm" not in (model_args.encoder_type, model_args.decoder_type)):
        raise ValueError(
            f"`--recurrent_dropout` is {model_args.recurrent_dropout}, and neither the encoder nor the decoder is an LSTM from "
            "scratch: leave it out, or set `recurrent_dropout` in the configuration of the LSTM that you load."
        )


def check_encoder_alone(model_args: ModelArguments) -> None:
    """
    Raises a `ValueError` if the decoder from scratch is frozen, the encoder in front of it learns at the decoder's rate, or
    there is nothing left for adapters.
    """
    if model_args.freeze_decoder:
        raise ValueError("`--freeze_decoder` is set, and the decoder starts from scratch: name a pretrained one, or leave it out.")
    if not (model_args.freeze_encoder or model_args.new_weights_learning_rate):
        raise ValueError(
            "The encoder is pretrained and the decoder starts from scratch. At the decoder's learning rate the encoder would "
            "forget what it knows: add `--freeze_encoder`, or a small `--learning_rate` and the decoder's as "
            "`--new_weights_learning_rate`."
        )
    if model_args.lora and model_args.freeze_encoder:
        raise ValueError(
            "`--lora` puts adapters on what is pretrained. The encoder is frozen and the decoder starts from scratch, so there is "
            "nothing to put them on: leave it out."
        )


def check_part_files(model_args: ModelArguments) -> None:
    """
    Looks at what lies in the folders or repositories of pretrained parts, before data is read.

    Raises:
        OSError: a part is not there.
        ValueError: a part that cannot serve.
    """
    if not model_args.encoder_name_or_path:
        return
    for part in PARTS:
        name = getattr(model_args, f"{part}_name_or_path")
        if name:
            is_frozen = model_args.save_trained_only and getattr(model_args, f"freeze_{part}")
            part_config(part, name, is_trained=not is_frozen)
    settle_pooling(model_args.encoder_name_or_path, model_args.pooling or default_pooling(model_args.num_latents))


def check_least(given: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """
    Raises a `ValueError` that names the first of the arguments `given`, by name, that is smaller than its least value; `None`
    passes.
    """
    for name, smallest in least.items():
        if given[name] is not None and given[name] < smallest:
            raise ValueError(f"`--{name}` is {given[name]}; it must be at least {smallest}.")


def check_draws(given: Mapping[str, Any]) -> None:
    """
    Raises a `ValueError` that names the first of the arguments `given`, by name, of which nothing could be drawn: a seed, or
    the temperature or the spread of z. What is not there or `None` passes.
    """
    for name in ("seed", "data_seed"):
        if given.get(name) is not None:
            check_seed(f"--{name}", given[name])
    if given.get("latent_temperature") is not None:
        check_number("--latent_temperature", given["latent_temperature"], least=0)
    if given.get("latent_spread") is not None:
        check_choice("--latent_spread", given["latent_spread"], tuple(LATENT_SPREADS))


def check_report(report_args: ReportArguments) -> None:
    """Raises a `ValueError` for a report on nothing to tell apart."""
    check_least(vars(report_args), {"collapse_report_samples": 0})
    if report_args.collapse_report_samples == 1:
        raise ValueError("`--collapse_report_samples` is 1; what z tells apart needs at least two, and 0 leaves the report out.")


def check_streaming(data_args: Any, training_args: TrainingArguments, model_args: ModelArguments) -> None:
    """Raises a `ValueError` for what [`SplitArguments`] cannot do."""
    if not data_args.streaming:
        return
    if model_args.cache_encoder is not None:
        raise ValueError(
            "`--cache_encoder` encodes the training set once, and `--streaming` has no whole set: leave one of them out."
        )
    if data_args.train_file is None:
        raise ValueError("`--streaming` reads data of your own: add a `--train_file`.")
    if training_args.max_steps < 1:
        raise ValueError("`--streaming` does not know how many rows there are: say how long to train with `--max_steps`.")
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if getattr(training_args, name) == "epoch":
            raise ValueError(f"`--{name}` is epoch, and a stream has no end: choose steps.")
    if data_args.max_train_samples is not None:
        raise ValueError("`--max_train_samples` counts rows that were read before; with `--streaming`, `--max_steps` ends it.")
    check_least(vars(data_args), {"shuffle_buffer": 1, "first_rows": 2})


def check_held_out(data_args: Any) -> None:
    """Raises a `ValueError` for training data that is none, is not that of the recipe, or is without any to measure on."""
    if data_args.own_data and not data_args.train_file:
        raise ValueError("This recipe is for your own data: add `--train_file` and `--validation_file`.")
    check_least(vars(data_args), {"max_train_samples": 1})
    if data_args.train_file and not (data_args.validation_file or data_args.test_file):
        raise ValueError("`--train_file` needs a `--validation_file` or a `--test_file`: metrics are measured on held-out text.")


def check_output_dir(output_dir: str, model_type: str) -> None:
    """
    Refuses to write a model of `model_type` where something else lives.

    Raises:
        ValueError: names what was found.
    """
    directory = Path(output_dir)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"`--output_dir` {output_dir} is a file; choose a directory.")
    for name, what in _OTHER_MODELS.items():
        if (directory / name).exists():
            raise ValueError(f"`--output_dir` {output_dir} holds {what} ({name}); choose another directory.")
    config_file = directory / "config.json"
    if config_file.exists():
        try:
            found = json.loads(config_file.read_text(encoding="utf-8"))["model_type"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"`--output_dir` {output_dir} holds a config.json that is no transformers model's; choose another directory."
            ) from error
        if found != model_type:
            raise ValueError(f"`--output_dir` {output_dir} holds a model of type {found!r}; choose another directory.")


def check_unfinished(training_args: TrainingArguments, overwrite: bool) -> None:
    """
    Raises a `ValueError` if the run would train anew where a finished model lies. A run that is resumed goes on there, and what a
    training that broke off has left is no model.
    """
    directory = Path(cast(str, training_args.output_dir))
    is_model = (directory / "config.json").is_file() and any(directory.glob("model*.safetensors"))
    if is_model and not overwrite and training_args.resume_from_checkpoint is None:
        raise ValueError(
            f"`--output_dir` {directory} holds a finished model: choose another directory, or add `--overwrite_output_dir` to "
            "replace it."
        )


def check_model_name(name: str, reads_file: bool = False) -> None:
    """
    Raises a `FileNotFoundError` if the `name` of a model can only be that of a folder, and there is none; a `ValueError` if it is
    empty, or that of a file. `reads_file`: whether the command has the option `--file`.
    """
    if not name.strip():
        raise ValueError(f"The model's name is {name!r}: name a folder or a Hub id.")
    path = Path(name)
    if path.is_file():
        texts = ", and a file of texts with `--file`" if reads_file else ""
        raise ValueError(f"{name} is a file, and a model is a folder: name that{texts}.")
    is_folder = path.is_absolute() or name.startswith(".") or path.parts[0] == "outputs" or len(path.parts) > 2
    if is_folder and not path.is_dir():
        raise FileNotFoundError(f"There is no folder {name}: train a model into it, or name another one.")


def check_writable(name: str, file: str | None) -> None:
    """Raises a `ValueError` if the argument `name` gives a `file` that cannot be written where it is to lie."""
    if not file:
        return
    path = Path(file)
    if path.is_dir():
        raise ValueError(f"`--{name}` {path} is a directory; name a file in it.")
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        raise ValueError(f"`--{name}` {path} cannot be written: {folder} is a file; choose another path.")


def check_evaluation(training_args: TrainingArguments) -> None:
    """Raises a `ValueError` for arguments with which the Trainer does not hand the model's outputs to `compute_metrics`."""
    for name in ("prediction_loss_only", "eval_use_gather_object"):
        if getattr(training_args, name):
            raise ValueError(
                f"`--{name}` keeps the model's outputs from the metrics of an evaluation: leave it out, or turn evaluation off "
                "(`--eval_strategy no`)."
            )
