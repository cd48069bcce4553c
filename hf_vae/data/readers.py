"""Texts, and pairs of source and target texts, from files or the Hub, checked before anything is computed."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from datasets import Dataset, load_dataset

from ..checks import check_count
from ..processing_vae import is_text
from .files import file_rows, is_file_name, table_hint

logger = logging.getLogger(__name__)

# A dataset of the Hub, or the rows of a file.
Rows: TypeAlias = Dataset | list[dict[str, Any]]
# So many texts do not stand in alphabetical order by chance.
FEWEST_SORTED = 20


def read_rows(
    path_or_name: str, split: str, max_rows: int | None = None, encoding: str | None = None, quoting: str | None = None
) -> Rows:
    """The first rows of a file, or of a split of a named dataset, unchanged. [`file_rows`] has the options and errors of files."""
    if max_rows is not None:
        check_count("max_rows", max_rows)
    if is_file_name(path_or_name):
        return list(itertools.islice(file_rows(path_or_name, encoding, quoting), max_rows))
    refuse_file_options(path_or_name, encoding=encoding, quoting=quoting)
    data = load_dataset(path_or_name, split=split)
    return data if max_rows is None else data.select(range(min(max_rows, len(data))))


def refuse_file_options(name: str, **options: str | None) -> None:
    """Raises a `ValueError` if an option that only files have is given for a named dataset."""
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise ValueError(f"`{given[0]}` is given for {name}, which is not a file but the name of a dataset; leave it out.")


def column_names(data: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of a `Dataset`, or the columns that occur in a list of rows."""
    return data.column_names if isinstance(data, Dataset) else list(dict.fromkeys(column for row in data for column in row))


def columns_of(data: Rows, name: str, **columns: str) -> Iterator[list]:
    """
    The values of each column, with `None` for a row that has no value in it.

    Args:
        data: a `Dataset`, or a list of rows.
        name (`str`): the name of the data in error messages.
        columns (`dict[str, str]`): the columns, by the names of the arguments that name them.

    Raises:
        ValueError: no row has such a column.
    """
    known = column_names(data)
    missing = [column for column in columns.values() if column not in known]
    if missing:
        remedy = table_hint(known) or f"Name the column(s) with {' and '.join(f'`{option}`' for option in columns)}."
        raise ValueError(f"{name} has no column {', '.join(missing)}; it has {', '.join(known)}. {remedy}")
    for column in columns.values():
        yield list(data[column]) if isinstance(data, Dataset) else [row.get(column) for row in data]


def as_text(value: Any) -> Any:
    """
    A text without the blanks around it, and a number or a truth value as JSON writes it (7, 1.5, true); any other value is
    returned as it is.
    """
    if isinstance(value, str):
        return value.strip()
    plain = isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return json.dumps(value) if plain else value


def held_out_files(validation_file: str | None, test_file: str | None) -> dict[str, tuple[str, str]]:
    """The file or dataset, and its split, for `"validation"` and for `"test"`. If only one is given, it serves as both."""
    files = {"validation": validation_file, "test": test_file}
    given = [(name, split) for split, name in files.items() if name]
    return {split: (name, split) if name else given[0] for split, name in files.items()}


def load_texts(
    path_or_name: str,
    split: str = "train",
    text_column: str = "text",
    max_rows: int | None = None,
    encoding: str | None = None,
    quoting: str | None = None,
) -> list[str]:
    """
    Loads sentences.

    Args:
        path_or_name (`str`): a `.txt` file of one sentence a line, a `.jsonl`, `.json`, `.csv` or `.tsv` file, or the name of a
            dataset on the Hub.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        text_column (`str`, defaults to `"text"`): the column of texts, if the rows have columns. If its values are lists, every
            text in them is a sentence.
        max_rows (`int`, *optional*): the number of rows to read, from the first on; all by default. There is a warning if
            their texts are in alphabetical order: the others are then unlike them.
        encoding (`str`, *optional*): a file's encoding; by default the one that its byte order mark names, else UTF-8.
        quoting (`str`, *optional*): how cells of a `.csv` or `.tsv` file are quoted. `"minimal"`, the default of .csv: cells may
            stand in quotation marks, as RFC 4180 says. `"none"`, the default of .tsv: quotation marks are text.

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is no such file.
        ValueError: the file has no rows or is malformed, the column is missing, or rows have no text. The error names the rows;
            none is skipped.
    """
    data = read_rows(path_or_name, split, max_rows, encoding, quoting)
    texts = texts_of(data, path_or_name, text_column)
    if len(data) == max_rows:
        warn_if_sorted(texts, path_or_name)
    return texts


