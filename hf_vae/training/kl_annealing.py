"""The KL's weight by a schedule."""

from __future__ import annotations

from typing import Any

from transformers import TrainerState, TrainingArguments

from .json_options import parse_json
from .kl_weight import KLWeightCallback
from .schedules import ConstantSchedule, Schedule, make_schedule


class KLAnnealingCallback(KLWeightCallback):
    r"""
    Sets the model's `kl_weight` before every optimiser step and adds to every training log, in nats per sentence averaged over
    all that was trained since the last one on all processes: `reconstruction`, `kl` (neither weighted nor clamped) and `bow_loss`
    if the model has one (not weighted); and `kl_weight`.

    The weight is a function of `state.global_step`, so a resumed run continues it.

    Args:
        schedule (`Schedule`, *optional*): the KL weight at a step; constant 1, the ELBO, by default.

    Raises:
        ValueError: the model is not one of hf_vae's, `label_smoothing_factor` is set, or another callback sets the weight too.
    """

    def __init__(self, schedule: Schedule | None = None):
        super().__init__()
        self.schedule = ConstantSchedule() if schedule is None else schedule

    def weight(self, state: TrainerState) -> float:
        return self.schedule(state.global_step)


def scheduled(args: Any, name: str = "kl_schedule") -> Schedule:
    """
    The schedule that the argument `name` and its options ask for.

    Raises:
        ValueError: the arguments name no schedule, or options that it does not have.
    """
    options = f"{name}_options"
    return make_schedule(getattr(args, name), **parse_json(options, getattr(args, options)))


def check_schedule(args: Any, training_args: TrainingArguments) -> None:
    """Refuses a schedule that does not exist, and label smoothing, beside which no loss is an ELBO."""
    scheduled(args)
    if training_args.label_smoothing_factor:
        raise ValueError("`--label_smoothing_factor` must be 0: an ELBO has no label smoothing.")
