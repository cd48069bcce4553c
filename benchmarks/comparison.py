"""Two things measured side by side, and what is said of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from hf_vae.configuration_vae import check_choice

from .options import Options


@dataclass(frozen=True)
class Row:
    """
    One line of the results.

    Args:
        case (`str`): what was measured.
        ours, theirs (`float`, *optional*): medians, in `unit`.
        ratio (`float`, *optional*): median over the pairs of ours / theirs; between figures that are no pairs, their quotient.
        spread (`float`, *optional*): interquartile range of the pairs' ratios.
        unit (`str`): of `ours` and `theirs`.
        against (`str`): what `theirs` is.
        target (`float`, *optional*): what the ratio must reach.
        better (`str`): whether a `"lower"` or a `"higher"` ratio is the better one.
        repeats (`int`): pairs.
        note (`str`): what else one should know, or why a case was skipped.
    """

    case: str
    ours: float | None
    theirs: float | None
    ratio: float | None
    spread: float | None
    unit: str
    against: str
    target: float | None = None
    better: str = "lower"
    repeats: int = 1
    note: str = ""

    def __post_init__(self):
        check_choice("better", self.better, ("lower", "higher"))

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is what it must be; `None` where nothing is asked or nothing was measured."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio <= self.target if self.better == "lower" else self.ratio >= self.target

    def record(self) -> dict:
        """As JSON holds it."""
        return {**asdict(self), "reached": self.reached}


def skipped(case: str, reason: str) -> Row:
    """A line that says why there is no figure."""
    return Row(case, None, None, None, None, unit="", against="", repeats=0, note=f"skipped: {reason}")


def interleave(
    ours: Callable[[], float], theirs: Callable[[], float], repeats: int, warm_up: int = 1
) -> tuple[list[float], list[float]]:
    """
    Measures A B A B …, after `warm_up` pairs that do not count: whatever disturbs the machine for longer than a pair disturbs
    both sides, and what disturbs one of them shows in the spread.

    Args:
        ours, theirs (`Callable`): each does its work and returns its cost, whatever that is.

    Returns:
        The costs of either side, as many as `repeats`.

    Raises:
        ValueError: `repeats` below 1.
    """
    if repeats < 1:
        raise ValueError(f"`repeats` is {repeats}; a comparison needs at least one pair.")
    pairs = [(ours(), theirs()) for _ in range(warm_up + repeats)][warm_up:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def seconds(work: Callable[[], object], synchronize: Callable[[], None] = lambda: None) -> Callable[[], float]:
    """Turns work into what `interleave` takes: wall-clock seconds."""

    def measure() -> float:
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        return time.perf_counter() - start

    return measure


def interquartile_range(values: Sequence[float]) -> float:
    """Between the quartiles, interpolated linearly; 0 of a single value."""
    if len(values) == 1:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def summarise(
    case: str, ours: Sequence[float], theirs: Sequence[float], per: float | None = None, higher: bool = False, **fields
) -> Row:
    """
    The row of measured pairs.

    Args:
        ours, theirs (`Sequence[float]`): costs of either side, a pair at each index.
        per (`float`, *optional*): costs are seconds for so many units, and the row is to be units per second.
        higher (`bool`, defaults to `False`): that more is better; with `per` always.
        fields: the rest of the row's.

    Raises:
        ValueError: sides of different length.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} measurements are no pairs.")
    if per is not None:
        ours, theirs = [per / each for each in ours], [per / each for each in theirs]
    ratios = [own / other for own, other in zip(ours, theirs)]
    return Row(
        case,
        statistics.median(ours),
        statistics.median(theirs),
        statistics.median(ratios),
        interquartile_range(ratios),
        better="higher" if higher or per is not None else "lower",
        repeats=len(ratios),
        **fields,
    )


def compare(
    case: str, ours: Callable[[], object], theirs: Callable[[], object], options: Options, repeats: int | None = None, **fields
) -> Row:
    """Times two pieces of work side by side."""
    timed = (seconds(ours, options.synchronize), seconds(theirs, options.synchronize))
    with options.precision():
        measured = interleave(*timed, options.repeats if repeats is None else repeats)
    return summarise(case, *measured, **{"unit": "s", **fields})


def set_up(options: Options) -> None:
    """Threads and seed, before a case builds anything."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