def warn_if_sorted(texts: Sequence[str], name: str) -> None:
    """Warns if the first texts of a file are in alphabetical order: those that were not read begin with other words."""
    if len(set(texts)) >= FEWEST_SORTED and any(
        list(spelt) == sorted(spelt) for spelt in (texts, [text.casefold() for text in texts])
    ):
        logger.warning(
            "The first %d texts of %s are in alphabetical order, from %r to %r. If the file goes on so, they are unlike its other "
            "texts: shuffle it beforehand, or read all of it.",
            len(texts), name, texts[0][:40], texts[-1][:40],
        )  # fmt: skip


def texts_of(data: Rows, name: str, text_column: str, first: int = 0) -> list[str]:
    """
    Extracts the sentences from rows.

    Args:
        data: a `Dataset`, or a list of rows. A number or a truth value is read as the text that JSON writes for it.
        name (`str`): the name of the data in error messages.
        text_column (`str`): the column of texts or of lists of texts.
        first (`int`, defaults to 0): the number of rows already read, so that error messages number the rows of the whole file.

    Raises:
        ValueError: the column is missing, or rows have no text.
    """
    [column] = columns_of(data, name, text_column=text_column)
    rows = [[as_text(text) for text in row] if isinstance(row, list) else [as_text(row)] for row in column]
    empty = [number for number, row in enumerate(rows, start=first + 1) if not row or not all(map(is_text, row))]
    if empty:
        shown = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
        raise ValueError(
            f"{name} has no text in {len(empty)} row(s), counted from 1: {shown}. Remove them or give them a text: none is skipped."
        )
    return [text for row in rows for text in row]


def load_pairs(
    path_or_name: str,
    split: str = "train",
    source_column: str = "source",
    target_column: str = "targets",
    max_rows: int | None = None,
    encoding: str | None = None,
    quoting: str | None = None,
) -> Dataset:
    """
    Loads sources with their targets.

    Args:
        path_or_name (`str`): a `.jsonl`, `.json`, `.csv` or `.tsv` file, or the name of a dataset on the Hub.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        source_column (`str`, defaults to `"source"`): the column of sources, each a text.
        target_column (`str`, defaults to `"targets"`): the column of targets, each a text or a list of texts.
        max_rows (`int`, *optional*): the number of rows to read, from the first on; all by default. There is a warning if
            their texts are in alphabetical order: the others are then unlike them.
        encoding, quoting (`str`, *optional*): a file's encoding and quoting, as in [`load_texts`].

    Returns:
        `Dataset` with the columns `source` (a text) and `targets` (a list of texts). A target that equals its source would teach
        the model to copy: it is left out, and a warning says how many were. A row without any other target is left out too.

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is no such file.
        ValueError: the file has no rows or is malformed, a column is missing, a text is empty, or no pair is left.
    """
    data = read_rows(path_or_name, split, max_rows, encoding, quoting)
    rows = pairs_of(data, path_or_name, source_column, target_column)
    if not rows:
        raise ValueError(f"{path_or_name} holds no pair of a source and a different target: every target equals its source.")
    if len(data) == max_rows:
        warn_if_sorted([row["source"] for row in rows], path_or_name)
    return Dataset.from_list(rows)


def pairs_of(data: Rows, name: str, source_column: str, target_column: str, first: int = 0) -> list[dict[str, Any]]:
    """
    Extracts the pairs from rows, in the form in which [`load_pairs`] returns them.

    Args:
        data: a `Dataset`, or a list of rows. A number or a truth value is read as the text that JSON writes for it.
        name (`str`): the name of the data in error messages.
        source_column (`str`): the column of sources.
        target_column (`str`): the column of targets.
        first (`int`, defaults to 0): the number of rows already read, so that error messages number the rows of the whole file.

    Raises:
        ValueError: a column or a text is missing.
    """
    columns = columns_of(data, name, source_column=source_column, target_column=target_column)
    rows, copies = [], 0
    for number, (source, targets) in enumerate(zip(*columns), start=first):
        targets = targets if isinstance(targets, list) else [targets]
        for column, given in [(source_column, source), *((target_column, target) for target in targets or [None])]:
            if not is_text(as_text(given)):
                raise ValueError(f"Row {number} of {name} has no text in `{column}` (found {given!r}): correct or remove it.")
        source, targets = as_text(source), [as_text(target) for target in targets]
        others = [target for target in targets if target != source]
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
    One row from the source to each target and one from each target to the source, for paraphrases, which go both ways: columns
    `source` and `target`. A row with many targets weighs only twice what it did.
    """
    return _pairs(data, lambda source, targets: (pair for target in targets for pair in ((source, target), (target, source))))


def expand_all_pairs(data: Dataset) -> Dataset:
    """
    One row from each text of a row to each of the others: columns `source` and `target`. Five captions of one picture make 20
    pairs, not 4.
    """
    return _pairs(data, lambda source, targets: itertools.permutations(dict.fromkeys([source, *targets]), 2))


# The ways to make training pairs of a source and its targets.
PAIRINGS: dict[str, Callable[[Dataset], Dataset]] = {
    "targets": expand_targets,
    "both_ways": expand_both_ways,
    "all": expand_all_pairs,
}
