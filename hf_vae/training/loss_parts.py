"""The parts of a training loss, averaged over the examples and processes that it was summed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import nn

_counted: ContextVar[bool] = ContextVar("counted", default=True)


@contextmanager
def uncounted() -> Iterator[None]:
    """Forward passes in here are no part of what the Trainer's step trains on: no [`LossParts`] counts them."""
    token = _counted.set(False)
    try:
        yield
    finally:
        _counted.reset(token)


def find_model(model: nn.Module) -> nn.Module:
    """
    The model with a KL weight inside whatever wraps it: PEFT, DDP, a compiled module.

    Raises:
        ValueError: there is none.
    """
    for module in model.modules():
        # Its own, and not one that a wrapper such as PEFT's hands on.
        if "kl_weight" in dict(module.named_buffers(recurse=False)):
            return module
    raise ValueError(f"A model of hf_vae is needed, which has a `kl_weight`; {type(model).__name__} has none.")


class LossParts:
    """
    Means of per-example fields of the model's output over the forward passes that it is trained on, seen through a forward hook.
    Those without a gradient, such as the Trainer's evaluations, do not count.

    Args:
        required (sequence of `str`): what must all be there for a pass to count, such as `"kl"`; each of shape `(batch,)`.
        optional (sequence of `str`): what is averaged over the passes that have it.
    """

    def __init__(self, required: Sequence[str], optional: Sequence[str] = ()):
        self.required, self.fields = tuple(required), (*required, *optional)
        self._hook: Any = None
        self.forget()

    def attach(self, model: nn.Module) -> None:
        """Starts anew with `model`."""
        self.detach()
        self.forget()
        self._hook = model.register_forward_hook(self._collect)

    def detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def forget(self) -> None:
        # Each field's sum and number of examples; float32, which every accelerator has.
        self._sums = torch.zeros(len(self.fields), 2)

    def means(self) -> dict[str, float]:
        """
        Each field's mean over all examples of all processes since this was last asked, if there were any. Every process must
        call it.
        """
        sums = reduce(self._sums.to(PartialState().device), reduction="sum").tolist()
        self.forget()
        return {name: total / count for name, (total, count) in zip(self.fields, sums) if count}

    def _collect(self, module, arguments, output):
        # And not `module.training`: q alone is trained beside a decoder without dropout, with the model in evaluation mode.
        if not torch.is_grad_enabled() or not _counted.get() or any(output.get(name) is None for name in self.required):
            return
        values = [output.get(name) for name in self.fields]
        length = len(values[0])
        zero = values[0].new_zeros((), dtype=torch.float32)
        sums = torch.stack([zero if value is None else value.detach().float().sum() for value in values])
        counts = sums.new_tensor([0 if value is None else length for value in values])
        self._sums = self._sums.to(sums.device) + torch.stack([sums, counts], dim=1)
