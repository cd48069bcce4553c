"""The grammar corpus and its dialogues, and the readers of the examples' file formats."""

from .completions import split_texts
from .dialog_files import load_dialogs
from .readers import PAIRINGS, expand_all_pairs, expand_both_ways, expand_targets, held_out_files, load_pairs, load_texts

__all__ = [
    "PAIRINGS",
    "expand_all_pairs",
    "expand_both_ways",
    "expand_targets",
    "held_out_files",
    "load_dialogs",
    "load_pairs",
    "load_texts",
    "split_texts",
]
