"""The KL weight as a pure function of the optimiser step: nothing to save, so a resumed run continues exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from ..checks import check_count, check_number

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class ConstantSchedule:
    """β at every step (Higgins et al. 2017); 1 is the ELBO."""

    weight: float = 1.0

    def __post_init__(self):
        check_number("weight", self.weight, least=0)

    def __call__(self, step: int) -> float:
        return self.weight


@dataclass(frozen=True)
class LinearSchedule:
    """From `start` at step 0 to `weight` at step `steps` and constant from there on."""

    steps: int
    start: float = 0.0
    weight: float = 1.0

    def __post_init__(self):
        check_number("steps", self.steps, least=1)
        check_number("start", self.start, least=0)
        check_number("weight", self.weight, least=0)

    def __call__(self, step: int) -> float:
        return self.start + (self.weight - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class SigmoidSchedule:
    """`weight` · sigmoid(`slope` · (step - `midpoint`)) (Bowman et al. 2015, section 3.1)."""

    midpoint: int
    slope: float
    weight: float = 1.0

    def __post_init__(self):
        check_number("midpoint", self.midpoint, least=1)
        check_number("slope", self.slope)
        check_number("weight", self.weight, least=0)

    def __call__(self, step: int) -> float:
        return self.weight * 0.5 * (1.0 + math.tanh(0.5 * self.slope * (step - self.midpoint)))


@dataclass(frozen=True)
class TanhSchedule:
    """`weight` · (tanh((step - `midpoint`) / `width`) + 1) / 2, as VAE-SVG is annealed."""

    midpoint: int
    width: float
    weight: float = 1.0

    def __post_init__(self):
        check_number("midpoint", self.midpoint, least=1)
        check_number("width", self.width, least=1)
        check_number("weight", self.weight, least=0)

    def __call__(self, step: int) -> float:
        return self.weight * 0.5 * (1.0 + math.tanh((step - self.midpoint) / self.width))


@dataclass(frozen=True)
class CyclicalSchedule:
    """
    Cycles of `period` steps: `zero` of it at 0, then `rise` of it linearly up to `weight`, the rest there (Fu et al. 2019;
    Li et al. 2020 use a half and a quarter). After `cycles` of them the weight stays.
    """

    period: int
    zero: float = 0.5
    rise: float = 0.25
    cycles: int | None = None
    weight: float = 1.0

    def __post_init__(self):
        check_number("period", self.period, least=1)
        for name in ("zero", "rise"):
            check_number(name, getattr(self, name), least=0, most=1)
        if self.zero + self.rise > 1:
            raise ValueError(f"`zero` is {self.zero} and `rise` {self.rise}; they are parts of a cycle, together 1 at most.")
        if self.cycles is not None:
            check_count("cycles", self.cycles)
        check_number("weight", self.weight, least=0)

    def __call__(self, step: int) -> float:
        if self.cycles is not None and step >= self.cycles * self.period:
            return self.weight
        phase = step % self.period / self.period
        if phase < self.zero:
            return 0.0
        return self.weight * min((phase - self.zero) / self.rise, 1.0) if self.rise else self.weight


SCHEDULES = {
    "constant": ConstantSchedule,
    "linear": LinearSchedule,
    "sigmoid": SigmoidSchedule,
    "tanh": TanhSchedule,
    "cyclical": CyclicalSchedule,
}


def make_schedule(name: str, **options) -> Schedule:
    """
    The schedule called `name`, as configuration files and command lines spell it.

    Raises:
        ValueError: no such schedule, an option that it does not have, or one that it needs and was not given.
    """
    if name not in SCHEDULES:
        raise ValueError(f"Schedule {name!r} does not exist; choose one of {', '.join(map(repr, SCHEDULES))}.")
    schedule = SCHEDULES[name]
    known = [field.name for field in fields(schedule)]
    try:
        return schedule(**options)
    except TypeError as error:
        raise ValueError(f"Schedule {name!r} takes {', '.join(known)}; got {options}.") from error
