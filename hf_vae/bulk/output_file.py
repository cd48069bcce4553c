"""The file of outputs: whole rows in the order of the sources, and beside it what they were written with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

COLUMNS = ("source", "outputs", "seed", "nats")


class OutputFile:
    """
    JSON lines that only ever grow by whole rows, and `PATH.run` beside them: the settings that all of them were written with. After
    a kill the last row may be torn; it is dropped, and written again.

    Args:
        path (`str`): the file.
        settings (`dict`): of this run, as JSON has them.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]):
        self.path, self.settings = Path(path), dict(settings)
        self.settings_path = Path(f"{path}.run")
        # Bytes of the whole rows that `rows` has passed, and of the file as it began.
        self._whole = self._size = 0
        self._file: BinaryIO | None = None

    def check_settings(self) -> None:
        """
        Raises a `ValueError` that names the first setting by which this run would write other rows than those that are there, or
        if they are nobody's.
        """
        if not self.path.exists() or not self.path.stat().st_size:
            return
        try:
            written = json.loads(self.settings_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"{self.path} is there, and without {self.settings_path.name} beside it nothing says how it was written: name "
                "another file."
            ) from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.settings_path} is no JSON ({error}): name another file of outputs.") from error
        if not isinstance(written, dict):
            raise ValueError(f"{self.settings_path} holds {written!r} and no settings by name: name another file of outputs.")
        # A model may have moved; its weights say which one it is.
        for name in [each for each in {**self.settings, **written} if each != "model"]:
            before, now = written.get(name), self.settings.get(name)
            if before != now:
                said = f"`{name}` {before!r}, and now it is {now!r}"
                if name == "weights":
                    said = f"other weights than those of {self.settings.get('model')}, or in another number format"
                raise ValueError(
                    f"{self.path} was written with {said}. Give what it was written with to go on there ({self.settings_path.name} "
                    "has it), or name another file."
                )

    def rows(self) -> Iterator[dict[str, Any]]:
        """
        The whole rows that are there, one after another.

        Raises:
            ValueError: a line that is no row of outputs.
        """
        self._whole = self._size = 0
        if not self.path.exists():
            return
        self._size = self.path.stat().st_size
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict) or not set(COLUMNS) <= set(row):
                    raise ValueError(
                        f"Line {number + 1} of {self.path} is no row of outputs, so something else has written there: name another "
                        "file."
                    )
                self._whole += len(line)
                yield row

    @property
    def is_torn(self) -> bool:
        """Whether something follows the whole rows that [`~OutputFile.rows`] has passed."""
        return self._size > self._whole

    def start(self) -> None:
        """
        Drops what follows the whole rows that [`~OutputFile.rows`] has passed, writes the settings, and waits for rows.

        Raises:
            ValueError: another process is writing there, or has written since.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        _lock(self._file)
        if os.fstat(self._file.fileno()).st_size != self._size:
            raise ValueError(f"Another process has written to {self.path} since it was read: start the command again.")
        beside = self.settings_path.with_name(f"{self.settings_path.name}.new")
        beside.write_text(json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        # At once or not at all.
        os.replace(beside, self.settings_path)
        self._file.truncate(self._whole)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes rows behind those that are there; when it returns they are on the disk."""
        if self._file is None:
            raise RuntimeError("`start` comes before `append`.")
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Lets others write there. If no row was written, neither file stays: the run was refused at its first block."""
        if self._file is not None:
            if not os.fstat(self._file.fileno()).st_size:
                self.settings_path.unlink(missing_ok=True)
                # While nobody else may write there. Windows removes no open file, and keeps the empty one.
                with suppress(PermissionError):
                    self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def _lock(file: BinaryIO) -> None:
    """Raises a `ValueError` if another process holds the file. The system lets go of it when that one ends, however it ends."""
    if find_spec("fcntl") is None:
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"Another process is writing to {file.name}: let it end, or name another file.") from None
    except OSError:
        # Some file systems have no locks.
        return
