"""The processes of a command: how many there are, what they cannot do together, and the cores that each one uses."""

from __future__ import annotations

import argparse
import os
from typing import Any

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import TrainingArguments

from ..training.sharding import refuse_copies


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


def _launcher() -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of the `accelerate launch` that started this process; both empty if none did."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return [], {}
    try:
        parent = psutil.Process().parent()
        words, environment = parent.cmdline(), parent.environ()
    except (psutil.Error, AttributeError):
        return [], {}
    return (words, environment) if "launch" in words and any("accelerate" in word for word in words) else ([], {})


def _threads_were_chosen() -> bool:
    """Whether the user said how many threads there are to be. This process has a number in any case, by its launcher."""
    words, environment = _launcher()
    named = any(word.replace("-", "_").startswith("__num_cpu_threads_per_process") for word in words)
    return named or "OMP_NUM_THREADS" in environment


def _processes_asked_for() -> int:
    """The `--num_processes` of the `accelerate launch` that started this process: it hands that on to nobody."""
    words, _ = _launcher()
    if not words:
        return 1
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num_processes", "--num-processes", type=int, default=1)
    return parser.parse_known_args(words[words.index("launch") + 1 :])[0].num_processes


def use_all_cores(state: PartialState) -> None:
    """
    `accelerate launch` gives its only process on a machine without an accelerator one thread. Give it the others back, unless the
    user has said how many threads there are to be.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and state.num_processes == 1 and state.device.type == "cpu" and not _threads_were_chosen():
        # As many as this process may use, if the system says so.
        affinity = getattr(os, "sched_getaffinity", None)
        torch.set_num_threads(len(affinity(0)) if affinity else os.cpu_count() or 1)
