"""Rows of tokens that are padded to one length."""

from __future__ import annotations

from typing import Any


def as_tokens(row: Any) -> list[int]:
    """A row of tokens, which a dataset may give as an array or a tensor."""
    return row if isinstance(row, list) else [int(token) for token in row]


def padded_length(rows: list[list[int]], padding: bool | str, multiple_of: int | None, length: int | None) -> int:
    """
    How long `rows` become; 0 leaves each as it is.

    Raises:
        ValueError: they are to be padded to a `length` that is not given.
    """
    if padding in (False, "do_not_pad"):
        return 0
    if padding == "max_length" and length is None:
        raise ValueError(
            "`padding='max_length'` pads to `max_length`, and with targets to `max_target_length`: give the length(s)."
        )
    longest = length if padding == "max_length" and length is not None else max(map(len, rows))
    return longest if multiple_of is None else -(-longest // multiple_of) * multiple_of


# Tokenizers pad a row at a time, and ask for their padding token at each: most of the time that a batch would take.
def padded(rows: list[list[int]], filling: int, length: int, on_the_left: bool = False) -> list[list[int]]:
    """`rows`, with `filling` in front or behind where they are shorter than `length`."""
    fillings = ([filling] * (length - len(row)) for row in rows)
    return [each + row if on_the_left else row + each for row, each in zip(rows, fillings)]


def check_rows(name: str, rows: list, has_tokens) -> None:
    """Raises a `ValueError` that names the rows for which `has_tokens` is false."""
    empty = [index for index, row in enumerate(rows) if not has_tokens(row)]
    if empty:
        raise ValueError(f"`{name}` holds no token in row(s) {empty[:10]} of the batch: every row needs at least one.")


__all__ = ["as_tokens", "check_rows", "padded", "padded_length"]
