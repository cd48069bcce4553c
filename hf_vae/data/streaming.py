"""Training pairs that are read during training, from files or datasets too large to be read before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset

from .files import file_rows, is_file_name
from .readers import refuse_file_options

# The number of rows that are made into pairs and tokenised at once.
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
    Streams pairs in the order of the file. They are made a chunk of rows at a time.

    Args:
        path_or_name (`str`): a file or a dataset, as [`load_pairs`] takes it.
        pairs_of_rows (`Callable`): makes rows with `source` and `target` of a chunk of the file's rows and the number of rows
            before it.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        encoding, quoting (`str`, *optional*): a file's encoding and quoting, as in [`load_texts`].

    Returns:
        `IterableDataset` with the columns `source` and `target`, not shuffled.

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is no such file.
        ValueError: there are no rows. An error in a row is raised when the row is read.
    """
    if is_file_name(path_or_name):
        options = {"path": str(path_or_name), "encoding": encoding, "quoting": quoting}
        rows = IterableDataset.from_generator(_single_column, gen_kwargs=options)
    else:
        refuse_file_options(path_or_name, encoding=encoding, quoting=quoting)
        rows = load_dataset(path_or_name, split=split, streaming=True)
    first = next(iter(rows), None)
    if first is None:
        raise ValueError(f"{path_or_name} has no rows: name a file or a split that has some.")

    def read(chunk: dict[str, list], numbers: list[int]) -> dict[str, list]:
        examples = [dict(zip(chunk, values)) for values in zip(*chunk.values())]
        pairs = list(pairs_of_rows([example.get(_ROW, example) for example in examples], numbers[0]))
        return {name: [pair[name] for pair in pairs] for name in ("source", "target")}

    return rows.map(read, batched=True, batch_size=CHUNK, with_indices=True, remove_columns=list(first))


def _single_column(**options: Any) -> Iterator[dict[str, dict]]:
    """A file's rows in one column, because the rows of a stream need the same columns and JSON rows may differ."""
    return ({_ROW: row} for row in file_rows(**options))


def first_pairs(stream: IterableDataset, count: int) -> Dataset:
    """
    The first `count` pairs of a stream, from which a vocabulary and other facts are learnt before the training.

    Raises:
        ValueError: the stream has no pair.
    """
    rows = list(stream.take(count))
    if not rows:
        raise ValueError("The streamed training data holds no pair of a source and a target.")
    return Dataset.from_list(rows)
