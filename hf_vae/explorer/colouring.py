"""By what the points of a map are coloured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from ..latent_attribute import LatentAttribute
from .corpus import Corpus
from .explored import Explored

# As many as can be told apart; all others share one more.
MOST_COLOURS = 8
LENGTH, NORM = "length in words", "distance from 0"


@dataclass
class Colouring:
    """
    Args:
        kind (`str`): `"labels"` or `"numbers"`.
        values (`list`): of each text the number of its label, or its number; `None` if it is not known.
        labels (`list[str]`): by their numbers; of numbers empty.
        counts (`list[int]`): texts of each label.
        lowest, highest (`float`): the ends of the scale of numbers.
    """

    kind: str
    values: list[Any]
    labels: list[str]
    counts: list[int]
    lowest: float = 0.0
    highest: float = 0.0


def colour_names(explored: Explored, corpus: Corpus) -> list[str]:
    """By what this corpus can be coloured: its columns, what the model's attributes say, and what is known of any text."""
    return [*corpus.columns, *map(_predicted, explored.model.latent_attributes), LENGTH, NORM]


def _predicted(attribute: str) -> str:
    return f"{attribute}, as z says"


def colour(explored: Explored, corpus: Corpus, codes: torch.Tensor, name: str) -> Colouring:
    """
    The colour of each text.

    Args:
        explored ([`Explored`]): the model.
        corpus ([`Corpus`]): the texts.
        codes (`torch.Tensor` of shape `(texts, latent_size)`): their z.
        name (`str`): one of [`colour_names`].

    Raises:
        ValueError: there is no such name.
    """
    attributes = {_predicted(each): each for each in explored.model.latent_attributes}
    if name in corpus.columns:
        return colour_by(corpus.columns[name])
    if name in attributes:
        with explored.lock:
            attribute = cast(LatentAttribute, explored.model.latent_attributes[attributes[name]])
            return colour_by(attribute.predict(codes))
    if name == LENGTH:
        return colour_by([float(len(text.split())) for text in corpus.texts])
    if name == NORM:
        return colour_by(codes.norm(dim=1).tolist())
    raise ValueError(f"There is no colour {name!r}; choose one of {', '.join(colour_names(explored, corpus))}.")


def colour_by(values: Sequence[Any]) -> Colouring:
    """The colouring of texts by labels, the commonest first, or by numbers."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, (str, bool)) for value in known):
        texts = [None if value is None else str(value) for value in values]
        ranked = [label for label, _ in sorted(Counter(filter(None, texts)).items(), key=lambda each: (-each[1], each[0]))]
        labels = ranked if len(ranked) <= MOST_COLOURS + 1 else [*ranked[:MOST_COLOURS], "all others"]
        numbers = {label: min(number, len(labels) - 1) for number, label in enumerate(ranked)}
        placed = [None if text is None or text not in numbers else numbers[text] for text in texts]
        found = Counter(placed)
        return Colouring("labels", placed, labels, [found[number] for number in range(len(labels))])
    numbers_only = [None if value is None or not math.isfinite(value) else float(value) for value in values]
    finite = [value for value in numbers_only if value is not None]
    return Colouring("numbers", numbers_only, [], [], min(finite, default=0.0), max(finite, default=0.0))
