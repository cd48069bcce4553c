"""Lists of texts, as the metrics take them: what is wrong is told with the argument, the rows and what to do."""

from __future__ import annotations

from collections.abc import Sequence


def check_lists(unit: str, **arguments: Sequence[Sequence]) -> None:
    """Raises a `ValueError` unless all arguments have a list with something in it for each `unit`, a context or a source."""
    for name, rows in arguments.items():
        strings = [i for i, row in enumerate(rows) if isinstance(row, str)]
        refuse_rows(unit, strings, f"`{name}` has no list", f"give a list for each {unit}")
        missing = [i for i, row in enumerate(rows) if row is None or not len(row)]
        refuse_rows(unit, missing, f"`{name}` has none", f"leave these {unit}s out of all arguments")


def check_equally_many(unit: str, name: str, rows: Sequence[Sequence]) -> None:
    """Raises a `ValueError` unless there are as many in each row."""
    counts = sorted({len(row) for row in rows})
    if len(counts) > 1:
        raise ValueError(
            f"`{name}` has between {counts[0]} and {counts[-1]} for a {unit}, in lists of different lengths: give equally many, as "
            "the metrics depend on their number."
        )


def check_texts(unit: str, name: str, rows: Sequence[Sequence[str]]) -> None:
    """Raises a `ValueError` for anything that is no string; it may be an empty one."""
    for i, row in enumerate(rows):
        for text in row:
            if not isinstance(text, str):
                raise ValueError(f"`{name}` has {text!r} for {unit} {i} (counted from 0), which is no text: give strings.")


def refuse_rows(unit: str, rows: list[int], found: str, remedy: str) -> None:
    """Raises a `ValueError` that names `rows`, if there are any."""
    if rows:
        more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
        raise ValueError(f"{found} for the {unit}s {', '.join(map(str, rows[:10]))}{more} (counted from 0): {remedy}.")
