"""The grammar corpus and its dialogues, and the readers of the examples' file formats."""

from .readers import PAIRINGS, expand_all_pairs, expand_both_ways, expand_targets, held_out_files, load_pairs, load_texts

__all__ = ["PAIRINGS", "expand_all_pairs", "expand_both_ways", "expand_targets", "held_out_files", "load_pairs", "load_texts"]
