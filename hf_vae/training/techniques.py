"""
The techniques that live in the training loop. Each is a file of its own: the callback, a dataclass of the arguments that ask for
it, what it refuses, and one line that makes it known to the commands:

    register_technique(MyArguments, my_callbacks, my_check)

A plain Trainer needs none of this: it is given the callback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from ..options.techniques import KLScheduleArguments
from .kl_annealing import KLAnnealingCallback, check_schedule, scheduled
from .kl_weight import KLWeightCallback


def _no_callbacks(args: Any, processor: Any) -> list[TrainerCallback]:
    return []


def _refuse_nothing(args: Any, training_args: TrainingArguments) -> None:
    pass


@dataclass(frozen=True)
class Technique:
    """
    Args:
        arguments (`type`): a dataclass whose fields become arguments of the commands, each with a default that leaves the technique
            out.
        callbacks (`Callable`): of all arguments of the model and its processor; what the Trainer is given.
        check (`Callable`): of all arguments of the model and the `TrainingArguments`; raises a `ValueError` for what cannot work.
    """

    arguments: type
    callbacks: Callable[[Any, Any], Sequence[TrainerCallback]] = _no_callbacks
    check: Callable[[Any, TrainingArguments], None] = _refuse_nothing


TECHNIQUES: list[Technique] = []


def register_technique(
    arguments: type,
    callbacks: Callable[[Any, Any], Sequence[TrainerCallback]] = _no_callbacks,
    check: Callable[[Any, TrainingArguments], None] = _refuse_nothing,
) -> None:
    """
    Makes a technique known to the commands: its arguments are read, its refusals are asked, its callbacks are used. It takes the
    place of one whose arguments have the same name and module.

    Args:
        arguments, callbacks, check: as in [`Technique`].

    Raises:
        ValueError: another technique has an argument of the same name.
    """
    # A cell of a notebook may run again.
    TECHNIQUES[:] = [known for known in TECHNIQUES if _name_of(known.arguments) != _name_of(arguments)]
    new = {each.name for each in fields(arguments)}
    for known in TECHNIQUES:
        taken = sorted(new & {each.name for each in fields(known.arguments)})
        if taken:
            raise ValueError(f"The arguments {', '.join(taken)} are those of {known.arguments.__name__}: name yours differently.")
    TECHNIQUES.append(Technique(arguments, callbacks, check))


def _name_of(arguments: type) -> tuple[str, str]:
    return arguments.__module__, arguments.__qualname__


def check_techniques(args: Any, training_args: TrainingArguments) -> None:
    """Raises a `ValueError` for what a technique refuses."""
    for technique in TECHNIQUES:
        technique.check(args, training_args)


def technique_callbacks(args: Any, processor: Any) -> list[TrainerCallback]:
    """
    The callbacks that the arguments ask for. The first sets the KL's weight: the schedule's, unless a technique sets it.

    Raises:
        ValueError: a schedule beside a technique that sets the weight, or options out of range.
    """
    asked = [callback for technique in TECHNIQUES for callback in technique.callbacks(args, processor)]
    weighing = next((type(each).__name__ for each in asked if isinstance(each, KLWeightCallback)), None)
    if weighing is None:
        return [KLAnnealingCallback(scheduled(args)), *asked]
    if args.kl_schedule != "constant":
        raise ValueError(f"{weighing} sets the KL's weight by itself; leave `--kl_schedule` ({args.kl_schedule!r}) out beside it.")
    return asked


register_technique(KLScheduleArguments, check=check_schedule)
