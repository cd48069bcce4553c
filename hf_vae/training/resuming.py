"""A training by the Trainer, the main one of a run or a stage beside it: begun, gone on with, or only loaded."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import Trainer, TrainerCallback

from .checkpoints import START, last_whole_checkpoint, remove_checkpoints
from .files import write_whole

# Settings that decide which weights a training ends with.
_DECISIVE = (
    "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "dataloader_drop_last",
    "train_sampling_strategy", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "seed", "data_seed", "bf16", "fp16", "world_size",
)  # fmt: skip


class _HasEndedError(Exception):
    """The checkpoint is the training's last."""


class _NoFurtherStep(TrainerCallback):
    """The Trainer takes a step before it looks whether a checkpoint has had them all."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            raise _HasEndedError


def train(trainer: Trainer, checkpoint: str | Path | None) -> None:
    """
    `trainer.train`, which goes on from `checkpoint`. If that is the end of the training, its weights are loaded and no step is
    taken.

    Raises:
        OSError: the disk is full.
    """
    # In front: what others begin would have no end.
    trainer.callback_handler.callbacks.insert(0, _NoFurtherStep())
    with full_disk_named(cast(str, trainer.args.output_dir)):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except _HasEndedError:
            trainer.is_in_train = False
            if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
                trainer._load_best_model()


def train_stage(trainer: Trainer, model: nn.Module, resume: bool) -> None:
    """
    Trains a stage, whose checkpoints are in a folder of its own. A run that is resumed goes on from the last whole one, if the
    stage started from the very weights, settings and data that it would start from now; else the stage begins anew.

    Args:
        trainer (`Trainer`): the stage's.
        model (`nn.Module`): what it trains, with all that its loss depends on.
        resume (`bool`): whether the run is resumed.
    """
    checkpoint = None
    if trainer.args.save_strategy != "no":
        state = PartialState()
        folder = Path(cast(str, trainer.args.output_dir))
        if state.is_main_process:
            start, known = _start(trainer, model), folder / START
            if resume and known.is_file() and known.read_text(encoding="utf-8") == start:
                checkpoint, _ = last_whole_checkpoint(folder, trainer.args)
            else:
                remove_checkpoints(folder)
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(known, start)
        [checkpoint] = broadcast_object_list([checkpoint])
    train(trainer, checkpoint)


def _start(trainer: Trainer, model: nn.Module) -> str:
    """A digest of all that decides how a stage ends."""
    digest = hashlib.blake2b()
    settings = {name: str(getattr(trainer.args, name, None)) for name in _DECISIVE}
    if trainer.optimizer is not None:
        settings["rates"] = str([group["lr"] for group in trainer.optimizer.param_groups])
    data: Any = trainer.train_dataset
    rows = [len(data), data[0], data[len(data) - 1]] if hasattr(data, "__len__") else []
    configuration = cast(Any, model).config.to_json_string()
    digest.update(json.dumps([settings, rows, configuration], default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def full_disk_named(folder: str | Path) -> Iterator[None]:
    """
    Raises:
        OSError: what is written into `folder` finds no room; says so, for PyTorch and safetensors tell it each in their own way.
    """
    try:
        yield
    except Exception as error:
        told = str(error)
        # A file that PyTorch could not write to its end is found to be at another place than it should be.
        without_room = ("No space left", "os error 28", "inline_container")
        if getattr(error, "errno", None) != errno.ENOSPC and not any(words in told for words in without_room):
            raise
        left = shutil.disk_usage(folder).free
        raise OSError(
            errno.ENOSPC,
            f"No space left on the disk of {folder}: {left / 2**20:.1f} MiB are free, and what was to be written needs more. What "
            "was saved before is whole. Make room, keep fewer checkpoints (`--save_total_limit`), and go on with "
            "`--resume_from_checkpoint last`",
        ) from error
