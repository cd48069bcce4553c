"""Texts, and pairs of source and target texts, from files or the Hub, checked before anything is computed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError

logger = logging.getLogger(__name__)

_LOADERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}


def _read(path_or_name: str, split: str, max_rows: int | None = None, streaming: bool = False) -> Any:
    """A `Dataset`, or with `streaming` an `IterableDataset`, of a file's or a named dataset's rows as they stand there."""
    path = Path(path_or_name)
    ending = path.suffix.lower()
    if path.is_file() and ending not in _LOADERS:
        raise ValueError(f"{path_or_name} is a file of an unknown kind: its name must end in {', '.join(_LOADERS)}.")
    if ending in _LOADERS:
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path_or_name}.")
        loader = _LOADERS[ending]
        # "NA" and "null" are words too.
        options: dict[str, Any] = {"keep_default_na": False} if loader == "csv" else {}
        if ending == ".tsv":
            options["delimiter"] = "\t"
        try:
            data = load_dataset(loader, data_files=str(path), split="train", streaming=streaming, **options)
        except (DatasetGenerationError, StopIteration, ValueError) as error:
            raise ValueError(f"{path_or_name} has no rows that can be read as {loader}: {error.__cause__ or error}.") from error
    else:
        data = load_dataset(path_or_name, split=split, streaming=streaming)
    return data if max_rows is None else data.select(range(min(max_rows, len(data))))


def held_out_files(validation_file: str | None, test_file: str | None) -> dict[str, tuple[str, str]]:
    """File or dataset and its split for `"validation"` and for `"test"`; where only one is given it stands for both."""
    files = {"validation": validation_file, "test": test_file}
    given = [(name, split) for split, name in files.items() if name]
    return {split: (name, split) if name else given[0] for split, name in files.items()}


def load_texts(path_or_name: str, split: str = "train", text_column: str = "text", max_rows: int | None = None) -> list[str]:
    """
    Sentences.

    Args:
        path_or_name (`str`): a `.txt` file of one sentence a line, a `.jsonl`, `.json`, `.csv` or `.tsv` file, or the name of a
            dataset on the Hub.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        text_column (`str`, defaults to `"text"`): where the rows have columns. A column of lists gives every text in them.
        max_rows (`int`, *optional*): use only as many rows, from the first on.

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is none.
        ValueError: the file has no rows or is malformed, the column is missing, or rows have no text; they are named, and none is
            skipped.
    """
    return texts_of(_read(path_or_name, split, max_rows), path_or_name, text_column)


def texts_of(data: Dataset, name: str, text_column: str, first: int = 0) -> list[str]:
    """The sentences of the rows `data` of what is called `name`, as [`load_texts`] has them; `first` rows stand before these."""
    if text_column not in data.column_names:
        raise ValueError(f"{name} has no column {text_column}; it has {', '.join(data.column_names)}. Name it with `text_column`.")
    rows = [row if isinstance(row, list) else [row] for row in data[text_column]]
    empty = [
        number
        for number, row in enumerate(rows, start=first + 1)
        if not row or any(not isinstance(text, str) or not text.strip() for text in row)
    ]
    if empty:
        shown = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
        raise ValueError(f"{name} has no text in {len(empty)} row(s), counted from 1: {shown}. Remove them; none is skipped.")
    return [text.strip() for row in rows for text in row]


def load_pairs(
    path_or_name: str,
    split: str = "train",
    source_column: str = "source",
    target_column: str = "targets",
    max_rows: int | None = None,
) -> Dataset:
    """
    Sources with their targets.

    Args:
        path_or_name (`str`): a `.jsonl`, `.json`, `.csv` or `.tsv` file, or the name of a dataset on the Hub.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        source_column (`str`, defaults to `"source"`): texts.
        target_column (`str`, defaults to `"targets"`): a text, or a list of texts.
        max_rows (`int`, *optional*): use only as many rows, from the first on.

    Returns:
        `Dataset` with the columns `source` (a text) and `targets` (a list of texts). A target that equals its source is left
        out and counted in a warning: it would teach copying. So is a row with no other target.

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is none.
        ValueError: the file has no rows or is malformed, a column is missing, a text is empty, or no pair is left.
    """
    rows = pairs_of(_read(path_or_name, split, max_rows), path_or_name, source_column, target_column)
    if not rows:
        raise ValueError(f"{path_or_name} holds no pair of a source and a different target.")
    return Dataset.from_list(rows)


def pairs_of(data: Dataset, name: str, source_column: str, target_column: str, first: int = 0) -> list[dict[str, Any]]:
    """The pairs of the rows `data` of what is called `name`, as [`load_pairs`] has them; `first` rows stand before these."""
    missing = [column for column in (source_column, target_column) if column not in data.column_names]
    if missing:
        raise ValueError(
            f"{name} has no column {', '.join(missing)}; it has {', '.join(data.column_names)}. Name the columns with "
            "`source_column` and `target_column`."
        )
    rows, copies = [], 0
    for number, (source, targets) in enumerate(zip(data[source_column], data[target_column]), start=first):
        targets = [targets] if isinstance(targets, str) else targets
        for column, text in [(source_column, source), *((target_column, target) for target in targets or [None])]:
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"Row {number} of {name} has no text in `{column}` (found {text!r}); mend or remove it.")
        others = [target for target in targets if target.strip() != source.strip()]
        copies += len(targets) - len(others)
        if others:
            rows.append({"source": source, "targets": others})
    if copies:
        logger.warning("%s: left out %d target(s) equal to their source.", name, copies)
    return rows


def _pairs(data: Dataset, pairs_of: Callable[[str, list[str]], Iterable[tuple[str, str]]]) -> Dataset:
    pairs = (pair for row in data for pair in pairs_of(row["source"], row["targets"]))
    return Dataset.from_list([{"source": source, "target": target} for source, target in pairs])


def expand_targets(data: Dataset) -> Dataset:
    """One row for each target: columns `source` and `target`."""
    return _pairs(data, lambda source, targets: ((source, target) for target in targets))


def expand_both_ways(data: Dataset) -> Dataset:
    """
    The source to each target and each target to the source, where being a paraphrase goes both ways: columns `source` and
    `target`. A row of many targets weighs only twice what it did.
    """
    return _pairs(data, lambda source, targets: (pair for target in targets for pair in ((source, target), (target, source))))


def expand_all_pairs(data: Dataset) -> Dataset:
    """
    Every text of a row as the source of every other one: columns `source` and `target`. Five captions of one picture make 20
    pairs, not 4.
    """
    return _pairs(data, lambda source, targets: itertools.permutations(dict.fromkeys([source, *targets]), 2))


# How a row with a source and its targets becomes pairs to train on.
PAIRINGS: dict[str, Callable[[Dataset], Dataset]] = {
    "targets": expand_targets,
    "both_ways": expand_both_ways,
    "all": expand_all_pairs,
}
