"""The folder of an export, which holds the old one or the new one, and never a part of each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..training.files import remove

LANGUAGE_MODEL, ENCODER, PROMPT_FILE = "lm", "encoder", "latent_prompt.safetensors"
# An export is written in here. Without a prompt file beside it, it tells of one that was stopped.
_UNFINISHED = ".export.unfinished"


def check_export_directory(directory: Path, overwrite: bool) -> None:
    """Raises a `ValueError` if something lies where an export is to be written; what was stopped half way does not count."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"`directory` {directory} is a file; choose a directory.")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if (directory / PROMPT_FILE).is_file():
        if not overwrite:
            raise ValueError(f"`directory` {directory} holds an export: choose another directory, or replace it with `overwrite`.")
    elif not (directory / _UNFINISHED).is_dir():
        raise ValueError(f"`directory` {directory} holds something else than an export: choose an empty directory or a new one.")


@contextmanager
def replaced_export(directory: Path) -> Iterator[Path]:
    """
    A folder to write a whole export into, which then takes the place of the one in `directory`, if there is one. If the writing
    fails, all is as it was before. Other files are left alone.

    Args:
        directory (`Path`): one that [`check_export_directory`] lets pass.
    """
    written, is_new = directory / _UNFINISHED, not directory.exists()
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    try:
        if not (directory / PROMPT_FILE).is_file():
            # Left by an exchange that was stopped.
            _remove_export(directory)
        yield written
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        if is_new and not any(directory.iterdir()):
            directory.rmdir()
        raise
    _remove_export(directory)
    # The prompt file, without which there is no export, comes last.
    for path in sorted(written.iterdir(), key=lambda path: path.name == PROMPT_FILE):
        path.rename(directory / path.name)
    written.rmdir()


def _remove_export(directory: Path) -> None:
    """The prompt file first: without it what is left is no export."""
    for name in (PROMPT_FILE, LANGUAGE_MODEL, ENCODER):
        remove(directory / name)
