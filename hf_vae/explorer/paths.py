"""From one text to another, with the words that change."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from ..latent_space import Interpolation, interpolate
from ..processing_vae import is_text
from .explored import Explored


@dataclass
class Word:
    """A word of a text, and what changed: nothing (`""`), it is `"new"`, or it is `"gone"` and nothing stands in its place."""

    text: str
    change: str = ""


def marked(before: str, after: str) -> list[Word]:
    """
    The words of `after`, which whitespace separates, beside those of `before`. New are the words outside of the longest common
    blocks. Words that have gone, with none in their place, stand where they were.
    """
    old, new = before.split(), after.split()
    words: list[Word] = []
    for kind, start, end, begin, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "delete":
            words += [Word(word, "gone") for word in old[start:end]]
        words += [Word(word, "" if kind == "equal" else "new") for word in new[begin:stop]]
    return words


def walk(
    explored: Explored, start: str, end: str, written_source: str | None = None, steps: int = 21, method: str = "linear"
) -> Interpolation:
    """
    The texts on the way between two, as [`hf_vae.latent_space.interpolate`] gives them.

    Args:
        explored ([`Explored`]): the model.
        start, end (`str`): the ends.
        written_source (`str`, *optional*): x, for a conditional model.
        steps (`int`, defaults to 21): points, the ends included.
        method (`str`, defaults to `"linear"`): or `"spherical"`.

    Raises:
        ValueError: a text is missing, too long, or without a code.
    """
    for name, text in (("first", start), ("last", end)):
        if not is_text(text):
            raise ValueError(f"The {name} text is empty: a path has two ends, so write a text for each.")
    source = explored.as_source(written_source)
    codes = explored.encode([start.strip(), end.strip()], None if source is None else [source, source]).mode()
    with explored.lock:
        given = {} if source is None else dict(explored.processor(source))
        options = {"max_new_tokens": explored.max_new_tokens, **given}
        return interpolate(explored.model, explored.processor, codes[0], codes[1], steps, method, **options)
