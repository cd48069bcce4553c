"""Dialogues from files or the Hub, as contexts with their replies."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from datasets import Dataset

from .readers import _read

logger = logging.getLogger(__name__)


def as_examples(
    turns: Sequence[dict], meta: dict[str, Any] | None = None, max_turns: int = 10, with_references: bool = False
) -> Iterable[dict]:
    """
    Every turn of a dialogue but the first as a reply to those before it.

    Args:
        turns (`list[dict]`): `{"speaker", "text"}`, and where they are known an `act`, and `references`, replies to that turn.
        meta (`dict`, *optional*): what else is known of the dialogue.
        max_turns (`int`, defaults to 10): the last turns of a context that are kept.
        with_references (`bool`, defaults to `False`): a turn's references are the targets, where it has some; else the turn that
            follows is the only one.

    Yields:
        Rows with `source`, a dialogue as [`DialogCVAEProcessor`] takes it, and `targets`. The act is that of the turn that follows.
    """
    for number, turn in enumerate(turns):
        following = turns[number + 1] if number + 1 < len(turns) else None
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
) -> Dataset:
    """
    Contexts with their replies.

    Args:
        path_or_name (`str`): a `.jsonl` or `.json` file, or the name of a dataset on the Hub. A row has `turns`, a list of
            `{"speaker", "text"}` with an optional `act`; every turn is a reply to those before it. With a `response`, and
            optionally its `act`, in the row, only that is. Where turns have `references`, lists of replies to that turn, those are
            the targets.
        split (`str`, defaults to `"train"`): which split of a named dataset; a file is read whole.
        max_turns (`int`, defaults to 10): the last turns of a context that are kept.
        meta_columns (`list[str]`): columns that are told of the dialogue besides its turns.
        max_rows (`int`, *optional*): use only as many contexts, from the first on.

    Returns:
        `Dataset` with the columns `source` (a dialogue with `messages`, `role`, the reply's `act`, and `meta`) and `targets`
        (replies; the first one is the one with that act).

    Raises:
        FileNotFoundError: `path_or_name` ends like a file and there is none.
        ValueError: the file has no rows or is malformed, a column is missing, a dialogue has no turns or a turn no text, some
            contexts have references and others have not, or nothing is a reply.
    """
    examples = dialogs_of(_read(path_or_name, split), path_or_name, max_turns, meta_columns)
    rows = list(itertools.islice(examples, max_rows))
    if not rows:
        raise ValueError(f"{path_or_name} holds no turn that replies to another one.")
    return Dataset.from_list(rows)


def dialogs_of(data: Dataset, name: str, max_turns: int, meta_columns: Sequence[str] = (), first: int = 0) -> Iterator[dict]:
    """The examples of the rows `data` of what is called `name`, as [`load_dialogs`] has them; `first` rows stand before these."""
    missing = [column for column in ("turns", *meta_columns) if column not in data.column_names]
    if missing:
        raise ValueError(f"{name} has no column {', '.join(missing)}; it has {', '.join(data.column_names)}.")
    for number, row in enumerate(data, start=first):
        turns = row["turns"] or []
        bad = [turn for turn in turns if not str(turn.get("speaker") or "").strip() or not str(turn.get("text") or "").strip()]
        if not turns or bad:
            raise ValueError(
                f"Dialogue {number} of {name} has {'no turns' if not turns else f'the turn {bad[0]!r}'}: every turn needs "
                "a `speaker` and a `text`. Mend or remove it; none is skipped."
            )
        meta = {column: row[column] for column in meta_columns} or None
        unsaid = [column for column in meta_columns if row[column] is None]
        if unsaid:
            raise ValueError(f"Dialogue {number} of {name} has no value in {', '.join(unsaid)}. Mend or remove it.")
        if row.get("response"):
            speaker = row.get("response_speaker")
            messages = [{"role": turn["speaker"], "content": turn["text"]} for turn in turns[-max_turns:]]
            source = {"messages": messages, "role": speaker, "act": row.get("act"), "meta": meta}
            yield {"source": source, "targets": [row["response"]]}
            continue
        answered = [turn for turn in turns if turn.get("references")]
        if answered and len(answered) < len(turns) - 1:
            unanswered = next(i for i, turn in enumerate(turns) if not turn.get("references"))
            raise ValueError(
                f"Turn {unanswered} of dialogue {number} of {name} has no `references`, and others have: give some to "
                "every turn but the last, or to none."
            )
        yield from as_examples(turns, meta, max_turns, with_references=bool(answered))
