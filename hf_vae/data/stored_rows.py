"""
Rows of numbers on disk, found by a key: what is there is never changed, only added to, and is read as it is asked for.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# A key is a digest of this many bytes. Two of 10^9 keys are the same with a probability of 10^-21.
KEY_BYTES = 16
_ROWS, _KEYS, _LENGTHS = "rows.bin", "keys.npy", "lengths.npy"
_FINISHED, _UNFINISHED = "part-", "unfinished-"


class StoredRows:
    """
    Entries on disk: under each key some rows of `size` numbers.

    Each [`~StoredRows.adding`] makes a part of its own, a folder that gets its name when it is finished. So a reader never meets
    half an entry, and several runs may read and add at once.

    Args:
        folder (`str`): where the parts lie; it need not exist yet.
        size (`int`): numbers in a row.
        dtype: of the numbers, as numpy takes it.

    Raises:
        OSError: a part is damaged.
    """

    def __init__(self, folder: str | Path, size: int, dtype: Any):
        self.folder, self.size, self.dtype = Path(folder), size, np.dtype(dtype)
        self._entries: dict[bytes, int] = {}
        self._parts: list[np.ndarray] = []
        self._places = np.zeros((0, 3), dtype=np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Looks for parts that have been added since."""
        self._entries, self._parts, places = {}, [], [np.zeros((0, 3), dtype=np.int64)]
        number = 0
        for part in sorted(self.folder.glob(f"{_FINISHED}*")):
            rows, keys, lengths = self._open(part)
            starts = np.cumsum(lengths) - lengths
            places.append(np.stack([np.full_like(lengths, len(self._parts)), starts, lengths], axis=1))
            # What two runs have added at once is there twice, and the same.
            self._entries.update(zip((key.tobytes() for key in keys), range(number, number + len(keys))))
            number += len(keys)
            self._parts.append(rows)
        self._places = np.concatenate(places)

    def _open(self, part: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            keys, lengths = np.load(part / _KEYS), np.load(part / _LENGTHS)
            found, expected = (part / _ROWS).stat().st_size, int(lengths.sum()) * self.size * self.dtype.itemsize
            if found != expected or keys.shape != (len(lengths), KEY_BYTES):
                raise ValueError(f"{_ROWS} has {found} bytes, and should have {expected}")
            rows = np.memmap(part / _ROWS, dtype=self.dtype, mode="r").reshape(-1, self.size)
        except (OSError, ValueError, EOFError) as error:
            raise OSError(f"{part} is damaged ({error}): remove that folder, and what was in it is computed again.") from None
        return rows, keys, lengths

    def __len__(self) -> int:
        """Entries."""
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Size on disk of the rows."""
        return sum(part.nbytes for part in self._parts)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """The number of each key's entry, `(keys,)`; -1 if there is none."""
        return np.fromiter((self._entries.get(key, -1) for key in keys), dtype=np.int64, count=len(keys))

    def read(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        The rows of these entries, one entry behind the other: `(rows, size)`, a copy in memory; and how many rows each entry has,
        `(entries,)`.
        """
        parts, starts, lengths = self._places[numbers].T
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        where = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
        owners = np.repeat(parts, lengths)
        read = np.empty((total, self.size), dtype=self.dtype)
        for part in np.unique(owners):
            chosen = owners == part
            read[chosen] = self._parts[part][where[chosen]]
        return read, lengths

    @contextmanager
    def adding(self) -> Iterator[RowWriter]:
        """
        What is added inside is there once the block has ended. Of a block that an exception ends nothing stays.
        """
        name = uuid.uuid4().hex
        writer = RowWriter(self.folder / f"{_UNFINISHED}{name}", self.size, self.dtype)
        try:
            yield writer
            if writer.keys:
                writer.finish().rename(self.folder / f"{_FINISHED}{name}")
                self.refresh()
        finally:
            writer.discard()


class RowWriter:
    """
    Writes a part. The folder is made by the first entry: whoever has nothing to add may read a folder that is not theirs.

    Args:
        folder (`Path`): of the part.
        size, dtype: as of [`StoredRows`].
    """

    def __init__(self, folder: Path, size: int, dtype: np.dtype):
        self.folder, self._size, self._dtype = folder, size, dtype
        self.keys: dict[bytes, int] = {}
        self._file: Any = None

    def add(self, key: bytes, rows: np.ndarray) -> None:
        """
        Keeps `rows` under `key`, unless this part has it already.

        Args:
            key (`bytes`): of `KEY_BYTES` bytes.
            rows (`(rows, size)`): of any dtype that becomes this one.

        Raises:
            ValueError: a key of another length, or rows of another size.
        """
        if len(key) != KEY_BYTES or rows.ndim != 2 or rows.shape[1] != self._size:
            raise ValueError(
                f"`key` has {len(key)} bytes and `rows` has shape {rows.shape}; expected {KEY_BYTES}, and (rows, {self._size})."
            )
        if key in self.keys:
            return
        if self._file is None:
            self.folder.mkdir(parents=True)
            self._file = open(self.folder / _ROWS, "wb")  # noqa: SIM115 (closed by `finish` or `discard`)
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self.keys[key] = len(rows)

    def finish(self) -> Path:
        """Writes what finds the rows, and returns the folder of the part."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        np.save(self.folder / _KEYS, np.frombuffer(b"".join(self.keys), dtype=np.uint8).reshape(-1, KEY_BYTES))
        np.save(self.folder / _LENGTHS, np.array(list(self.keys.values()), dtype=np.int64))
        return self.folder

    def discard(self) -> None:
        """Removes what is left of an unfinished part."""
        if self._file is not None:
            self._file.close()
            shutil.rmtree(self.folder, ignore_errors=True)


__all__ = ["KEY_BYTES", "RowWriter", "StoredRows"]
