"""The base of the callbacks that set the KL's weight. It logs the loss's parts, for the plain Trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

from transformers import TrainerCallback, TrainerState

from .calling_handler import calling_handler
from .loss_parts import LossParts, find_model
from .sharding import refuse_copies


class KLWeightCallback(TrainerCallback, ABC):
    r"""
    Base of the callbacks that set the model's `kl_weight` before every optimiser step. It adds to every training log, in nats per
    sentence averaged over all that was trained since the last one on all processes, none of them weighted or clamped:
    `reconstruction` and `kl`; `prior_reconstruction` with the hybrid objective, `prior_kl` with `prior_regularization`, `bow_loss`
    and `act_loss` if the model has them, and any other field of its `output_class` whose name ends in `_loss` or `kl`; and
    `kl_weight`. A subclass says what the weight is.

    Raises:
        ValueError: the model is not one of hf_vae's, `label_smoothing_factor` is set, two callbacks set the weight, or one process
            has several GPUs.
    """

    # A log's names for the fields that it calls otherwise than the model's output does.
    NAMES = {"reconstruction_loss": "reconstruction", "prior_reconstruction_loss": "prior_reconstruction"}

    def __init__(self):
        self._model: Any = None
        self._parts: LossParts

    @abstractmethod
    def weight(self, state: TrainerState) -> float:
        """The KL's weight in the step that is about to begin."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._model = find_model(model)
        refuse_copies(args)
        if args.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor` is {args.label_smoothing_factor}; an ELBO has no label smoothing, set it to 0."
            )
        required = ("reconstruction_loss", "kl")
        self._parts = LossParts(required, [name for name in _parts_of(self._model) if name not in required])
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
        # The weight was this training's. Another one of the same model charges the whole KL, as one of the saved model does.
        self._model.kl_weight.fill_(1.0)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs or self._model is None:
            return
        means = self._parts.means()
        if not means:
            return
        parts = {self.NAMES.get(name, name): mean for name, mean in means.items()}
        parts["kl_weight"] = self._model.kl_weight.item()
        parts.update(self.more_logs(parts))
        logs.update(parts)
        state.log_history[-1].update(parts)

    def more_logs(self, parts: dict[str, float]) -> dict[str, float]:
        """What a subclass adds to a log that holds `parts`."""
        return {}


def _parts_of(model: Any) -> list[str]:
    """The fields of the model's output that are a part of the loss, one number for each example."""
    return [each.name for each in fields(model.output_class) if each.name.endswith(("_loss", "kl"))]
