"""Which checkpoint a run goes on from: the last one that is whole, and of this run."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from .checkpointed import CheckpointedState
from .divergence import DIVERGED
from .files import remove, write_whole

logger = logging.get_logger(__name__)

RESUME_LAST = ("True", "true", "last")
STAGES = "stages"
# What a stage started from, in a file beside its checkpoints.
START = "start.txt"
# Where checkpoints go that stand in a run's way.
EARLIER = "earlier"
_STATE = "trainer_state.json"
_RUN = "run.json"
_NUMBERED = re.compile(r"checkpoint-(\d+)")
_TORCH_FILES = ("*.pt", "*.pth", "*.bin")
# Written into every checkpoint, and read by nobody who resumes.
_NOT_READ = "training_args.bin"


class RunStamp(TrainerCallback, CheckpointedState):
    """
    Writes into every checkpoint when its run was begun, so that checkpoints which an earlier run left in the same folder are told
    apart from this run's.

    Args:
        begun (`str`): the time, which sorts like one.
    """

    ARGUMENTS = ("begun",)

    def __init__(self, begun: str):
        self.begun = begun

    def start(self) -> dict[str, Any]:
        return {}

    def on_train_begin(self, args, state, control, **kwargs):
        self.continue_from(state)


def now() -> str:
    return datetime.now(UTC).isoformat()


def begun(checkpoint: str | Path) -> str:
    """When the run of a `checkpoint` was begun; an empty string if it does not say."""
    try:
        return _read_state(Path(checkpoint))["stateful_callbacks"][RunStamp.__name__]["args"]["begun"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def problem_of(checkpoint: str | Path, training_args: TrainingArguments) -> str | None:
    """
    Why training cannot go on exactly from a checkpoint, in a few words; `None` if it can. Its files are opened and not read
    through. Known are the Trainer's own checkpoints, of whole models, of adapters, and of FSDP and DeepSpeed.
    """
    folder = Path(checkpoint)
    try:
        step = _read_state(folder).get("global_step")
    except FileNotFoundError:
        return f"no {_STATE}"
    except (OSError, ValueError, AttributeError):
        return f"{_STATE} cannot be read"
    if not isinstance(step, int):
        return f"{_STATE} names no step"
    return _unreadable(folder) or _missing(folder, training_args)


def _read_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / _STATE).read_text(encoding="utf-8"))


def _unreadable(folder: Path) -> str | None:
    for path in [folder / "config.json", folder / "adapter_config.json"]:
        try:
            json.loads(path.read_text(encoding="utf-8") if path.exists() else "{}")
        except ValueError:
            return f"{path.name} cannot be read"
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{path.relative_to(folder)} cannot be read"
    for path in sorted(path for pattern in _TORCH_FILES for path in folder.rglob(pattern)):
        if path.name != _NOT_READ and not zipfile.is_zipfile(path):
            return f"{path.relative_to(folder)} cannot be read"
    return None


def _missing(folder: Path, training_args: TrainingArguments) -> str | None:
    if (folder / "latest").is_file():
        # DeepSpeed keeps weights, optimizer and scheduler in a folder that this file names.
        tag = (folder / "latest").read_text(encoding="utf-8").strip()
        return None if tag and any((folder / tag).glob("*.pt")) else f"no {tag or 'global_step folder'}"
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            return f"{index.name} cannot be read"
        for shard in sorted(shards):
            if not (folder / shard).is_file():
                return f"no {shard}"
    weights = ("model*.safetensors", "pytorch_model*", "adapter_model.*", "*/adapter_model.*")
    if not any(any(folder.glob(pattern)) for pattern in weights):
        return "no weights"
    # The optimizer of FSDP is a file of another ending, or a folder.
    for name in ("optimizer", "scheduler"):
        if not any(folder.glob(f"{name}.*")) and not any(folder.glob(f"{name}_*")):
            return f"no {name}.pt" + (" (`--save_only_model` leaves it out)" if name == "optimizer" else "")
    return _missing_noise(folder, training_args)


def _missing_noise(folder: Path, training_args: TrainingArguments) -> str | None:
    """The generators' states: one process has its own file, several have one each."""
    alone, first = "rng_state.pth", "rng_state_0.pth"
    several = training_args.world_size > 1
    if (folder / (first if several else alone)).is_file():
        numbers = [training_args.process_index] if training_args.save_on_each_node else range(training_args.world_size)
        names = [f"rng_state_{number}.pth" for number in numbers] if several else []
        return next((f"no {name}" for name in names if not (folder / name).is_file()), None)
    # Whoever goes on with another number of processes has other batches in any case.
    return None if (folder / (alone if several else first)).is_file() else f"no {first if several else alone}"


