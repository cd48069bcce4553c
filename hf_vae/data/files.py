"""The rows of .jsonl, .json, .csv, .tsv and .txt files, read one after another. A cell of a table is text."""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..checks import check_choice

logger = logging.getLogger(__name__)

KINDS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "tsv", ".txt": "text"}
QUOTINGS = ("minimal", "none")
_DELIMITERS = {"csv": ",", "tsv": "\t"}
# MRPC, QQP and PAWS, and most other files with tabs, do not quote their cells.
_QUOTING_OF_KIND = {"csv": "minimal", "tsv": "none"}
_REMEDIES = {
    "minimal": "Put a text that holds the separator in quotation marks. If quotation marks are text in this file, read it with "
    "`quoting='none'`.",
    "none": "Take the separator out of the text. If cells stand in quotation marks, read the file with `quoting='minimal'`.",
}
# UTF-32 comes first, because its mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def is_file_name(path_or_name: str) -> bool:
    """
    Whether `path_or_name` is the name of a file and not of a dataset.

    Raises:
        FileNotFoundError: it ends like a file and there is no such file.
        ValueError: it is a file whose name has an unknown ending.
    """
    path = Path(path_or_name)
    known = path.suffix.lower() in KINDS
    if path.is_file() and not known:
        raise ValueError(f"{path_or_name} is a file of an unknown kind: its name must end in {', '.join(KINDS)}.")
    if known and not path.is_file():
        raise FileNotFoundError(f"There is no file {path_or_name}: correct the path.")
    return known


def file_rows(path: str, encoding: str | None = None, quoting: str | None = None) -> Iterator[dict[str, Any]]:
    """
    The rows of a file, each read when it is asked for (a JSON array is read whole).

    Args:
        path (`str`): the file; its ending says of which kind it is. The first row of a table names its columns. A line of a
            `.txt` file, or a JSON string, is a row with the column `text`.
        encoding (`str`, *optional*): the file's encoding; by default the one that its byte order mark names, else UTF-8.
        quoting (`str`, *optional*): `"minimal"`, the default of .csv: cells may stand in quotation marks, as RFC 4180 says;
            `"none"`, the default of .tsv: quotation marks are text.

    Raises:
        ValueError: the file has no rows, a row cannot be read (the error names it), or the bytes are not in that encoding.
    """
    kind = KINDS[Path(path).suffix.lower()]
    if quoting is not None:
        check_choice("quoting", quoting, QUOTINGS)
        if kind not in _DELIMITERS:
            raise ValueError(f"`quoting` is {quoting!r}, and {path} is not a .csv or .tsv file: leave it out.")
    with open(path, "rb") as file:
        lines = _lines(file, path, encoding)
        if kind == "text":
            rows: Iterator[dict[str, Any]] = ({"text": line} for line in lines)
        elif kind == "json":
            rows = _json_rows(lines, path)
        else:
            rows = _table_rows(lines, path, _DELIMITERS[kind], quoting or _QUOTING_OF_KIND[kind])
            if kind == "tsv" and quoting is None:
                rows = _warn_of_quotes(rows, path)
        first = next(rows, None)
        if first is None:
            raise ValueError(f"{path} has no rows that can be read as {kind}.")
        yield first
        yield from rows


def _lines(file: io.BufferedReader, path: str, encoding: str | None) -> Iterator[str]:
    """The lines of a file without their ends. Only a line feed ends a line."""
    if encoding is None:
        start = file.peek(4)
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    try:
        text = io.TextIOWrapper(file, encoding=encoding, newline="\n")
    except LookupError as error:
        raise ValueError(f"`encoding` is {encoding!r}, which Python does not know; name another, such as 'latin-1'.") from error
    try:
        for number, line in enumerate(text, start=1):
            if "\0" in line:
                raise ValueError(
                    f"Line {number} of {path} holds the character NUL, as UTF-16 does if it is read as {encoding}: name the "
                    "file's encoding with `encoding`, for instance 'utf-16'."
                )
            if number == 1 and "\r" in line.rstrip("\r\n"):
                raise ValueError(
                    f"The lines of {path} end in carriage returns, and only a line feed ends a line: {_shortened(line)}. Save the "
                    "file with line feeds."
                )
            # The byte order mark of UTF-8, or of a named encoding that does not remove its own.
            yield (line.removeprefix("\ufeff") if number == 1 else line).removesuffix("\n").removesuffix("\r")
    except UnicodeError as error:
        raise ValueError(
            f"{path} is not in {encoding} ({error}): name the file's encoding with `encoding`, for instance 'latin-1' or 'utf-16', "
            "or save the file as UTF-8."
        ) from error


