"""A minimum desired rate: the ELBO under the constraint that the KL does not fall below a target."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from ..checks import check_number
from ..options.techniques import MinimumRateArguments
from .checkpointed import CheckpointedState
from .json_options import parse_json
from .kl_weight import KLWeightCallback
from .loss_parts import LossParts
from .techniques import register_technique

# RMSprop's, as torch has them.
SMOOTHING, EPSILON = 0.99, 1e-8


class MinimumDesiredRateCallback(KLWeightCallback, CheckpointedState):
    r"""
    Maximises the ELBO subject to \(\mathrm{KL} \ge r\) (Pelsmaeker & Aziz 2020, section 3.2), in place of a KL schedule. The
    Lagrangian to minimise is

    \(\mathcal L = \mathrm{reconstruction} + \mathrm{KL} + u\,(r - \mathrm{KL}), \qquad u \ge 0,\)

    so the KL's weight is \(1 - u\): a negative one, which rewards the KL, while the multiplier is above 1 (but see below), and
    towards 1, the ELBO, if the constraint does not bind. After every optimiser step u ascends: by RMSprop, as in the authors'
    code, along \(r - \mathrm{KL}\) with the mean KL per sentence of the whole step over all micro-batches and processes.
    \(u = \mathrm{softplus}(w)\) with w free. As under any such ascent, the KL swings about the rate before it settles.

    Nothing bounds a KL that is rewarded: in the tens of steps that u needs to fall below 1 it can grow past what an encoder
    recovers from. So the KL is rewarded only while it is below the rate (after a step at or above it the weight is at least 0,
    which makes an autoencoder), and u's ascent sees no more than twice the rate, lest one leap fill RMSprop's mean square and hold
    u still for a thousand steps.

    Besides what [`KLAnnealingCallback`] logs, every training log gets `rate_multiplier`, u, and `rate_violation`, the nats per
    sentence by which the logged `kl` falls short of the rate. u, its optimiser's state and the last KL are in the checkpoints; a
    resumed run continues them exactly.

    Args:
        rate (`float`): r, nats per sentence.
        learning_rate (`float`, defaults to 1e-3): of w.
        initial_multiplier (`float`, defaults to 1.01): u at the start, the authors' value: training starts all but free of the KL.

    Raises:
        ValueError: a rate, learning rate or multiplier that is not above 0; or, as training begins, a model with free bits or a
            capacity, which replace the KL in the loss.
    """

    ARGUMENTS = ("rate", "learning_rate", "initial_multiplier")

    def __init__(self, rate: float, learning_rate: float = 1e-3, initial_multiplier: float = 1.01):
        super().__init__()
        for name, value in (("rate", rate), ("learning_rate", learning_rate), ("initial_multiplier", initial_multiplier)):
            check_number(name, value, above=0)
        self.rate, self.learning_rate, self.initial_multiplier = rate, learning_rate, initial_multiplier
        self._step = LossParts(("kl",))
        self._raw_multiplier: float
        self._mean_square: float
        self._kl: float
        self.begin()

    def start(self) -> dict[str, float]:
        return {"_raw_multiplier": math.log(math.expm1(self.initial_multiplier)), "_mean_square": 0.0, "_kl": 0.0}

    @property
    def multiplier(self) -> float:
        """u, the softplus of what is optimised."""
        return max(self._raw_multiplier, 0.0) + math.log1p(math.exp(-abs(self._raw_multiplier)))

    def weight(self, state: TrainerState) -> float:
        weight = 1.0 - self.multiplier
        return weight if self._kl < self.rate else max(weight, 0.0)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        super().on_train_begin(args, state, control, model=model, **kwargs)
        config = self._model.config
        if config.free_bits or config.capacity is not None:
            raise ValueError(
                f"`free_bits` is {config.free_bits} and `capacity` {config.capacity}: a minimum rate weighs the KL itself, which "
                "they replace in the loss. Set `free_bits` to 0 and `capacity` to None."
            )
        self.continue_from(state)
        self._step.attach(self._model)

    def on_step_end(self, args, state, control, **kwargs):
        means = self._step.means()
        if not means:
            return
        self._kl = means["kl"]
        # du/dw of softplus is the sigmoid.
        slope = 0.5 * (1.0 + math.tanh(0.5 * self._raw_multiplier))
        gradient = slope * (self.rate - min(self._kl, 2 * self.rate))
        self._mean_square = SMOOTHING * self._mean_square + (1 - SMOOTHING) * gradient**2
        self._raw_multiplier += self.learning_rate * gradient / (math.sqrt(self._mean_square) + EPSILON)

    def on_train_end(self, args, state, control, **kwargs):
        super().on_train_end(args, state, control, **kwargs)
        self._step.detach()

    def more_logs(self, parts: dict[str, float]) -> dict[str, float]:
        return {"rate_multiplier": self.multiplier, "rate_violation": max(0.0, self.rate - parts["kl"])}


def check_minimum_rate(args: Any, training_args: TrainingArguments) -> None:
    if args.minimum_rate is None:
        return
    if args.kl_schedule != "constant":
        raise ValueError(
            f"`--minimum_rate` sets the KL's weight by itself; leave `--kl_schedule` ({args.kl_schedule!r}) out beside it."
        )
    if parse_json("kl_schedule_options", args.kl_schedule_options):
        raise ValueError("`--minimum_rate` sets the KL's weight by itself; leave `--kl_schedule_options` out beside it.")
    if args.free_bits or args.capacity is not None:
        raise ValueError(
            f"`--minimum_rate` weighs the KL itself, which `--free_bits` ({args.free_bits}) and `--capacity` ({args.capacity}) "
            "replace in the loss; set `--free_bits` to 0 and leave `--capacity` out beside it."
        )


def minimum_rate_callbacks(args: Any, processor: Any) -> list[TrainerCallback]:
    return [] if args.minimum_rate is None else [MinimumDesiredRateCallback(args.minimum_rate)]


register_technique(MinimumRateArguments, minimum_rate_callbacks, check_minimum_rate)
