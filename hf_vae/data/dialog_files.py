"""Dialogues from files or the Hub, as contexts with their replies."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from datasets import Dataset

from ..checks import check_count
from ..processing_dialog import SYSTEM
from ..processing_vae import is_text
from .readers import Rows, as_text, column_names, read_rows

logger = logging.getLogger(__name__)


def as_examples(
    turns: Sequence[dict], meta: dict[str, Any] | None = None, max_turns: int = 10, with_references: bool = False
) -> Iterable[dict]:
    """
    Every turn of a dialogue but the first, and those of the system, as a reply to those before it.

    Args:
        turns (`list[dict]`): `{"speaker", "text"}`, and if they are known an `act`, and `references`, replies to that turn.
        meta (`dict`, *optional*): what else is known of the dialogue.
        max_turns (`int`, defaults to 10): the last turns of a context that are kept.
        with_references (`bool`, defaults to `False`): a turn's references are the targets, if it has some; else the turn that
            follows is the only one.

    Yields:
        Rows with `source`, a dialogue as [`DialogCVAEProcessor`] takes it, and `targets`. The act is that of the turn that follows.
    """
    for number, turn in enumerate(turns):
        following = turns[number + 1] if number + 1 < len(turns) and turns[number + 1]["speaker"] != SYSTEM else None
        references = list(turn.get("references") or ()) if with_references else []
        targets = references or ([following["text"]] if following else [])
        if not targets:
            continue
        messages = [
            {"role": each["speaker"], "content": each["text"]} for each in turns[max(0, number + 1 - max_turns) : number + 1]
        ]
        role, act = (None, None) if following is None else (following["speaker"], following.get("act"))
        yield {"source": {"messages": messages, "role": role, "act": act, "meta": meta}, "targets": targets}


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
    Contexts with their replies.

    Args:
        path_or_name (`str`): a `.jsonl` or `.json` file, or the name of a dataset on the Hub. A row has `turns`, a list of
            `{"speaker", "text"}` with an optional `act`; every turn is a reply to those before it, but for those of the speaker
            `"system"`. With a `response`, and optionally its `act` and its `response_speaker`, in the row, only that is. If turns
            have `references`, lists of replies to that turn, those are the targets.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        max_turns (`int`, defaults to 10): the last turns of a context that are kept.
        meta_columns (`list[str]`): columns that are told of the dialogue besides its turns, each of numbers or of texts.
        max_rows (`int`, *optional*): use only as many contexts, from the first on.
        encoding, quoting (`str`, *optional*): of a file, as in [`load_texts`].

    Returns:
        `Dataset` with the columns `source` (a dialogue with `messages`, `role`, the reply's `act`, and `meta`) and `targets`
        (replies; the first one is the one with that act).

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is none.
        ValueError: the file has no rows or is malformed, a column is missing, a dialogue has no turns or a turn no text, some
            contexts have references and others have not, or nothing is a reply.
    """
    if max_rows is not None:
        check_count("max_rows", max_rows)
    examples = dialogs_of(read_rows(path_or_name, split, None, encoding, quoting), path_or_name, max_turns, meta_columns)
    rows = list(itertools.islice(examples, max_rows))
    if not rows:
        raise ValueError(f"{path_or_name} holds no turn that replies to another one.")
    return Dataset.from_list(rows)


