"""Pairs of texts as the features that a processor makes of them: all at once, or while they are read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset

from ..processing_vae import VAEProcessor


def tokenize_pairs(processor: VAEProcessor, pairs: Mapping[str, Dataset], **lengths: int) -> dict[str, Dataset]:
    """Splits with the columns `source` and `target` as the processor's features, cut to its `lengths`."""

    def tokenize(rows):
        return dict(processor(rows["source"], rows["target"], return_tensors=None, **lengths))

    with PartialState().main_process_first():
        return {
            name: split.map(tokenize, batched=True, remove_columns=split.column_names, desc=f"tokenising {name}")
            for name, split in pairs.items()
        }


def tokenize_stream(
    processor: VAEProcessor, pairs: IterableDataset, shuffle_buffer: int, seed: int, **lengths: int
) -> IterableDataset:
    """
    As [`tokenize_pairs`], while it is read: pass after pass, without an end. Each next pair is drawn from `shuffle_buffer` of them,
    anew in each pass. The Trainer does not know how many rows a stream has, and would take a later pass for the first when it
    resumes a run. So to the Trainer there is one pass alone.
    """

    def tokenize(rows):
        return dict(processor(rows["source"], rows["target"], return_tensors=None, **lengths))

    # Whoever reads a stream does not know its columns otherwise.
    features = Dataset.from_dict(tokenize(Dataset.from_list(list(pairs.take(2)))[:])).features
    if shuffle_buffer > 1:
        pairs = pairs.shuffle(seed=seed, buffer_size=shuffle_buffer)
    stream = pairs.map(tokenize, batched=True, batch_size=100, remove_columns=["source", "target"], features=features)
    return IterableDataset.from_generator(_passes, features=features, gen_kwargs={"stream": stream})


def _passes(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    for number in itertools.count():
        stream.set_epoch(number)
        row = None
        for row in stream:
            yield row
        if row is None:
            return
