"""Aggressive training of the encoder, so that q does not lag behind the decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce, send_to_device
from torch import nn
from torch.utils.data import DataLoader, Subset
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from ..checks import check_count
from ..options.techniques import AggressiveEncoderArguments
from .calling_handler import calling_handler
from .checkpointed import CheckpointedState
from .kl_weight import KLWeightCallback
from .loss_parts import find_model, uncounted
from .sharding import refuse_sharding
from .techniques import register_technique

logger = logging.get_logger(__name__)


class AggressiveEncoderCallback(TrainerCallback, CheckpointedState):
    r"""
    Aggressive updates of the inference network (He et al. 2019, algorithm 1). Before every step of the Trainer, q's parameters
    alone are trained on batches drawn at random from the training set, until the mean loss of the last `check_every` inner steps
    is no lower than that of those before, or for `max_inner_steps`; the Trainer's own step then updates everything but q. This
    ends for good, and ordinary training goes on, at the first evaluation whose mutual information is not above the last one's.
    The authors evaluate once an epoch: `eval_strategy="epoch"`, with a `compute_metrics` that returns `mutual_information`, such
    as `hf_vae.evaluation.elbo_metrics`.

    An inner step is one of the Trainer's optimiser, whose moments and learning rate it shares, with the gradient of the loss with
    respect to q's parameters, clipped as the Trainer clips; it sees as many examples as an outer step, on as many processes, and
    the loss is the same, with the KL weight of the outer step. What is q's is read off the first posterior: every trained parameter
    that it depends on, but none of `model.decoder`. An encoder that serves the decoder's conditioning too counts as q's.

    The inner batches follow from the seed and the step, and the state is in the checkpoints: a resumed run continues exactly. Every
    training log gets `inner_steps`, their mean number for each outer step since the last log. Inner steps count neither as
    `global_step` nor in the logged loss.

    Args:
        metric (`str`, defaults to `"eval_mutual_information"`): the evaluation's figure that must rise, in nats.
        max_inner_steps (`int`, defaults to 100).
        check_every (`int`, defaults to 15): inner steps between two looks at the loss.

    Raises:
        ValueError: a count below 1; or, in training, no evaluation to measure the mutual information in, an evaluation without it,
            a training set without length, or weights that DeepSpeed or FSDP hold.
    """

    ARGUMENTS = ("metric", "max_inner_steps", "check_every")

    def __init__(self, metric: str = "eval_mutual_information", max_inner_steps: int = 100, check_every: int = 15):
        for name, count in (("max_inner_steps", max_inner_steps), ("check_every", check_every)):
            check_count(name, count)
        self.metric, self.max_inner_steps, self.check_every = metric, max_inner_steps, check_every
        self.aggressive: bool
        self.mutual_information: float | None
        self.begin()
        self._model: Any = None

    def start(self) -> dict[str, Any]:
        return {"aggressive": True, "mutual_information": None}

    def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        refuse_sharding("AggressiveEncoderCallback")
        if args.eval_strategy == "no":
            raise ValueError(
                "`eval_strategy` is 'no', but evaluations tell when to stop training the encoder aggressively: set it to 'epoch' "
                f"and pass an `eval_dataset` and a `compute_metrics` that gives `{self.metric.removeprefix('eval_')}`."
            )
        if not hasattr(train_dataloader.dataset, "__len__"):
            raise ValueError("The training set has no length, so no examples can be drawn from it for the inner steps.")
        self._model = find_model(model)
        self._parameters: list[nn.Parameter] = []
        self._inner_steps = self._outer_steps = 0
        self.continue_from(state)
        handler = calling_handler()
        if handler is not None and self in handler.callbacks:
            # In front of the reporters, but behind the callback that sets the KL weight for the step.
            handler.callbacks.remove(self)
            handler.callbacks.insert(sum(isinstance(each, KLWeightCallback) for each in handler.callbacks), self)

    def on_step_begin(self, args, state, control, optimizer=None, train_dataloader=None, **kwargs):
        self._outer_steps += 1
        if not self.aggressive:
            return
        # The one inside accelerate's wrapper, which skips steps while gradients accumulate.
        optimizer = getattr(optimizer, "optimizer", optimizer)
        batches = _random_batches(train_dataloader, args, state.global_step)
        self._model.train()
        losses: list[torch.Tensor] = []
        previous = float("inf")
        for step in range(1, self.max_inner_steps + 1):
            losses.append(self._inner_step(next(batches), optimizer, args.max_grad_norm))
            self._inner_steps += 1
            if step % self.check_every == 0:
                current = reduce(torch.stack(losses).mean(), reduction="sum").item()
                if not current < previous:
                    break
                previous = current
                losses = []

    def _inner_step(self, micro_batches: list, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> torch.Tensor:
        """One step of q's parameters; returns this process's share of the loss in nats per target token."""
        tokens = torch.stack([(batch["labels"] != -100).sum() for batch in micro_batches]).sum()
        tokens = reduce(tokens, reduction="sum")
        total: list[torch.Tensor] = []
        loss = torch.zeros((), device=tokens.device)
        for batch in micro_batches:
            with uncounted():
                output = self._model(**batch, num_items_in_batch=tokens)
            if not self._parameters:
                self._parameters = _posterior_parameters(self._model, output)
            # Of q alone, and past the hooks by which DDP would wait for everyone's gradients.
            gradients = torch.autograd.grad(output["loss"], self._parameters, materialize_grads=True)
            total = [each + more for each, more in zip(total, gradients)] if total else list(gradients)
            loss += output["loss"].detach()
        for parameter, gradient in zip(self._parameters, total):
            parameter.grad = reduce(gradient, reduction="sum")
        if max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self._parameters, max_grad_norm)
        # Optimisers pass over what has no gradient: the decoder.
        optimizer.step()
        self._release()
        return loss

    def _release(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.aggressive:
            self._release()

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if self._model is None or not self.aggressive:
            return
        if self.metric not in metrics:
            raise ValueError(
                f"The evaluation gave no `{self.metric}`, only {', '.join(sorted(metrics))}: pass a `compute_metrics` that returns "
                f"`{self.metric.removeprefix('eval_')}`. `elbo_metrics` does where q and p are Gaussian."
            )
        current = metrics[self.metric]
        if self.mutual_information is not None and current <= self.mutual_information:
            self.aggressive = False
            logger.info("Mutual information rises no more (%.3f, then %.3f nats).", self.mutual_information, current)
        self.mutual_information = current

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs or not self._outer_steps:
            return
        figures = {"inner_steps": self._inner_steps / self._outer_steps}
        self._inner_steps = self._outer_steps = 0
        logs.update(figures)
        state.log_history[-1].update(figures)

    def on_train_end(self, args, state, control, **kwargs):
        self._model = None


def _posterior_parameters(model: Any, output) -> list[nn.Parameter]:
    """The trained parameters that the posterior in `output` depends on, without the decoder's."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    code = output["posterior_mean"].sum() + output["posterior_logvar"].sum()
    reached = torch.autograd.grad(code, trained, retain_graph=True, allow_unused=True)
    decoder = {id(parameter) for parameter in model.decoder.parameters()}
    return [each for each, gradient in zip(trained, reached) if gradient is not None and id(each) not in decoder]