def _checkpoints(folder: Path) -> list[Path]:
    """The folders of checkpoints, the one of the most steps first."""
    numbered = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _NUMBERED.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, reverse=True) if path.is_dir()]


def last_whole_checkpoint(folder: str | Path, training_args: TrainingArguments) -> tuple[Path | None, dict[str, str]]:
    """
    The whole checkpoint of the most steps in `folder`, of the run that was begun last; and those that were passed over, with the
    reason for each.
    """
    folder = Path(folder)
    problems = {path: problem_of(path, training_args) for path in _checkpoints(folder)}
    whole = {path: begun(path) for path, problem in problems.items() if problem is None}
    run = _begun_here(folder) or max(whole.values(), default="")
    chosen = next((path for path, its in whole.items() if its == run), None)
    passed = {}
    for path, problem in problems.items():
        if path == chosen:
            break
        passed[path.name] = problem or "of an earlier run"
    return chosen, passed


def check_resume(training_args: TrainingArguments) -> None:
    """
    Refuses `--resume_from_checkpoint` with nothing to go on from, before anything is computed.

    Raises:
        ValueError: the folder that is named is none or is not whole, or `last` is said and no run was begun here.
    """
    named = training_args.resume_from_checkpoint
    if named is None:
        return
    output_dir = Path(cast(str, training_args.output_dir))
    if named in RESUME_LAST:
        if not _checkpoints(output_dir) and _begun_here(output_dir) is None:
            raise ValueError(
                f"`--resume_from_checkpoint`: {output_dir} holds no checkpoint. Leave the argument out to begin a run, or name the "
                "`--output_dir` of the run to go on with."
            )
        return
    if not Path(named).is_dir():
        raise ValueError(f"`--resume_from_checkpoint`: there is no directory {named}.")
    problem = problem_of(named, training_args)
    if problem:
        raise ValueError(
            f"`--resume_from_checkpoint`: {named} is not a whole checkpoint ({problem}). Name another one, or say `last`, which "
            "passes over those that are not whole."
        )


def begin_or_resume(training_args: TrainingArguments) -> tuple[str | None, RunStamp]:
    """
    The checkpoint to go on from, and the run's stamp. If the run begins anew, what an earlier one left below `stages/` is removed.
    Checkpoints that stand in the run's way go to `earlier/`.

    Returns:
        The checkpoint that `--resume_from_checkpoint` names, or for `last` the last whole one of the run. It is `None` for a run
        that begins anew, and for one that had not reached its first checkpoint: its stages may have theirs.

    Raises:
        OSError: `--load_best_model_at_end` needs a checkpoint that is not there.
    """
    named = training_args.resume_from_checkpoint
    output_dir = Path(cast(str, training_args.output_dir))
    decision: list[Any] = [None, None]
    if PartialState().is_main_process:
        checkpoint = Path(named) if named and named not in RESUME_LAST else None
        if named in RESUME_LAST:
            checkpoint, passed = last_whole_checkpoint(output_dir, training_args)
            said = f"{checkpoint} is gone on from" if checkpoint else "the training begins anew"
            if passed or checkpoint is None:
                told = ", ".join(f"{name} ({problem})" for name, problem in passed.items()) or "there is no checkpoint yet"
                logger.warning(f"`--resume_from_checkpoint {named}`: {said}. Passed over: {told}.")
        if (
            checkpoint
            and training_args.train_sampling_strategy == "group_by_length"
            and _read_state(checkpoint).get("epoch", 0) >= 1
        ):
            logger.warning(
                f"{checkpoint} is of a later epoch than the first, and `--train_sampling_strategy group_by_length` draws the order "
                "of its rows anew: this epoch has other batches than a run that was not stopped."
            )
        if checkpoint:
            _find_best(checkpoint, training_args)
        run = begun(checkpoint) if checkpoint else (_begun_here(output_dir) if named else None) or now()
        if not named:
            remove_stages(training_args)
        _clear_the_way(output_dir, checkpoint, run)
        (output_dir / STAGES).mkdir(parents=True, exist_ok=True)
        write_whole(output_dir / STAGES / _RUN, json.dumps({"begun": run}))
        decision = [checkpoint and str(checkpoint), run]
    checkpoint, run = broadcast_object_list(decision)
    return checkpoint, RunStamp(run)


