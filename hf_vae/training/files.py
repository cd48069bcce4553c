"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_whole(path: str | Path, text: str) -> None:
    """
    Writes `text` beside `path` and renames it: whoever is stopped leaves the old file or the new one. Half a character, as JSON can
    hold, becomes a question mark.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(text.encode("utf-8", "replace"))
    os.replace(unfinished, path)


def remove(path: Path) -> None:
    """Removes a file, a folder with all that is in it, or a link and nothing of what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
