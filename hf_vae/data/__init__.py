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
from .replaced_words import replace_words
from .streaming import first_pairs, stream_pairs
from .vectors import Fingerprint, embed_texts, load_vectors, read_fingerprint, save_vectors

__all__ = [
    "PAIRINGS",
    "Fingerprint",
    "dialog_of",
    "dialogs_of",
    "embed_texts",
    "expand_all_pairs",
    "expand_both_ways",
    "expand_targets",
    "first_pairs",
    "held_out_files",
    "load_dialogs",
    "load_pairs",
    "load_texts",
    "load_vectors",
    "pairs_of",
    "read_fingerprint",
    "replace_words",
    "save_vectors",
    "split_text",
    "split_texts",
    "stream_pairs",
    "texts_of",
]
