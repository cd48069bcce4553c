"""KL annealing and the loss's parts in the logs, for the plain Trainer."""

from __future__ import annotations

import inspect

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from .schedules import ConstantSchedule, Schedule


class KLAnnealingCallback(TrainerCallback):
    r"""
    Sets the model's `kl_weight` before every optimiser step and adds to every training log, in nats per sentence averaged over
    all that was trained since the last one on all processes: `reconstruction`, `kl` (neither weighted nor clamped), and
    `kl_weight`.

    The weight is a function of `state.global_step`, so a resumed run continues it.

    Args:
        schedule (`Schedule`, *optional*): the KL weight at a step; constant 1, the ELBO, by default.

    Raises:
        ValueError: the model trained is none of ours, or `label_smoothing_factor` is set.
    """

    PARTS = {"reconstruction_loss": "reconstruction", "kl": "kl"}

    def __init__(self, schedule: Schedule | None = None):
        self.schedule = ConstantSchedule() if schedule is None else schedule
        self._model: nn.Module | None = None
        self._hook = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._model = _find_model(model)
        if args.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor` is {args.label_smoothing_factor}; an ELBO has no label smoothing, set it to 0."
            )
        self._forget()
        self._unhook()
        self._hook = self._model.register_forward_hook(self._collect)
        # Reporters such as TensorBoard stand in front of a user's callbacks and would write a log before the parts are in it.
        # A callback is not told where it stands, so it asks its caller.
        handler = inspect.currentframe().f_back.f_locals.get("self")
        if isinstance(handler, CallbackHandler) and self in handler.callbacks:
            handler.callbacks.remove(self)
            handler.callbacks.insert(0, self)

    def on_step_begin(self, args, state, control, **kwargs):
        self._model.kl_weight.fill_(self.schedule(state.global_step))

    def on_train_end(self, args, state, control, **kwargs):
        self._unhook()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs or self._model is None:
            return
        # Every process comes here, also one that has seen nothing.
        sums = reduce(self._sums.to(PartialState().device), reduction="sum").tolist()
        self._forget()
        if not sums[-1]:
            return
        parts = {name: total / sums[-1] for name, total in zip(self.PARTS.values(), sums)}
        parts["kl_weight"] = self._model.kl_weight.item()
        logs.update(parts)
        state.log_history[-1].update(parts)

    def _unhook(self):
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _forget(self):
        # float32, which every accelerator has.
        self._sums = torch.zeros(len(self.PARTS) + 1)

    def _collect(self, module, arguments, output):
        if not module.training:
            return
        values = [output[name] for name in self.PARTS if output.get(name) is not None]
        if len(values) < len(self.PARTS):
            return
        sums = torch.stack([value.detach().float().sum() for value in values])
        count = sums.new_tensor([len(values[0])])
        self._sums = self._sums.to(sums.device) + torch.cat([sums, count])


def _find_model(model: nn.Module) -> nn.Module:
    """The model with a KL weight inside whatever wraps it: PEFT, DDP, a compiled module."""
    for module in model.modules():
        if isinstance(getattr(module, "kl_weight", None), torch.Tensor):
            return module
    raise ValueError(f"KLAnnealingCallback trains models of hf_vae, which have a `kl_weight`; {type(model).__name__} has none.")
