"""Texts to complete: the beginning is given and the rest is generated (the quadrants of Sohn et al. 2015, for text)."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from datasets import Dataset

logger = logging.getLogger(__name__)


def split_text(text: str, given: float) -> tuple[str, str]:
    """
    Splits a text of n words after ⌊`given` · n⌋ of them. Words are separated by white space, which becomes one space. Either part
    may be empty.
    """
    words = text.split()
    first = int(given * len(words))
    return " ".join(words[:first]), " ".join(words[first:])


def split_texts(texts: Iterable[str], given: float) -> Dataset:
    """
    Splits each text into a beginning and the rest.

    Args:
        texts (iterable of `str`): whole texts.
        given (`float`): the share of a text's words that are given, between 0 and 1.

    Returns:
        `Dataset` with the columns `source` (the beginning) and `targets` (a list that holds the rest). A text of fewer than
        1 / `given` words has no word in its beginning: it is left out, and a warning says how many were.

    Raises:
        ValueError: `given` is out of range, or every text is too short.
    """
    if not 0 < given < 1:
        raise ValueError(
            f"`given` is {given}; it must be a share above 0 and below 1, so that some words are given and some are left."
        )
    pairs = [split_text(text, given) for text in texts]
    rows = [{"source": first, "targets": [rest]} for first, rest in pairs if first and rest]
    if not rows:
        raise ValueError(f"None of {len(pairs)} text(s) is long enough for `given` {given}: both parts of a text need a word.")
    short = len(pairs) - len(rows)
    if short:
        logger.warning("Left out %d of %d text(s), too short to be split with `given` %g.", short, len(pairs), given)
    return Dataset.from_list(rows)
