"""The texts that a page shows: some rows of a file, or what a model writes by itself."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from datasets import Dataset

from ..checks import check_count
from ..data import dialogs_of, grammar, pairs_of, texts_of
from ..data.files import file_rows, is_file_name
from ..data.readers import as_text, read_rows
from ..processing_conditional_vae import ConditionalVAEProcessor
from ..processing_dialog import DialogCVAEProcessor
from ..processing_vae import VAEProcessor

logger = logging.getLogger(__name__)

# Points that a map still shows, and that a browser draws at once.
MOST_POINTS = 2000
# A column of more different texts says nothing as a colour.
MOST_VALUES = 50
# So few whole numbers are classes, such as 0 and 1.
FEW_NUMBERS = 8


@dataclass
class Corpus:
    """
    Args:
        texts (`list[str]`): y.
        origin (`str`): where they come from, in a sentence.
        sources (`list`, *optional*): x of each, as the processor takes it.
        columns (`dict[str, list]`): what else is known of each, by name: texts or numbers, `None` where it is not known.
        latents (`torch.Tensor` of shape `(texts, latent_size)`, *optional*): the z of which each was written, if it was.
    """

    texts: list[str]
    origin: str
    sources: list[Any] | None = None
    columns: dict[str, list] = field(default_factory=dict)
    latents: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Corpus:
        """Some of the texts, with all that belongs to them."""
        return Corpus(
            texts=[self.texts[row] for row in rows],
            origin=self.origin,
            sources=None if self.sources is None else [self.sources[row] for row in rows],
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
            latents=None if self.latents is None else self.latents[list(rows)],
        )


def sampled(rows: Iterable[Any], most: int, seed: int = 0) -> tuple[list[Any], int]:
    """
    At most `most` of the `rows`, in their order, each as likely as any other (reservoir sampling: Vitter 1985, algorithm R), and
    how many rows there were. No more than `most` are held at once.

    Raises:
        ValueError: `most` is below 1.
    """
    check_count("most", most)
    rows, drawn = iter(rows), random.Random(seed)
    kept = list(enumerate(islice(rows, most)))
    total = len(kept)
    for row in rows:
        place = drawn.randrange(total + 1)
        if place < most:
            kept[place] = (total, row)
        total += 1
    return [row for _, row in sorted(kept, key=lambda each: each[0])], total


def read_corpus(
    path_or_name: str,
    processor: VAEProcessor,
    split: str = "test",
    text_column: str = "text",
    source_column: str = "source",
    target_column: str = "targets",
    most: int = MOST_POINTS,
    seed: int = 0,
    encoding: str | None = None,
    quoting: str | None = None,
) -> Corpus:
    """
    Some of the rows of a file or of a named dataset, as this processor's model reads them: texts, pairs with their first target,
    or dialogues with their replies. Columns besides come along.

    Args:
        path_or_name, split, text_column, source_column, target_column, encoding, quoting: as [`hf_vae.data.load_texts`] and
            [`hf_vae.data.load_pairs`] take them.
        processor ([`VAEProcessor`]): of the model.
        most (`int`, defaults to 2000): texts at most; of more, a sample.
        seed (`int`, defaults to 0): of the sample.

    Returns:
        [`Corpus`], whose `origin` says how many rows there were.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the rows are malformed, or have no such column.
    """
    rows, total = _sampled_rows(path_or_name, split, most, seed, encoding, quoting)
    name = path_or_name if len(rows) == total else f"the sample of {path_or_name}"
    if isinstance(processor, DialogCVAEProcessor):
        meta = [*processor.meta_categories, *processor.meta_values]
        examples, replies = sampled(dialogs_of(rows, name, processor.max_turns, meta), most, seed)
        if not examples:
            raise ValueError(f"{path_or_name} holds no turn that replies to another one: give dialogues of two turns or more.")
        acts = [each["source"]["act"] for each in examples]
        known = processor.acts or ()
        corpus = Corpus(
            texts=[each["targets"][0] for each in examples],
            origin="",
            # The file may know of acts that the model was not told.
            sources=[{**each["source"], "act": act if act in known else None} for each, act in zip(examples, acts)],
            columns=_as_columns({"act": acts}),
        )
        total, unit = (replies, "replies") if len(rows) == total else (total, "dialogues")
    elif isinstance(processor, ConditionalVAEProcessor):
        pairs = pairs_of(rows, name, source_column, target_column)
        if not pairs:
            raise ValueError(f"{path_or_name} holds no pair of a source and a different target: every target equals its source.")
        others = [row for row in rows if not _is_copy(row, source_column, target_column)]
        corpus = Corpus(
            texts=[pair["targets"][0] for pair in pairs],
            origin="",
            sources=[pair["source"] for pair in pairs],
            columns=_columns_beside(others, source_column, target_column),
        )
        unit = "pairs"
    else:
        texts = texts_of(rows, name, text_column)
        # A row of several texts says nothing of each of them.
        columns = _columns_beside(rows, text_column) if len(texts) == len(rows) else {}
        corpus = Corpus(texts=texts, origin="", columns=columns)
        if len(texts) != len(rows):
            # Rows of several texts each, of which there are more than rows.
            total, unit = (len(texts), "texts") if len(rows) == total else (total, "rows")
            corpus = corpus.select(sampled(range(len(texts)), most, seed)[0])
        else:
            unit = "texts"
    if len(corpus) < total:
        corpus.origin = f"{len(corpus):,} of the {total:,} {unit} of {path_or_name}, drawn by chance with seed {seed}."
    else:
        corpus.origin = f"All {len(corpus):,} {unit} of {path_or_name}."
    return corpus


def embedded_corpus(processor: VAEProcessor, most: int = 1000, seed: int = 0) -> Corpus:
    """Sentences of the embedded grammar, or pairs of two that say the same, with their forms as columns."""
    rows = grammar.draw_pairs(most, seed)
    if isinstance(processor, ConditionalVAEProcessor):
        sources: list[Any] | None = [row["source"] for row in rows]
        texts, unit = [row["targets"][0] for row in rows], "pairs"
    else:
        sources, texts, unit = None, [row["source"] for row in rows], "sentences"
    parses = [grammar.parse_source(text) for text in texts]
    return Corpus(
        texts=texts,
        origin=f"{len(texts):,} {unit} of the embedded grammar, drawn with seed {seed}.",
        sources=sources,
        columns={
            "opening": [grammar.OPENINGS[each.meaning.mood][each.form.opening] or "(none)" for each in parses],
            "voice": [each.form.voice for each in parses],
            "time": [each.form.time_position.replace("_", " ") for each in parses],
        },
    )


def _sampled_rows(
    path_or_name: str, split: str, most: int, seed: int, encoding: str | None, quoting: str | None
) -> tuple[list[dict[str, Any]], int]:
    """At most `most` rows as they are, and how many there are."""
    if is_file_name(path_or_name):
        return sampled(file_rows(path_or_name, encoding, quoting), most, seed)
    data = read_rows(path_or_name, split, None, encoding, quoting)
    chosen, total = sampled(range(len(data)), most, seed)
    return (data.select(chosen).to_list() if isinstance(data, Dataset) else [data[row] for row in chosen]), total


def _is_copy(row: dict[str, Any], source_column: str, target_column: str) -> bool:
    """Whether [`pairs_of`] leaves the row out, because it has no target but its source."""
    targets = row[target_column] if isinstance(row[target_column], list) else [row[target_column]]
    return all(as_text(target) == as_text(row[source_column]) for target in targets)


def _columns_beside(rows: Sequence[dict[str, Any]], *columns: str) -> dict[str, list]:
    """The columns of `rows` besides those named."""
    names = dict.fromkeys(name for row in rows for name in row)
    return _as_columns({name: [row.get(name) for row in rows] for name in names if name not in columns})


def _as_columns(columns: dict[str, list]) -> dict[str, list]:
    """Those that can be a colour: numbers, or few different texts, and not all the same."""
    found: dict[str, list] = {}
    for name, values in columns.items():
        known = [value for value in values if value is not None]
        if not all(isinstance(value, (str, int, float)) for value in known) or len(different := set(map(str, known))) < 2:
            continue
        numbers = _as_numbers(values)
        if numbers is not None:
            found[name] = numbers
        elif len(different) <= MOST_VALUES:
            found[name] = [None if value is None else str(value) for value in values]
    return found


def _as_numbers(values: Sequence[Any]) -> list[float | None] | None:
    """`values` as numbers, which a table writes out; `None` if they are labels, as texts and few whole numbers are."""
    if any(isinstance(value, bool) for value in values):
        return None
    try:
        numbers = [None if value is None or value == "" else float(value) for value in values]
    except (ValueError, OverflowError):
        return None
    different = {number for number in numbers if number is not None}
    return None if len(different) <= FEW_NUMBERS and all(number.is_integer() for number in different) else numbers
