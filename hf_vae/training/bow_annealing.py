"""The bag-of-words loss's weight by a schedule."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainingArguments

from ..options.techniques import BagOfWordsScheduleArguments
from .kl_annealing import scheduled
from .loss_parts import find_model
from .schedules import ConstantSchedule, Schedule
from .techniques import register_technique


class BagOfWordsAnnealingCallback(TrainerCallback):
    r"""
    Sets the model's `bow_weight`, a factor on `config.bow_loss_weight`, before every optimiser step, and adds it to every training
    log.

    A bag of words brings the choice of words into z in the first steps. Later it holds nats there that the decoder does not need,
    because some words are easier to say by z than to find in x. With a schedule that falls, these nats become free for what a bag
    cannot hold: the order.

    Args:
        schedule (`Schedule`): the factor at a step, such as `LinearSchedule(steps=1000, start=1.0, weight=0.1)`.

    Raises:
        ValueError: the model is not one of hf_vae's, or has no bag of words.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self._model: Any = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._model = find_model(model)
        if not self._model.config.bow_loss_weight:
            raise ValueError("The model has no bag of words whose weight could change: set `bow_loss_weight` in its configuration.")

    def on_step_begin(self, args, state, control, **kwargs):
        self._model.bow_weight.fill_(self.schedule(state.global_step))

    def on_train_end(self, args, state, control, **kwargs):
        self._model.bow_weight.fill_(1.0)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs or self._model is None:
            return
        part = {"bow_weight": self._model.bow_weight.item()}
        logs.update(part)
        state.log_history[-1].update(part)


def _asked_for(args: Any) -> Schedule | None:
    schedule = scheduled(args, "bow_schedule")
    return None if schedule == ConstantSchedule() else schedule


def bow_callbacks(args: Any, processor: Any) -> list[TrainerCallback]:
    schedule = _asked_for(args)
    return [] if schedule is None else [BagOfWordsAnnealingCallback(schedule)]


def check_bow_schedule(args: Any, training_args: TrainingArguments) -> None:
    """Refuses a schedule that does not exist, and one of a loss that is not there."""
    if _asked_for(args) is not None and not args.bow_loss_weight:
        raise ValueError(
            f"`--bow_schedule` is {args.bow_schedule!r}, and there is no bag of words: set `--bow_loss_weight`, or leave it out."
        )


register_technique(BagOfWordsScheduleArguments, bow_callbacks, check_bow_schedule)

__all__ = ["BagOfWordsAnnealingCallback"]
