"""Texts to complete: what comes first is given, the rest is to be generated (the quadrants of Sohn et al. 2015, in text)."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from datasets import Dataset

logger = logging.getLogger(__name__)


def split_text(text: str, given: float) -> tuple[str, str]:
    """
    The first words of a text and the rest: of n words between white space ⌊`given` · n⌋ come first. White space becomes one space.
    Either part may be empty.
    """
    words = text.split()
    first = int(given * len(words))
    return " ".join(words[:first]), " ".join(words[first:])


def split_texts(texts: Iterable[str], given: float) -> Dataset:
    """
    Beginnings with what follows them.

    Args:
        texts (iterable of `str`): whole texts.
        given (`float`): share of a text's words that is given, between 0 and 1.

    Returns:
        `Dataset` with the columns `source` (the beginning) and `targets` (a list of the one rest). A text that is too short to
        have a word in both, one of fewer than 1 / `given` words, is left out and counted in a warning.

    Raises:
        ValueError: `given` is out of range, or every text is too short.
    """
    if not 0 < given < 1:
        raise ValueError(f"`given` is {given}; it is a share between 0 and 1, so that some words are given and some are left.")
    pairs = [split_text(text, given) for text in texts]
    rows = [{"source": first, "targets": [rest]} for first, rest in pairs if first and rest]
    if not rows:
        raise ValueError(f"None of {len(pairs)} text(s) is long enough to be split with `given` {given}: both parts need a word.")
    short = len(pairs) - len(rows)
    if short:
        logger.warning("Left out %d of %d text(s), too short to be split with `given` %g.", short, len(pairs), given)
    return Dataset.from_list(rows)
