"""The grammar corpus and the readers of the examples' file formats."""

from .readers import expand_targets, load_pairs

__all__ = ["expand_targets", "load_pairs"]
