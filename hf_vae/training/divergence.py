"""A training whose numbers have left the finite ones stops, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import nn
from transformers import TrainerCallback

# The folder of the log that a diverged training leaves.
DIVERGED = "diverged"


def leave_out_cudnn_attention() -> None:
    """
    Has torch compute attention by its other kernels, for the whole process. On H100 and H200 GPUs it prefers cuDNN's since 2.11,
    whose gradient can be NaN while the loss is finite: with a mask, at lengths of 64, 192, 320, …, in half precision
    (https://github.com/pytorch/pytorch/issues/196678). The first such batch spoils every weight.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


class StopOnDivergenceCallback(TrainerCallback):
    """
    Stops a training once its loss or its weights are NaN or infinite, which the Trainer's log hides (`logging_nan_inf_filter`).
    It looks before each log, evaluation and checkpoint and after the last step, so no checkpoint of such weights is written. The
    log up to there is written to `stages/diverged/trainer_state.json` in the `output_dir`.

    With `fp16` the weights alone count: its gradient scaler takes a loss that overflows for what it is and leaves the step out.
    Between two looks nothing is read from the accelerator.

    Raises:
        FloatingPointError: in training, at the first look at which something is not finite. It names the step and what to try.
    """

    def __init__(self):
        self._hook: Any = None
        self._step = 0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._detach()
        # The first step whose loss was not finite, as far as this process saw.
        self._first = torch.full((), torch.inf)
        self._step = state.global_step + 1
        self._hook = model.register_forward_hook(self._watch)

    def on_step_begin(self, args, state, control, **kwargs):
        self._step = state.global_step + 1

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
            self._check(args, state, model)

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.on_step_end(args, state, control, model=model)

    def on_train_end(self, args, state, control, **kwargs):
        self._detach()

    def _detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _watch(self, module, arguments, output):
        if not (module.training and torch.is_grad_enabled()):
            return
        # A Trainer with a loss of its own may train a model that gives none: its weights still tell.
        loss = output.get("loss") if isinstance(output, dict) else output[0] if isinstance(output, tuple) else None
        if isinstance(loss, torch.Tensor):
            here = torch.where(torch.isfinite(loss.detach()).all(), torch.inf, float(self._step))
            self._first = torch.minimum(self._first.to(here.device), here)

    def _check(self, args, state, model: nn.Module) -> None:
        device = PartialState().device
        spoilt = torch.stack([_not_finite(parameter).to(device) for parameter in model.parameters()])
        lost = torch.isfinite(self._first).to(device)
        # Weights in pieces, and a batch of one process, are seen by that process alone; all must stop.
        counts = reduce(torch.stack([(spoilt > 0).sum(), lost.sum()]).float(), reduction="sum").tolist()
        if not counts[0] and (args.fp16 or not counts[1]):
            return
        self._detach()
        log = Path(args.output_dir) / "stages" / DIVERGED / "trainer_state.json"
        if state.is_world_process_zero:
            log.parent.mkdir(parents=True, exist_ok=True)
            state.save_to_json(str(log))
        found = [f"the loss is not finite since step {self._first:.0f}"] if lost else []
        found += [f"{int(counts[0])} of {len(spoilt)} weight tensors hold NaN or infinity"] if counts[0] else []
        raise FloatingPointError(
            f"The training has diverged: at step {state.global_step}, {' and '.join(found) or 'the loss is not finite'}. Nothing "
            "of it is saved over what was saved before. Try a lower `--learning_rate` "
            f"({args.learning_rate:g}), `--max_grad_norm` 1 ({args.max_grad_norm:g}), more `--warmup_steps` "
            f"({args.warmup_steps:g}), or bf16 in the place of fp16. {_about_attention()}The log is in {log}."
        )


def _about_attention() -> str:
    if not (torch.cuda.is_available() and torch.backends.cuda.cudnn_sdp_enabled()):
        return ""
    return "On a GPU, cuDNN's attention may be what gives NaN: leave it out with `torch.backends.cuda.enable_cudnn_sdp(False)`. "


def _not_finite(parameter: nn.Parameter) -> torch.Tensor:
    """How many numbers of it are not finite; of one in pieces, of this process's piece."""
    local: Any = parameter.detach()
    local = local.to_local() if hasattr(local, "to_local") else local
    return (~torch.isfinite(local)).sum() if local.is_floating_point() else torch.zeros((), dtype=torch.long, device=local.device)
