"""The grammar corpus and its dialogues, and the readers of the examples' file formats."""

from .completions import split_text, split_texts
from .dialog_files import dialog_of, dialogs_of, load_dialogs
from .readers import (
    PAIRINGS,
    expand_all_pairs,
    expand_both_ways,
    expand_targets,
    held_out_files,
    load_pairs,
    load_texts,
    pairs_of,
    texts_of,
)
from .streaming import first_pairs, stream_pairs

__all__ = [
    "PAIRINGS",
    "dialog_of",
    "dialogs_of",
    "expand_all_pairs",
    "expand_both_ways",
    "expand_targets",
    "first_pairs",
    "held_out_files",
    "load_dialogs",
    "load_pairs",
    "load_texts",
    "pairs_of",
    "split_text",
    "split_texts",
    "stream_pairs",
    "texts_of",
]
