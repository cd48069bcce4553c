"""Dialogues from files or the Hub, as contexts with their replies."""

from __future__ import annotations

import itertools
import logging
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from ..checks import check_count
from ..processing_dialog import SYSTEM
from ..processing_vae import is_text
from .readers import Rows, as_text, column_names, read_rows

logger = logging.getLogger(__name__)

# Whole numbers of a dataset have 64 bits.
LEAST_TOO_LARGE = 2**63


def as_examples(
    turns: Sequence[dict], meta: dict[str, Any] | None = None, max_turns: int = 10, with_references: bool = False
) -> Iterable[dict]:
    """
    Makes an example of every turn of a dialogue as a reply to the turns before it. The first turn and the system's turns are not
    replies.

    Args:
        turns (`list[dict]`): the turns, `{"speaker", "text"}`, with an optional `act`, and optional `references`, a list of
            replies to the turn.
        meta (`dict`, *optional*): what else is known about the dialogue.
        max_turns (`int`, defaults to 10): the number of turns that a context keeps, the last ones.
        with_references (`bool`, defaults to `False`): whether a turn's references, if it has some, are the targets. Otherwise the
            turn after it is the only target.

    Yields:
        Rows with `source`, a dialogue as [`DialogCVAEProcessor`] takes it, and `targets`. The act is the act of the next turn.
    """
    for number, turn in enumerate(turns):
        following = turns[number + 1] if number + 1 < len(turns) and turns[number + 1]["speaker"] != SYSTEM else None
        references = list(turn.get("references") or ()) if with_references else []
        targets = references or ([following["text"]] if following else [])
        if not targets:
            continue
        role, act = (None, None) if following is None else (following["speaker"], following.get("act"))
        yield _example(turns[: number + 1], role, act, meta, targets, max_turns)


def _example(turns: Sequence[dict], role: str | None, act: str | None, meta: Any, targets: list[str], max_turns: int) -> dict:
    return {"source": _context(turns, role, act, meta, max_turns), "targets": targets}


def _context(turns: Sequence[dict], role: str | None, act: str | None, meta: Any, max_turns: int) -> dict:
    messages = [{"role": turn["speaker"], "content": turn["text"]} for turn in turns[-max_turns:]]
    return {"messages": messages, "role": role, "act": act, "meta": meta}


def load_dialogs(
    path_or_name: str,
    split: str = "train",
    max_turns: int = 10,
    meta_columns: Sequence[str] = (),
    max_rows: int | None = None,
    encoding: str | None = None,
    quoting: str | None = None,
) -> Dataset:
    """
    Loads contexts with their replies.

    Args:
        path_or_name (`str`): a `.jsonl` or `.json` file, or the name of a dataset on the Hub. A row has `turns`, a list of
            `{"speaker", "text"}` with an optional `act`. Every turn is a reply to the turns before it, except those of the speaker
            `"system"`. If a row has a `response`, with an optional `act` and an optional `response_speaker`, only that is a reply.
            If turns have `references`, lists of replies to the turn, the references are the targets.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        max_turns (`int`, defaults to 10): the number of turns that a context keeps, the last ones.
        meta_columns (`list[str]`): columns that describe the dialogue besides its turns, each of numbers or of texts.
        max_rows (`int`, *optional*): the number of contexts to read, from the first on; all by default.
        encoding, quoting (`str`, *optional*): a file's encoding and quoting, as in [`load_texts`].

    Returns:
        `Dataset` with the columns `source` (a dialogue with `messages`, `role`, the reply's `act`, and `meta`) and `targets` (the
        replies; the act belongs to the first one).

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is no such file.
        ValueError: the file has no rows or is malformed, a column is missing, a dialogue has no turns, a turn has no text, some
            turns have references and others do not, or no turn is a reply.
    """
    if max_rows is not None:
        check_count("max_rows", max_rows)
    examples = dialogs_of(read_rows(path_or_name, split, None, encoding, quoting), path_or_name, max_turns, meta_columns)
    rows = list(itertools.islice(examples, max_rows))
    if not rows:
        raise ValueError(f"{path_or_name} holds no turn that replies to another one: give dialogues of two turns or more.")
    return Dataset.from_list(rows)


def dialogs_of(data: Rows, name: str, max_turns: int, meta_columns: Sequence[str] = (), first: int = 0) -> Iterator[dict]:
    """
    Extracts the contexts with their replies from rows, in the form in which [`load_dialogs`] returns them.

    Args:
        data: a `Dataset`, or a list of rows. A number or a truth value is read as the text that JSON writes for it.
        name (`str`): the name of the data in error messages.
        max_turns (`int`): the number of turns that a context keeps, the last ones.
        meta_columns (`list[str]`): columns that describe the dialogue besides its turns.
        first (`int`, defaults to 0): the number of rows already read, so that error messages number the rows of the whole file.

    Raises:
        ValueError: a column is missing, a dialogue has no turns, a turn or a reply has no text, an act is not a text, the system
            replies, or a column of `meta_columns` mixes numbers, texts and truth values, or has other values.
    """
    check_count("max_turns", max_turns)
    known = column_names(data)
    missing = [column for column in ("turns", *meta_columns) if column not in known]
    if missing:
        raise ValueError(f"{name} has no column {', '.join(missing)}; it has {', '.join(known)}. Name the ones that it has.")
    kinds: dict[str, str] = {}
    for number, row in enumerate(data, start=first):
        dialogue = f"Dialogue {number} of {name}"
        turns = _turns(row, dialogue)
        _check_meta(row, meta_columns, kinds, dialogue)
        meta = {column: row[column] for column in meta_columns} or None
        if row.get("response") is not None:
            speaker, act, response = _response(row, dialogue)
            yield _example(turns, speaker, act, meta, [response], max_turns)
            continue
        answered = [turn for turn in turns if turn["references"]]
        if answered and len(answered) < len(turns) - 1:
            unanswered = next(i for i, turn in enumerate(turns) if not turn["references"])
            raise ValueError(
                f"Turn {unanswered} of dialogue {number} of {name} has no `references`, and others have: give some to every turn "
                "but the last, or to none."
            )
        yield from as_examples(turns, meta, max_turns, with_references=bool(answered))


