"""Callbacks that decide the KL's weight and log the loss's parts, for the plain Trainer."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import CallbackHandler

from .loss_parts import LossParts, find_model
from .schedules import ConstantSchedule, Schedule
from .sharding import refuse_copies


def calling_handler() -> CallbackHandler | None:
    """
    The handler whose event is being run. A callback is not told where it stands, and reporters such as TensorBoard stand in front
    of a user's callbacks: they would write a log before anything is added to it.
    """
    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), CallbackHandler):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


class KLWeightCallback(TrainerCallback):
    r"""
    Base of the callbacks that set the model's `kl_weight` before every optimiser step. It adds to every training log, in nats per
    sentence averaged over all that was trained since the last one on all processes, none of them weighted or clamped:
    `reconstruction` and `kl`; `prior_reconstruction` with the hybrid objective, `prior_kl` with `prior_regularization`,
    `bow_loss` and `act_loss` where the model has them; and `kl_weight`. A subclass says what the weight is.

    Raises:
        ValueError: the model trained is none of ours, `label_smoothing_factor` is set, two callbacks set the weight, or one process
            has several GPUs.
    """

    PARTS = {
        "reconstruction_loss": "reconstruction",
        "kl": "kl",
        "prior_reconstruction_loss": "prior_reconstruction",
        "prior_kl": "prior_kl",
        "bow_loss": "bow_loss",
        "act_loss": "act_loss",
    }

    def __init__(self):
        self._model: Any = None
        self._parts = LossParts(("reconstruction_loss", "kl"), optional=tuple(self.PARTS)[2:])

    def weight(self, state: TrainerState) -> float:
        """The KL's weight in the step that is about to begin."""
        raise NotImplementedError

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._model = find_model(model)
        refuse_copies(args)
        if args.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor` is {args.label_smoothing_factor}; an ELBO has no label smoothing, set it to 0."
            )
        self._parts.attach(self._model)
        handler = calling_handler()
        if handler is not None and self in handler.callbacks:
            rivals = [type(each).__name__ for each in handler.callbacks if isinstance(each, KLWeightCallback)]
            if len(rivals) > 1:
                raise ValueError(f"{' and '.join(rivals)} each set `kl_weight`: pass the Trainer one of them.")
            handler.callbacks.remove(self)
            handler.callbacks.insert(0, self)

    def on_step_begin(self, args, state, control, **kwargs):
        self._model.kl_weight.fill_(self.weight(state))

    def on_train_end(self, args, state, control, **kwargs):
        self._parts.detach()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs or self._model is None:
            return
        means = self._parts.means()
        if not means:
            return
        parts = {self.PARTS[name]: mean for name, mean in means.items()}
        parts["kl_weight"] = self._model.kl_weight.item()
        parts.update(self.more_logs(parts))
        logs.update(parts)
        state.log_history[-1].update(parts)

    def more_logs(self, parts: dict[str, float]) -> dict[str, float]:
        """What a subclass adds to a log that holds `parts`."""
        return {}


class KLAnnealingCallback(KLWeightCallback):
    r"""
    Sets the model's `kl_weight` before every optimiser step and adds to every training log, in nats per sentence averaged over
    all that was trained since the last one on all processes: `reconstruction`, `kl` (neither weighted nor clamped) and `bow_loss`
    where the model has one (not weighted); and `kl_weight`.

    The weight is a function of `state.global_step`, so a resumed run continues it.

    Args:
        schedule (`Schedule`, *optional*): the KL weight at a step; constant 1, the ELBO, by default.

    Raises:
        ValueError: the model trained is none of ours, `label_smoothing_factor` is set, or another callback sets the weight too.
    """

    def __init__(self, schedule: Schedule | None = None):
        super().__init__()
        self.schedule = ConstantSchedule() if schedule is None else schedule

    def weight(self, state: TrainerState) -> float:
        return self.schedule(state.global_step)


class EvaluateEveryExampleCallback(TrainerCallback):
    """
    Keeps `dataloader_drop_last` to the training, which [`FixedScaleBatchNorm`] may need it for: the Trainer would leave the last
    examples out of its evaluations too, and means such as those of `elbo_metrics` would not be the validation set's. No callback is
    told when a training breaks off: who goes on with the same arguments then sets `dataloader_drop_last` again.
    """

    def __init__(self):
        self._drop_last = False

    def on_train_begin(self, args, state, control, **kwargs):
        # The training's loader is made by now, those of evaluations are not.
        self._drop_last, args.dataloader_drop_last = args.dataloader_drop_last, False

    def on_train_end(self, args, state, control, **kwargs):
        args.dataloader_drop_last = self._drop_last
