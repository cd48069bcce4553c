"""Training whose weights live in pieces on several processes: FSDP and DeepSpeed."""

from __future__ import annotations

import argparse
import os
from typing import Any

import psutil
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import nn
from transformers import TrainingArguments

KINDS = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)


def in_pieces() -> bool:
    """Whether the Trainer that has begun keeps the weights in pieces."""
    return AcceleratorState().distributed_type in KINDS


def refuse_sharding(name: str) -> None:
    """
    For callbacks that read or change whole weights, once the Trainer has begun.

    Raises:
        ValueError: DeepSpeed, FSDP or Megatron hold the weights and gradients; `name` is who needs them whole.
    """
    if in_pieces():
        raise ValueError(
            f"{name} needs whole weights between two steps, and {AcceleratorState().distributed_type.value} keeps them in "
            "pieces: leave it out, or train with one process or plain data parallelism (DDP)."
        )


def refuse_copies(training_args: TrainingArguments) -> None:
    """Raises a `ValueError` where the Trainer would use `nn.DataParallel`, whose copies of a model have no parameters."""
    if training_args.n_gpu > 1:
        raise ValueError(
            f"One process has {training_args.n_gpu} GPUs, which the Trainer would share out with `nn.DataParallel`: its copies of "
            "a model have no parameters of their own. Start one process for each with `accelerate launch`, or show it one GPU only "
            "(`CUDA_VISIBLE_DEVICES`)."
        )


def check_processes(training_args: TrainingArguments, whole: dict[str, Any]) -> None:
    """
    Refuses, before anything is computed or written, what several processes cannot do.

    Args:
        training_args (`TrainingArguments`): the run's.
        whole (`dict`): arguments, by name, whose work needs whole weights, and what was said of them.

    Raises:
        ValueError: processes that do not know of each other or were not started, one that has several GPUs, or such an argument
            beside FSDP or DeepSpeed.
    """
    refuse_copies(training_args)
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started > 1 and training_args.world_size == 1:
        raise ValueError(
            f"{started} processes were started, and each would train by itself and write over the others: there is no accelerator "
            "that they share, so add `--use_cpu`."
        )
    wanted = _processes_asked_for()
    if wanted > 1 and training_args.world_size == 1:
        raise ValueError(
            f"`accelerate launch --num_processes {wanted}` has started one process. On CPUs it starts several only with a "
            "configuration file that says so: add `--config_file examples/accelerate_configs/multi_cpu.yaml`, or leave "
            "`--num_processes` out."
        )
    sharded = training_args.fsdp or training_args.deepspeed
    if sharded or any(parse_flag_from_env(f"ACCELERATE_USE_{kind}") for kind in ("FSDP", "DEEPSPEED")):
        for name, value in whole.items():
            if value:
                raise ValueError(
                    f"`--{name}` is {value}, which needs whole weights; FSDP and DeepSpeed keep them in pieces. Leave it out (or "
                    "0), or train with plain data parallelism (DDP)."
                )


def _processes_asked_for() -> int:
    """The `--num_processes` of the `accelerate launch` that started this process: it hands that on to nobody."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return 1
    try:
        words = psutil.Process().parent().cmdline()
    except (psutil.Error, AttributeError):
        return 1
    if "launch" not in words or not any("accelerate" in word for word in words):
        return 1
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num_processes", "--num-processes", type=int, default=1)
    return parser.parse_known_args(words[words.index("launch") + 1 :])[0].num_processes


def prepare_for_sharding(model: nn.Module) -> None:
    """
    Tells accelerate's FSDP2 what it would get wrong of a model with an embedding in each half; call it before the Trainer begins.
    It gives the input embedding and the output layer a group of their own, which must not share a weight with another one: a
    decoder's that predicts with its embeddings' own weights does, and so does the embedding inside a class that `device_map` is
    not to split.

    Args:
        model ([`VAEModel`]): of any of the family.
    """
    vae: Any = model
    embedding = vae.get_input_embeddings()
    holders = {type(module).__name__ for module in vae.modules() if embedding in set(module.children())}
    vae._no_split_modules = type(vae._no_split_modules)(name for name in vae._no_split_modules if name not in holders)
    if vae.get_output_embeddings().weight is vae.decoder.get_input_embeddings().weight:
        # Both then stay with what no layer has, in the last group.
        vae.get_output_embeddings = lambda: None
