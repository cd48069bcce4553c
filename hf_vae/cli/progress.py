"""What the terminal shows while a command works: a heading for each stage, a forecast of its time, and one bar."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import datasets
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.utils import logging

from ..evaluation.distributed import batches_shown_by
from ..training.loss_parts import LossParts, find_model

Batch = TypeVar("Batch")
# A forecast needs some seconds of work to go by, and what ends sooner than this needs none.
_OBSERVED_SECONDS = 3.0
_WORTH_SAYING_SECONDS = 10.0
# The stages that a run may have, in this order.
PRETRAINING = "the encoder as a masked language model"
LATENT_FREE = "the decoder without z"
SOFT_TOKEN_FIT = "the soft tokens of z alone"
DECODER_FIT = "the decoder alone"
WITH_LATENT = "the model with z"
POSTERIOR_FIT = "the posterior alone"
PRIOR_FIT = "the prior p(z|x) alone"
MEASURING = "measuring"
BASELINE = "the same model without z, to compare with"


def say(text: str) -> None:
    """Prints a line on the main process, above a bar if there is one."""
    if PartialState().is_main_process:
        tqdm.write(text)


def duration(seconds: float) -> str:
    """In the unit that one would say."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}s"
    return "about a minute" if seconds >= 50 else f"about {max(round(seconds, -1), 10):.0f} seconds"


class Forecast:
    """Says once, from the pace of the first steps, how long the others will take."""

    def __init__(self, what: str):
        self._what, self._told = what, False
        self._first: tuple[int, float] | None = None

    def step(self, done: int, total: int) -> None:
        """To be called after each step; the first one, which may compile and allocate, does not count."""
        if self._told:
            return
        now = time.perf_counter()
        if self._first is None:
            self._first = (done, now)
            return
        elapsed = now - self._first[1]
        if elapsed < _OBSERVED_SECONDS:
            return
        self._told = True
        left = (total - done) * elapsed / (done - self._first[0])
        if left >= _WORTH_SAYING_SECONDS:
            say(f"  {self._what}: {duration(left)} to go")


class StageCallback(TrainerCallback):
    """
    Makes a forecast for one stage, and keeps its log for the picture of the training. In the stages that have no callback of their
    own for it, the log gets `reconstruction` and `kl` in nats per sentence.
    """

    def __init__(self, what: str, logs_parts: bool):
        self._forecast, self._logs_parts = Forecast(what), logs_parts
        self._state: Any = None
        # Without z there is no KL.
        self._parts = LossParts(("reconstruction_loss",), ("kl",))

    @property
    def log_history(self) -> list[dict[str, Any]]:
        return self._state.log_history if self._state is not None else []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._state = state
        if self._logs_parts:
            self._parts.attach(find_model(model))

    def on_step_end(self, args, state, control, **kwargs):
        self._forecast.step(state.global_step, state.max_steps)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self._logs_parts and "loss" in (logs or {}):
            means = self._parts.means()
            state.log_history[-1].update({name.removesuffix("_loss"): mean for name, mean in means.items()})

    def on_train_end(self, args, state, control, **kwargs):
        self._parts.detach()


class Progress:
    """
    The stages of a run.

    Args:
        stages (`dict[str, int]`): the steps of each, by what it trains, in order; those of none are left out. Of measuring they are
            examples.
    """

    def __init__(self, stages: Mapping[str, int]):
        self._stages = {what: steps for what, steps in stages.items() if steps}
        self._begun: dict[str, StageCallback] = {}

    @property
    def logs(self) -> dict[str, list[dict[str, Any]]]:
        """What each stage of this process has logged, by what it trained."""
        return {what: callback.log_history for what, callback in self._begun.items()}

    def head(self, what: str, unit: str = "step") -> None:
        """Prints the heading of a stage."""
        names, size = [*self._stages], self._stages[what]
        say(f"\n{names.index(what) + 1} of {len(names)}: {what}, {size} {unit}{'s' if size > 1 else ''}")

    def begin(self, what: str) -> StageCallback:
        """Prints the heading of a training, and gives the callback for its Trainer."""
        self.head(what)
        # The encoder alone has no z, p(z|x) alone decodes nothing, and with z another callback logs the parts.
        self._begun[what] = StageCallback(what, logs_parts=what in (LATENT_FREE, DECODER_FIT, POSTERIOR_FIT))
        return self._begun[what]


@contextmanager
def measuring_shown(disable: bool) -> Iterator[None]:
    """What is measured in here has one bar at a time, or none, and a forecast for each part that takes long."""

    def show(batches: Sequence[Batch], description: str) -> Iterator[Batch]:
        forecast = Forecast(description)
        # What is over in a blink shows no bar.
        hidden = disable or not PartialState().is_main_process
        for number, batch in enumerate(tqdm(batches, desc=description, leave=False, delay=1, disable=hidden), start=1):
            yield batch
            forecast.step(number, len(batches))

    with _bars_of_libraries(not disable), batches_shown_by(show):
        yield


@contextmanager
def trainer_s_bar_alone(disable: bool) -> Iterator[None]:
    """Beside the Trainer's bar, what is measured meanwhile has none. With `disable`, loading and reading have none either."""
    with _bars_of_libraries(not disable), batches_shown_by(lambda batches, description: batches):
        yield


@contextmanager
def _bars_of_libraries(enable: bool) -> Iterator[None]:
    """Whether datasets and transformers show bars of their own in here."""
    off = not enable and not datasets.are_progress_bars_disabled()
    if off:
        logging.disable_progress_bar()
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if off:
            datasets.enable_progress_bars()
            logging.enable_progress_bar()