def dialog_of(row: Mapping[str, Any], name: str, number: int, max_turns: int, meta_columns: Sequence[str] = ()) -> dict:
    """
    The dialogue of a row up to its last turn, to which a reply is wanted.

    Args:
        row (`dict`): a row with `turns`, as [`load_dialogs`] reads it. `response_speaker` is who replies, and `act` the act that is
            asked for; both may be missing. A `response` is not read.
        name (`str`): the name of the data in error messages.
        number (`int`): the row's number in error messages.
        max_turns (`int`): the number of turns that are kept, the last ones.
        meta_columns (`list[str]`): columns that describe the dialogue besides its turns.

    Returns:
        `dict` with `messages`, `role`, `act` and `meta`, as [`DialogCVAEProcessor`] takes it.

    Raises:
        ValueError: there are no turns, a turn has no text, the act is not a text, the system is to reply, or a column is missing.
    """
    dialogue = f"Dialogue {number} of {name}"
    turns = _turns(row, dialogue)
    _check_meta(row, meta_columns, {}, dialogue)
    meta = {column: row[column] for column in meta_columns} or None
    return _context(turns, _response_speaker(row, dialogue), _act(row, dialogue), meta, max_turns)


def _turns(row: Mapping[str, Any], dialogue: str) -> list[dict]:
    """The turns of a row, checked; `dialogue` is what error messages call the row."""
    turns = row.get("turns") or []
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{dialogue} has no turns: `turns` is {turns!r} and should be a list of turns.")
    return [_turn(turn, dialogue) for turn in turns]


def _check_meta(row: Mapping[str, Any], columns: Sequence[str], kinds: dict[str, str], dialogue: str) -> None:
    """
    Raises a `ValueError` unless each of `columns` has a value, of the same kind as in the rows before. `kinds` holds the kind of
    each column and grows; `dialogue` is what error messages call the row.
    """
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        raise ValueError(f"{dialogue} has no value in {', '.join(missing)}: give it one, or remove the dialogue.")
    for column in columns:
        kind = _kind(row[column])
        if kind is None or kinds.setdefault(column, kind) != kind:
            expected = (
                "a finite number of at most 64 bits or a text"
                if kind is None
                else f"a {kinds[column]}, as in the dialogues before it"
            )
            raise ValueError(f"{dialogue} has {reprlib.repr(row[column])} in {column}; it should be {expected}.")


def _kind(value: Any) -> str | None:
    """The kind of a value that describes a dialogue; `None` if a processor cannot read it."""
    if isinstance(value, bool):
        return "truth value"
    if (isinstance(value, int) and abs(value) < LEAST_TOO_LARGE) or (isinstance(value, float) and math.isfinite(value)):
        return "number"
    return "text" if is_text(value) else None


def _turn(turn: Any, dialogue: str) -> dict:
    """A turn, checked; `dialogue` is what error messages call the dialogue."""
    texts = {name: as_text(turn.get(name)) for name in ("speaker", "text")} if isinstance(turn, dict) else {}
    if not is_text(texts.get("speaker")) or not is_text(texts.get("text")):
        raise ValueError(
            f"{dialogue} has the turn {turn!r}: every turn needs a `speaker` and a `text`. Correct or remove it: none is skipped."
        )
    given = turn.get("references") or []
    if not isinstance(given, list):
        raise ValueError(
            f"{dialogue} has a turn with the `references` {given!r}; they must be a list of texts. Correct or remove them."
        )
    references = [as_text(reference) for reference in given]
    for place, reference in enumerate(references):
        if not is_text(reference):
            raise ValueError(
                f"{dialogue} has a turn whose `references` have {given[place]!r} at place {place}, which is no text: {given!r}. "
                "Correct or remove it: none is skipped."
            )
    return {**texts, "act": _act(turn, dialogue), "references": references}


def _response(row: dict, dialogue: str) -> tuple[str | None, str | None, str]:
    """The speaker, the act and the text of a row's `response`, checked."""
    response = as_text(row["response"])
    if not is_text(response):
        raise ValueError(f"{dialogue} has no text in `response` (found {response!r}): correct or remove it.")
    act = _act(row, dialogue)
    return _response_speaker(row, dialogue), act, response


def _response_speaker(row: Mapping[str, Any], dialogue: str) -> str | None:
    """Who replies, if it is known."""
    speaker = as_text(row.get("response_speaker"))
    if speaker == SYSTEM:
        raise ValueError(f"{dialogue} has the `response_speaker` {SYSTEM!r}, which never replies: name another speaker.")
    return speaker


def _act(row: Mapping[str, Any], dialogue: str) -> str | None:
    """The act of a turn or of a response, if it is known."""
    act = as_text(row.get("act"))
    if act is not None and not is_text(act):
        raise ValueError(f"{dialogue} has the `act` {act!r}; it must be a text, or null if it is not known. Correct or remove it.")
    return act


__all__ = ["as_examples", "dialog_of", "dialogs_of", "load_dialogs"]