def _random_batches(train_dataloader, args, step: int) -> Iterator[list]:
    """
    Endlessly, the micro-batches of one optimiser step, drawn from the training set by the seed, the step and the process. A loader
    of their own: a second walk over the Trainer's would disturb the first.
    """
    state = PartialState()
    # Far apart, so that one step's last process does not draw what the next step's first one does.
    generator = torch.Generator().manual_seed((args.seed * 1_000_003 + step) * 4_096 + state.process_index)
    dataset = train_dataloader.dataset
    size = (args.train_batch_size * args.gradient_accumulation_steps,)
    while True:
        numbers = torch.randint(len(dataset), size, generator=generator).tolist()
        loader = DataLoader(
            Subset(dataset, numbers), args.train_batch_size, collate_fn=train_dataloader.collate_fn, generator=generator
        )
        yield [send_to_device(batch, args.device) for batch in loader]


def check_aggressive_encoder(args: Any, training_args: TrainingArguments) -> None:
    if args.aggressive_encoder and training_args.eval_strategy == "no":
        raise ValueError("`--aggressive_encoder` ends when evaluations say so; set `--eval_strategy` to steps or epoch.")
    if args.aggressive_encoder and args.prior_type not in ("standard", "conditional"):
        raise ValueError(
            "`--aggressive_encoder` ends when the mutual information of an evaluation rises no more. That is measured where q and "
            f"p are Gaussian, and `--prior_type` is {args.prior_type!r}: leave one of them out."
        )


def aggressive_encoder_callbacks(args: Any, processor: Any) -> list[TrainerCallback]:
    return [AggressiveEncoderCallback()] if args.aggressive_encoder else []


register_technique(AggressiveEncoderArguments, aggressive_encoder_callbacks, check_aggressive_encoder)