def dialogs_of(data: Rows, name: str, max_turns: int, meta_columns: Sequence[str] = (), first: int = 0) -> Iterator[dict]:
    """
    The contexts in rows with their replies, as [`load_dialogs`] returns them.

    Args:
        data: a `Dataset`, or rows. A number or a truth value in a text's place is the text that JSON writes for it.
        name (`str`): what the data is called in errors.
        max_turns (`int`): the last turns of a context that are kept.
        meta_columns (`list[str]`): columns that are told of the dialogue besides its turns.
        first (`int`, defaults to 0): how many rows stand before these, for the numbers in errors.

    Raises:
        ValueError: a column is missing, a dialogue has no turns, a turn or a reply no text, an act is no text, the system replies,
            or a column of `meta_columns` has more than one of numbers, texts and truth values, or something else.
    """
    check_count("max_turns", max_turns)
    kinds: dict[str, str] = {}
    known = column_names(data)
    missing = [column for column in ("turns", *meta_columns) if column not in known]
    if missing:
        raise ValueError(f"{name} has no column {', '.join(missing)}; it has {', '.join(known)}.")
    for number, row in enumerate(data, start=first):
        turns = row.get("turns") or []
        if not isinstance(turns, list) or not turns:
            raise ValueError(f"Dialogue {number} of {name} has no turns: `turns` is {turns!r} and should be a list of turns.")
        turns = [_turn(turn, f"Dialogue {number} of {name}") for turn in turns]
        unsaid = [column for column in meta_columns if row.get(column) is None]
        if unsaid:
            raise ValueError(f"Dialogue {number} of {name} has no value in {', '.join(unsaid)}. Mend or remove it.")
        for column in meta_columns:
            kind = _kind(row[column])
            if kind is None or kinds.setdefault(column, kind) != kind:
                expected = "a number or a text" if kind is None else f"a {kinds[column]}, as in the dialogues before it"
                raise ValueError(f"Dialogue {number} of {name} has {row[column]!r} in {column}; it should be {expected}.")
        meta = {column: row[column] for column in meta_columns} or None
        response = as_text(row.get("response"))
        if response is not None:
            if not is_text(response):
                raise ValueError(f"Dialogue {number} of {name} has no text in `response` (found {response!r}). Mend or remove it.")
            speaker, act = as_text(row.get("response_speaker")), _act(row, f"Dialogue {number} of {name}")
            if speaker == SYSTEM:
                raise ValueError(f"Dialogue {number} of {name} has the `response_speaker` {SYSTEM!r}, who never replies. Mend it.")
            messages = [{"role": turn["speaker"], "content": turn["text"]} for turn in turns[-max_turns:]]
            source = {"messages": messages, "role": speaker, "act": act, "meta": meta}
            yield {"source": source, "targets": [response]}
            continue
        answered = [turn for turn in turns if turn["references"]]
        if answered and len(answered) < len(turns) - 1:
            unanswered = next(i for i, turn in enumerate(turns) if not turn["references"])
            raise ValueError(
                f"Turn {unanswered} of dialogue {number} of {name} has no `references`, and others have: give some to "
                "every turn but the last, or to none."
            )
        yield from as_examples(turns, meta, max_turns, with_references=bool(answered))


def _turn(turn: Any, dialogue: str) -> dict:
    """A turn with its texts as texts; `dialogue` is what errors call the dialogue."""
    texts = {name: as_text(turn.get(name)) for name in ("speaker", "text")} if isinstance(turn, dict) else {}
    if not is_text(texts.get("speaker")) or not is_text(texts.get("text")):
        raise ValueError(
            f"{dialogue} has the turn {turn!r}: every turn needs a `speaker` and a `text`. Mend or remove it; none is skipped."
        )
    references = turn.get("references") or []
    # Anything but a list is not a list of texts.
    references = [as_text(reference) for reference in references] if isinstance(references, list) else [None]
    if not all(map(is_text, references)):
        raise ValueError(
            f"{dialogue} has a turn with the `references` {turn['references']!r}; they are a list of texts. Mend or remove them."
        )
    return {**texts, "act": _act(turn, dialogue), "references": references}


def _act(row: dict, dialogue: str) -> str | None:
    """The act of a turn or of a response, if it is known."""
    act = as_text(row.get("act"))
    if act is not None and not is_text(act):
        raise ValueError(f"{dialogue} has the `act` {act!r}; it is a text, or null if it is not known. Mend or remove it.")
    return act


def _kind(value: Any) -> str | None:
    """What a value that is told of a dialogue is; `None` for what a processor does not read."""
    if isinstance(value, bool):
        return "truth value"
    if isinstance(value, (int, float)) and math.isfinite(value):
        return "number"
    return "text" if is_text(value) else None


__all__ = ["as_examples", "dialogs_of", "load_dialogs"]
