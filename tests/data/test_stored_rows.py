"""Rows on disk under keys: found again, added to, never half there."""

import numpy as np
import pytest

from hf_vae.data.stored_rows import KEY_BYTES, StoredRows


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


def rows_of(number: int) -> np.ndarray:
    """Entry `number` has as many rows as its number says, at most four."""
    return np.random.default_rng(number).standard_normal((1 + number % 4, 3)).astype("<f4")


def fill(stored, numbers):
    with stored.adding() as writer:
        for number in numbers:
            writer.add(key(number), rows_of(number))


def check(stored, numbers):
    read, lengths = stored.read(stored.find([key(number) for number in numbers]))
    assert lengths.tolist() == [len(rows_of(number)) for number in numbers]
    np.testing.assert_array_equal(read, np.concatenate([rows_of(number) for number in numbers]))


def test_rows_are_found_in_any_order_over_several_parts_and_by_another_reader(tmp_path):
    stored = StoredRows(tmp_path / "rows", 3, "<f4")
    assert len(stored) == 0 and stored.find([key(1)]).tolist() == [-1]
    # A key that comes twice is kept once.
    fill(stored, [3, 1, 1])
    fill(stored, [2, 7, 5])
    for reader in (stored, StoredRows(tmp_path / "rows", 3, "<f4")):
        check(reader, [5, 3, 2, 1, 7, 3])
        assert len(reader) == 5 and reader.find([key(1), key(9)]).tolist()[1] == -1
        assert reader.num_bytes == sum(len(rows_of(number)) for number in (1, 2, 3, 5, 7)) * 12


def test_what_is_read_is_a_copy(tmp_path):
    stored = StoredRows(tmp_path, 3, "<f4")
    fill(stored, [1])
    stored.read(stored.find([key(1)]))[0][:] = 0
    check(stored, [1])


def test_of_a_part_that_is_broken_off_nothing_stays(tmp_path):
    stored = StoredRows(tmp_path, 3, "<f4")
    fill(stored, [1])
    before = sorted(tmp_path.rglob("*"))

    def broken_off():
        with stored.adding() as writer:
            writer.add(key(2), rows_of(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert sorted(tmp_path.rglob("*")) == before
    # What a killed process leaves is not read either.
    (tmp_path / "unfinished-1").mkdir()
    (tmp_path / "unfinished-1" / "rows.bin").write_bytes(b"1234")
    assert len(StoredRows(tmp_path, 3, "<f4")) == 1


def test_two_runs_may_add_at_once(tmp_path):
    one, other = StoredRows(tmp_path, 3, "<f4"), StoredRows(tmp_path, 3, "<f4")
    with one.adding() as first, other.adding() as second:
        for writer in (first, second):
            writer.add(key(1), rows_of(1))
        second.add(key(2), rows_of(2))
    one.refresh()
    check(one, [1, 2, 1])


def test_nothing_to_add_writes_nothing(tmp_path):
    with StoredRows(tmp_path / "rows", 3, "<f4").adding():
        pass
    assert not (tmp_path / "rows").exists()


def test_damage_and_rows_of_another_size_are_refused(tmp_path):
    stored = StoredRows(tmp_path, 3, "<f4")
    with stored.adding() as writer, pytest.raises(ValueError, match=r"expected 16, and \(rows, 3\)"):
        writer.add(key(1), np.zeros((1, 4)))
    fill(stored, [1])
    [part] = tmp_path.glob("part-*")
    (part / "rows.bin").write_bytes(b"1234")
    with pytest.raises(OSError, match=r"is damaged \(rows.bin has 4 bytes, and should have 24\): remove that folder"):
        StoredRows(tmp_path, 3, "<f4")
