"""A fixed set of examples, walked in batches of similar length and shared out over processes, with noise of its own for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from ..latent_spread import spread_noise

Result = TypeVar("Result")
# Samples are drawn in blocks of this size, always whole, so that a sample's noise does not depend on how many are asked for, and
# whoever walks the blocks holds one at a time.
NOISE_BLOCK = 128
# Behind all blocks of noise.
_FIRST_GENERATOR = 2**20


def _generator(number: int, block: int, seed: int) -> torch.Generator:
    # Far apart, so that one seed's last examples do not get the next seed's first noise. torch's generator reads the lowest 32
    # bits of a seed; multiples of 2³²/φ spread the blocks over them.
    mixed = (seed * 1_000_003 + number + block * 0x9E3779B1) % 2**32
    return torch.Generator().manual_seed(mixed)


def sample_noise(indices: Sequence[int], samples: range, noise_size: int, seed: int) -> torch.Tensor:
    """
    Standard normal noise for some samples of some examples. It follows from the seed, the example's number and the sample's
    number alone, so it depends neither on batches and passes nor on the number of processes.

    Args:
        indices (`list[int]`): the examples' places among all examples.
        samples (`range`): the samples' numbers, successive ones.
        noise_size (`int`): numbers in one draw, the distribution's `noise_size`.
        seed (`int`): another one is another stream.

    Returns:
        `torch.Tensor` of shape `(examples, samples, noise_size)`.
    """
    noise = torch.empty(len(indices), len(samples), noise_size)
    for row, number in zip(noise, indices):
        for block in range(samples.start // NOISE_BLOCK, (samples.stop - 1) // NOISE_BLOCK + 1):
            start = block * NOISE_BLOCK
            first, last = max(samples.start, start), min(samples.stop, start + NOISE_BLOCK)
            drawn = torch.randn((NOISE_BLOCK, noise_size), generator=_generator(number, block, seed))
            row[first - samples.start : last - samples.start] = drawn[first - start : last - start]
    return noise


def spread_samples(indices: Sequence[int], num_samples: int, noise_size: int, seed: int, spread: str) -> torch.Tensor:
    """
    [`sample_noise`] of the first `num_samples` samples, which lie to each other as `spread` says ([`spread_noise`]). It follows
    from the seed, the example's number and `num_samples` alone.
    """
    if spread == "independent":
        return sample_noise(indices, range(num_samples), noise_size, seed)
    each = (spread_noise(spread, 1, num_samples, noise_size, _generator(number, 0, seed)) for number in indices)
    return torch.cat(list(each))


def sample_generators(indices: Sequence[int], num_samples: int, seed: int) -> list[torch.Generator]:
    """
    A generator for each of `num_samples` samples of each example, in succession, for what is drawn besides [`sample_noise`]. Each
    follows from the seed, the example's number and the sample's number alone.
    """
    return [_generator(number, _FIRST_GENERATOR + sample, seed) for number in indices for sample in range(num_samples)]


def example_noise(num_examples: int, num_samples: int, noise_size: int, seed: int) -> torch.Tensor:
    """The first `num_samples` samples' noise of all examples at once, `(num_examples, num_samples, noise_size)`."""
    return sample_noise(range(num_examples), range(num_samples), noise_size, seed)


def _bar(batches: Sequence[list[int]], description: str) -> Iterable[list[int]]:
    return tqdm(batches, desc=description, leave=False, delay=1, disable=not PartialState().is_main_process)


_show: ContextVar[Callable[[Sequence[list[int]], str], Iterable[list[int]]]] = ContextVar("show", default=_bar)


@contextmanager
def batches_shown_by(show: Callable[[Any, str], Iterable[Any]]) -> Iterator[None]:
    """In here [`map_examples`] walks what `show` makes of its batches and their description; by default that is a progress bar."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def map_examples(
    measure: Callable[[list[int]], Sequence[Result]], lengths: Sequence[int], batch_size: int, description: str
) -> list[Result]:
    """
    What `measure` gives for the examples, in their order, from all processes.

    Args:
        measure (`Callable`): called with the indices of each batch of this process; gives one value for each of them.
        lengths (`list[int]`): of each example, so that similar lengths are together.
        batch_size (`int`): examples at once.
        description (`str`): stands before the progress bar.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    state = PartialState()
    # In turn, so that the processes get long and short examples alike.
    own = batches[state.process_index :: state.num_processes]
    measured = [pair for indices in _show.get()(own, description) for pair in zip(indices, measure(indices), strict=True)]
    return [value for _, value in sorted(gather_object(measured), key=lambda pair: pair[0])]


def copied_rows(values: torch.Tensor) -> list[torch.Tensor]:
    """The rows of `values`, each with memory of its own: a view would be sent to other processes with all of its batch."""
    return [row.clone() for row in values]
