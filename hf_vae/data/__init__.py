"""The grammar corpus and the readers of the examples' file formats."""

from .readers import expand_all_pairs, expand_targets, held_out_files, load_pairs, load_texts

__all__ = ["expand_all_pairs", "expand_targets", "held_out_files", "load_pairs", "load_texts"]