def _json_rows(lines: Iterator[str], path: str) -> Iterator[dict[str, Any]]:
    """The rows of a file with an object in each line, or with one array of objects. A string is a row with a `text`."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        is_array = line.lstrip().startswith("[")
        # An array may take any number of lines.
        text = "\n".join([line, *lines]) if is_array else line
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"Line {number + error.lineno - 1} of {path} is not JSON ({error.msg} at column {error.colno}): write an object in "
                "each line, or one array of objects."
            ) from error
        except (ValueError, RecursionError) as error:
            where = f"The array from line {number} on" if is_array else f"Line {number}"
            raise ValueError(
                f"{where} of {path} holds a number or brackets that Python does not read ({error}): write a number of thousands of "
                "digits as a text, and fewer brackets inside each other."
            ) from error
        for value in values if is_array else [values]:
            row = {"text": value} if isinstance(value, str) else value
            if not isinstance(row, dict):
                raise ValueError(f"{path} has the row {value!r}; a row must be an object with the columns by name, or a string.")
            yield row


def _table_rows(lines: Iterator[str], path: str, delimiter: str, quoting: str) -> Iterator[dict[str, str | None]]:
    """The rows of a table by the names in its header. Cells that are missing at the end of a row are `None`."""
    records = _split(lines, delimiter) if quoting == "none" else _unquote(lines, delimiter, path)
    _, _, header = next(records, (0, "", []))
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has several columns named {', '.join(twice)}: rename all but one of each.")
    for row, (line, raw, cells) in enumerate(records, start=1):
        if len(header) == 1 and len(cells) > 1 and (quoting == "none" or '"' not in raw):
            # In a table with a single column the whole line is the text, and separators are part of it.
            cells = [raw]
        if len(cells) > len(header):
            at_its_end = "" if any(cells[len(header) :]) else "Take separators away from the ends of rows. "
            raise ValueError(
                f"Row {row} of {path}, counted from 1 (line {line}), has {len(cells)} cells, and the header has {len(header)}: "
                f"{_shortened(raw)}. {at_its_end}{_REMEDIES[quoting]}"
            )
        yield dict(zip(header, [*cells, *[None] * (len(header) - len(cells))], strict=True))


def table_hint(names: list[str]) -> str | None:
    """Advice if the header shows that a table was not written as its ending says; `None` if the header looks right."""
    separators = [separator for separator in ",;|\t" if len(names) == 1 and separator in names[0]]
    if separators:
        return (
            f"Its columns seem to be separated by {separators[0]!r}, and a .csv file separates them by commas, a .tsv file by "
            "tabs: change the separator or the ending."
        )
    if any(len(name) > 2 and name[0] == name[-1] == '"' for name in names):
        return "Its cells seem to stand in quotation marks: read it with `quoting='minimal'`."
    if any(name != name.strip() for name in names):
        return "Blanks around a column's name are part of the name: remove them from the header."
    return None


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}…")


def _split(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, str, list[str]]]:
    """Each line's number, the line, and its cells, if quotation marks are text. Empty lines are skipped."""
    return ((number, line, line.split(delimiter)) for number, line in enumerate(lines, start=1) if line)


def _is_quoted(cell: str) -> bool:
    """Whether a cell surely stands in quotation marks: it begins and ends with one, and all marks inside are doubled."""
    inner = cell[1:-1]
    return len(cell) > 3 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _warn_of_quotes(rows: Iterator[dict[str, str | None]], path: str) -> Iterator[dict[str, str | None]]:
    """The rows, with a warning about the first cell whose quotation marks probably are not text."""
    warned = False
    for row in rows:
        if not warned and any(cell and _is_quoted(cell) for cell in row.values()):
            warned = True
            logger.warning(
                "%s: the quotation marks of %s are read as text, as in other .tsv files. If cells stand in quotation marks, "
                "read the file with `quoting='minimal'`; `quoting='none'` turns this warning off.",
                path, _shortened(next(cell for cell in row.values() if cell and _is_quoted(cell))),
            )  # fmt: skip
        yield row


def _unquote(lines: Iterator[str], delimiter: str, path: str) -> Iterator[tuple[int, str, list[str]]]:
    """The number of each record's first line, its text, and its cells as RFC 4180 defines them. Empty lines are skipped."""
    # The csv module allows 131,072 characters a cell. Its limit is the whole process's, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    read: list[str] = []

    def recorded() -> Iterable[str]:
        for line in lines:
            read.append(line)
            yield f"{line}\n"

    # `strict` refuses characters between a closing quotation mark and the next separator.
    reader, first, broken = csv.reader(recorded(), delimiter=delimiter, strict=True), 1, False
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"Line {first} of {path} cannot be read as a row of cells in quotation marks ({error}): "
                f"{_shortened(chr(10).join(read))}. If quotation marks are text in this file, read it with `quoting='none'`."
            ) from error
        if cells is None:
            return
        if len(read) > 1 and not broken:
            broken = True
            logger.warning(
                "%s: the row at line %d spans %d lines, because of its quotation marks. If quotation marks are text in this file, "
                "read it with `quoting='none'`.",
                path, first, len(read),
            )  # fmt: skip
        if cells:
            yield first, "\n".join(read), cells
        first += len(read)
        read.clear()


__all__ = ["KINDS", "QUOTINGS", "file_rows", "is_file_name", "table_hint"]
