"""A fixed set of examples, walked in batches of similar length and shared out over processes, with noise of its own for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

# Samples are drawn in blocks of so many, always whole: so a sample's noise does not depend on how many are asked for, and
# whoever walks the blocks holds one at a time.
NOISE_BLOCK = 128


def _block(number: int, block: int, latent_size: int, seed: int) -> torch.Tensor:
    # Far apart, so that one seed's last examples do not get the next seed's first noise. torch's generator reads the lowest 32
    # bits of a seed; multiples of 2³²/φ spread the blocks over them.
    mixed = (seed * 1_000_003 + number + block * 0x9E3779B1) % 2**32
    return torch.randn((NOISE_BLOCK, latent_size), generator=torch.Generator().manual_seed(mixed))


def sample_noise(indices: Sequence[int], samples: range, latent_size: int, seed: int) -> torch.Tensor:
    """
    Standard normal noise for some samples of some examples. It follows from the seed, the example's number and the sample's
    number alone, so it depends neither on batches and passes nor on the number of processes.

    Args:
        indices (`list[int]`): the examples' places among all examples.
        samples (`range`): the samples' numbers, successive ones.
        latent_size (`int`): dimensions of z.
        seed (`int`): another one is another stream.

    Returns:
        `torch.Tensor` of shape `(examples, samples, latent_size)`.
    """
    noise = torch.empty(len(indices), len(samples), latent_size)
    for row, number in zip(noise, indices):
        for block in range(samples.start // NOISE_BLOCK, (samples.stop - 1) // NOISE_BLOCK + 1):
            start = block * NOISE_BLOCK
            first, last = max(samples.start, start), min(samples.stop, start + NOISE_BLOCK)
            drawn = _block(number, block, latent_size, seed)[first - start : last - start]
            row[first - samples.start : last - samples.start] = drawn
    return noise


def example_noise(num_examples: int, num_samples: int, latent_size: int, seed: int) -> torch.Tensor:
    """The first `num_samples` samples' noise of all examples at once, `(num_examples, num_samples, latent_size)`."""
    return sample_noise(range(num_examples), range(num_samples), latent_size, seed)


def process_batches(lengths: Sequence[int], batch_size: int, description: str) -> Iterator[list[int]]:
    """This process's batches of examples' indices, similar lengths together, with a progress bar on the main process."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    state = PartialState()
    # In turn, so that the processes get long and short examples alike.
    own = batches[state.process_index :: state.num_processes]
    yield from tqdm(own, desc=description, leave=False, disable=not state.is_main_process)


def copied_rows(values: torch.Tensor) -> list[torch.Tensor]:
    """The rows of `values`, each with memory of its own: a view would be sent to other processes with all of its batch."""
    return [row.clone() for row in values]


def gather_in_order(indices: Sequence[int], values: Sequence) -> list:
    """The values of all examples from all processes, in the examples' order."""
    pairs = gather_object(list(zip(indices, values)))
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
