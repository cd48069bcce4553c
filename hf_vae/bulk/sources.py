"""The sources of a file or a dataset, read one after another, as a processor takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from datasets import load_dataset

from ..data.dialog_files import dialog_of
from ..data.files import KINDS, file_rows, is_file_name, table_hint
from ..data.readers import as_text, refuse_file_options
from ..processing_dialog import DialogCVAEProcessor
from ..processing_vae import VAEProcessor, is_text

# Where the sources stand if nobody says it: in files of pairs, and in files of one text a line.
COLUMNS = ("source", "text")


class FileRows:
    """
    The rows of a file, read anew whenever they are walked, so that memory does not grow with the file.

    Args:
        path (`str`): the file; [`file_rows`] says how it is read.
        encoding, quoting (`str`, *optional*): as of [`file_rows`].
    """

    def __init__(self, path: str, encoding: str | None = None, quoting: str | None = None):
        self.path, self.encoding, self.quoting = path, encoding, quoting

    @classmethod
    def named(cls, rows: str) -> FileRows:
        """
        Those of the file that the argument `rows` names.

        Raises:
            FileNotFoundError: it ends like a file and there is no such file.
            ValueError: it does not end like a file.
        """
        if not is_file_name(rows):
            raise ValueError(
                f"`rows` is {rows!r}, which does not end as a file does ({', '.join(KINDS)}): name a file, or give the rows of a "
                "dataset (`datasets.load_dataset`)."
            )
        return cls(rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return file_rows(self.path, self.encoding, self.quoting)


def open_rows(path_or_name: str, split: str, encoding: str | None = None, quoting: str | None = None) -> Iterable[Any]:
    """
    The rows of a file, or of a split of a named dataset.

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is no such file.
        ValueError: a file of an unknown kind, or options of files for a dataset.
    """
    if is_file_name(path_or_name):
        return FileRows(path_or_name, encoding, quoting)
    refuse_file_options(path_or_name, encoding=encoding, quoting=quoting)
    return load_dataset(path_or_name, split=split)


class Sources:
    """
    What a processor takes as `text`, of each row. It may be walked as often as one likes.

    Args:
        rows (`Iterable`): rows with a column of sources, or sources themselves, which can be walked more than once.
        processor ([`VAEProcessor`]): one of dialogues reads rows of `turns`, as [`dialog_of`] does.
        name (`str`): what error messages call the rows.
        source_column (`str`, *optional*): the column of the sources; by default `source`, or `text` if there is none.
        max_rows (`int`, *optional*): how many rows are read, from the first on.

    Raises:
        ValueError: the rows can be walked once only, there are none, or the first one has no such column.
    """

    def __init__(
        self,
        rows: Iterable[Any],
        processor: VAEProcessor,
        name: str,
        source_column: str | None = None,
        max_rows: int | None = None,
    ):
        if isinstance(rows, (Iterator, Mapping, str)) or not isinstance(rows, Iterable):
            raise ValueError(
                f"`rows` is a {type(rows).__name__}, and they are read twice, to be checked and to be used: give the name of a "
                "file, a list, a `Dataset` or an `IterableDataset`."
            )
        self.rows, self.processor, self.name, self.max_rows = rows, processor, name, max_rows
        first = next(iter(rows), None)
        if first is None:
            raise ValueError(f"{name} has no rows: give at least one source.")
        self.column = self._column(first, source_column)

    def __iter__(self) -> Iterator[Any]:
        for number, row in enumerate(itertools.islice(self.rows, self.max_rows)):
            yield self._source(row, number)

    def _column(self, first: Any, asked_for: str | None) -> str | None:
        """The column that holds the sources; `None` if the rows are sources themselves."""
        is_dialog = isinstance(self.processor, DialogCVAEProcessor)
        if is_dialog and asked_for is not None:
            raise ValueError(f"`source_column` is {asked_for!r}; a dialogue model reads the column `turns`: leave it out.")
        if not isinstance(first, Mapping) or (is_dialog and "messages" in first):
            return None
        wanted = ("turns",) if is_dialog else COLUMNS if asked_for is None else (asked_for,)
        found = next((column for column in wanted if column in first), None)
        if found is None:
            known = list(first)
            remedy = "A dialogue model reads rows of `turns`." if is_dialog else "Name the column with `source_column`."
            raise ValueError(
                f"{self.name} has no column {' or '.join(wanted)}; it has {', '.join(known)}. {table_hint(known) or remedy}"
            )
        return found

    def _source(self, row: Any, number: int) -> Any:
        processor = self.processor
        if isinstance(processor, DialogCVAEProcessor):
            if self.column is None:
                return row
            if not isinstance(row, Mapping):
                raise ValueError(
                    f"Row {number} of {self.name}, counted from 0, is a {type(row).__name__}, and the first has the column "
                    f"`{self.column}`: give all rows one form."
                )
            source = dialog_of(row, self.name, number, processor.max_turns, [*processor.meta_categories, *processor.meta_values])
            # The file may know of acts that the model was not told.
            return source if processor.acts is not None else {**source, "act": None}
        given = row if self.column is None or not isinstance(row, Mapping) else row.get(self.column)
        source = as_text(given)
        if not is_text(source):
            where = "" if self.column is None else f" in `{self.column}`"
            raise ValueError(
                f"Row {number} of {self.name}, counted from 0, has no text{where} (found {given!r}): correct or remove it. "
                "None is skipped."
            )
        return source


def shown_source(source: Any) -> Any:
    """A source as it stands in an output row: the text, or the messages of a dialogue."""
    if isinstance(source, str):
        return source
    messages = source["messages"] if isinstance(source, Mapping) else source
    return [{name: message[name] for name in ("role", "content")} for message in messages]
