"""Several texts for each of many sources, from file to file: streamed, shared by processes, and resumed after a kill."""

from .generate import GeneratedFile, generate_to_file

__all__ = ["GeneratedFile", "generate_to_file"]
