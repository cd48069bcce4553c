"""Word vectors from text files, as GloVe and word2vec write them."""

from __future__ import annotations

import math
import os
import re

import numpy as np


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def load_word_vectors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """
    The vectors of a text file: a word and its numbers on each line, with blanks between them. A first line of two whole numbers is
    word2vec's header `count dimension`. Words keep their case, and the first of two lines for one word counts.

    Args:
        path: the file, in UTF-8.

    Returns:
        By word an array (dimension,) in float32.

    Raises:
        ValueError: a line has another dimension than the header or the first line, or something in place of a number; or there
            are no vectors. It names the file, the line and what was found.
    """
    vectors: dict[str, np.ndarray] = {}
    dimension, told_by = 0, ""
    # Files of the web's words contain broken characters, which are no reason to lose the other words.
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            # Not `split()`: some words are blanks of other scripts.
            fields = re.split("[ \t]+", line.rstrip(" \t\r\n"))
            if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                dimension, told_by = int(fields[1]), "the header"
                continue
            if fields == [""]:
                continue
            if not dimension:
                dimension, told_by = len(fields) - 1, f"line {number}"
            # Some files have words with blanks in them (". . ."). Numbers before the last `dimension` fields are too many of them.
            start = max(1, len(fields) - dimension)
            if any(_is_number(field) for field in fields[1:start]):
                start = 1
            word, values = " ".join(fields[:start]), fields[start:]
            if not values or len(values) != dimension:
                expected = f"{told_by} has {dimension}" if dimension else "there must be numbers"
                raise ValueError(
                    f"{os.fspath(path)}, line {number}: a vector of dimension {len(values)}, but {expected}. Give a complete text "
                    "file of word vectors."
                )
            try:
                vector = [float(value) for value in values]
            except ValueError:
                vector = [math.nan]
            if not all(map(math.isfinite, vector)):
                raise ValueError(
                    f"{os.fspath(path)}, line {number}: the vector of {word!r} has something other than finite numbers. Give a "
                    "text file of word vectors."
                )
            if word not in vectors:
                vectors[word] = np.array(vector, dtype=np.float32)
    if not vectors:
        raise ValueError(f"{os.fspath(path)} has no word vectors: give a text file with a word and its numbers on each line.")
    return vectors