def _find_best(checkpoint: Path, training_args: TrainingArguments) -> None:
    """
    Corrects where `checkpoint` says that the best one lies, for a folder that was moved: the Trainer would forget it, and end with
    its last weights.
    """
    state = _read_state(checkpoint)
    best = Path(state.get("best_model_checkpoint") or checkpoint)
    beside = checkpoint.parent / best.name
    if beside.is_dir() and beside.resolve() != best.resolve():
        write_whole(checkpoint / _STATE, json.dumps({**state, "best_model_checkpoint": str(beside)}, indent=2) + "\n")
    elif training_args.load_best_model_at_end and not best.is_dir():
        raise OSError(
            f"`--load_best_model_at_end` needs {best.name}, the best checkpoint up to {checkpoint}, and it is neither beside it "
            f"nor at {best}: put it back, or leave the argument out."
        )


def _clear_the_way(output_dir: Path, checkpoint: Path | None, run: str) -> None:
    """
    Moves every checkpoint into `earlier/` that a `run` which goes on from `checkpoint` did not write up to there. The Trainer would
    write its own files among theirs, keep them in the place of its own (`--save_total_limit`), and take one for the best.
    """
    step = _read_state(checkpoint)["global_step"] if checkpoint else -1
    for path in _checkpoints(output_dir):
        number = int(path.name.rpartition("-")[2])
        if number > step or begun(path) != run:
            moved = output_dir / EARLIER / path.name
            remove(moved)
            moved.parent.mkdir(exist_ok=True)
            path.rename(moved)


def check_fits(checkpoint: str | Path, model: nn.Module) -> None:
    """
    Refuses a checkpoint of another model than the one to train, which the Trainer would load in part.

    Args:
        checkpoint (`str` or `Path`): a whole one.
        model ([`VAEModel`]): or a PEFT model around one.

    Raises:
        ValueError: names the first weight that is another, or is missing in one of them.
    """
    folder = Path(checkpoint)
    if any(folder.glob("adapter_model.*")) != hasattr(model, "peft_config"):
        kinds = ("adapters (`--lora`)", "a model without adapters")
        holds, trains = kinds if not hasattr(model, "peft_config") else kinds[::-1]
        raise ValueError(f"`--resume_from_checkpoint`: {folder} holds {holds}, and this run trains {trains}.")
    shapes: dict[str, list[int]] = {}
    for path in folder.glob("model*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            names = file.keys()
            shapes.update((name, file.get_slice(name).get_shape()) for name in names)
    if not shapes:
        return
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    differs = [
        f"{name} of shape {shape} there, {own.get(name, 'none')} here" for name, shape in shapes.items() if own.get(name) != shape
    ]
    # Of weights that are tied one name is saved, and what is frozen may be left out.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    saved = {id(parameters[name]) for name in shapes if name in parameters}
    trained = {name: each for name, each in parameters.items() if each.requires_grad and id(each) not in saved}
    differs += [f"{name} of shape {list(each.shape)} here, none there" for name, each in trained.items()]
    if differs:
        raise ValueError(
            f"`--resume_from_checkpoint`: {folder} is of another model than the arguments describe ({differs[0]}). Give the "
            "arguments that the run was begun with, or another `--output_dir`."
        )


def _begun_here(output_dir: Path) -> str | None:
    """When the unfinished run of this folder was begun."""
    try:
        return json.loads((output_dir / STAGES / _RUN).read_text(encoding="utf-8"))["begun"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_stages(training_args: TrainingArguments) -> None:
    """Removes the checkpoints of the stages before, after and beside a training, and the folders that are empty then."""
    stages = Path(cast(str, training_args.output_dir)) / STAGES
    for log in list(stages.rglob(DIVERGED)):
        shutil.rmtree(log)
    for folder in sorted((path for path in stages.rglob("*") if path.is_dir()), reverse=True):
        if folder.parent == stages:
            remove_checkpoints(folder)
        _remove_if_empty(folder)
    (stages / _RUN).unlink(missing_ok=True)
    _remove_if_empty(stages)


def remove_checkpoints(folder: Path) -> None:
    """Removes a stage's checkpoints and what tells where it started."""
    (folder / START).unlink(missing_ok=True)
    for checkpoint in _checkpoints(folder):
        remove(checkpoint)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
