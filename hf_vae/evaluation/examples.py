"""A fixed set of examples, walked in batches of similar length and shared out over processes, with noise of its own for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm


def example_noise(num_examples: int, num_samples: int, latent_size: int, seed: int) -> torch.Tensor:
    """
    Standard normal noise of shape `(num_examples, num_samples, latent_size)`, drawn from the seed and the example's number, so that
    it depends neither on the batches nor on the number of processes.
    """
    size = (num_samples, latent_size)
    # Far apart, so that one seed's last examples do not get the next seed's first noise.
    seeds = (seed * 1_000_003 + number for number in range(num_examples))
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(each)) for each in seeds])


def own_batches(lengths: Sequence[int], batch_size: int, description: str) -> Iterator[list[int]]:
    """This process's batches of examples' numbers, similar lengths together, with a progress bar on the main process."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    state = PartialState()
    with state.split_between_processes(batches) as own:
        yield from tqdm(own, desc=description, leave=False, disable=not state.is_main_process)


def gather_in_order(numbers: Sequence[int], values: Sequence) -> list:
    """The values of all examples from all processes, in the examples' order."""
    pairs = gather_object(list(zip(numbers, values)))
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
