"""Training pairs read while they are trained on, from files or datasets too large to read first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset

from .files import file_rows, is_file_name
from .readers import refuse_file_options

# Rows of the file that are made into pairs, and tokenised, at once.
CHUNK = 1000
_ROW = "row of a file"


def stream_pairs(
    path_or_name: str,
    pairs_of_rows: Callable[[list[dict[str, Any]], int], Iterable[Mapping[str, Any]]],
    split: str = "train",
    encoding: str | None = None,
    quoting: str | None = None,
) -> IterableDataset:
    """
    Pairs in the order of the file, made a chunk of rows at a time.

    Args:
        path_or_name (`str`): as [`load_pairs`] takes it.
        pairs_of_rows (`Callable`): from rows as they stand in the file, and how many stand before them, to rows of `source` and
            `target`.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        encoding, quoting (`str`, *optional*): of a file, as in [`load_texts`].

    Returns:
        `IterableDataset` with the columns `source` and `target`, not shuffled.

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is none.
        ValueError: there is nothing to read. What is wrong with a row is told when it is read.
    """
    if is_file_name(path_or_name):
        options = {"path": str(path_or_name), "encoding": encoding, "quoting": quoting}
        rows = IterableDataset.from_generator(_single_column, gen_kwargs=options)
    else:
        refuse_file_options(path_or_name, encoding=encoding, quoting=quoting)
        rows = load_dataset(path_or_name, split=split, streaming=True)
    first = next(iter(rows), None)
    if first is None:
        raise ValueError(f"{path_or_name} has no rows.")

    def read(chunk: dict[str, list], numbers: list[int]) -> dict[str, list]:
        examples = [dict(zip(chunk, values)) for values in zip(*chunk.values())]
        pairs = list(pairs_of_rows([example.get(_ROW, example) for example in examples], numbers[0]))
        return {name: [pair[name] for pair in pairs] for name in ("source", "target")}

    return rows.map(read, batched=True, batch_size=CHUNK, with_indices=True, remove_columns=list(first))


def _single_column(**options: Any) -> Iterator[dict[str, dict]]:
    """A file's rows in one column: rows of JSON need not have the same columns, and those of a stream do."""
    return ({_ROW: row} for row in file_rows(**options))


def first_pairs(stream: IterableDataset, count: int) -> Dataset:
    """
    The first `count` pairs, to learn a vocabulary from and what else must be known before the training.

    Raises:
        ValueError: there is no pair.
    """
    rows = list(stream.take(count))
    if not rows:
        raise ValueError("The training data that is streamed holds no pair of a source and a target.")
    return Dataset.from_list(rows)
