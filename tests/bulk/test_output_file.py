"""The file of outputs: whole rows, whatever a kill has left."""

import json

import pytest

from hf_vae.bulk import output_file
from hf_vae.bulk.output_file import OutputFile

SETTINGS = {"num": 2, "seed": 0, "model": "here", "weights": "ab"}
ROWS = [{"source": f"é {i}\u2028", "outputs": ["a", "b" * i], "seed": 0, "nats": [1.5, None]} for i in range(3)]


def whole(file):
    return list(file.rows())


def write(path, rows=ROWS, settings=SETTINGS):
    file = OutputFile(path, settings)
    whole(file)
    file.start()
    file.append(rows)
    file.close()
    return path.read_bytes()


def test_a_file_that_is_cut_anywhere_is_completed_to_the_same_bytes(tmp_path, monkeypatch):
    # Some hundred times the disk would be waited for.
    monkeypatch.setattr(output_file.os, "fsync", lambda _: None)
    path = tmp_path / "out.jsonl"
    complete = write(path)
    ends = [place + 1 for place, byte in enumerate(complete) if byte == ord("\n")]
    assert len(ends) == 3
    for cut in range(len(complete) + 1):
        path.write_bytes(complete[:cut])
        file = OutputFile(path, SETTINGS)
        file.check_settings()
        there = whole(file)
        assert there == ROWS[: sum(end <= cut for end in ends)]
        assert file.is_torn is (cut not in (0, *ends))
        file.start()
        file.append(ROWS[len(there) :])
        file.close()
        assert path.read_bytes() == complete


def test_zeros_that_a_power_cut_leaves_are_dropped(tmp_path):
    path = tmp_path / "out.jsonl"
    complete = write(path)
    path.write_bytes(complete + bytes(100))
    file = OutputFile(path, SETTINGS)
    assert whole(file) == ROWS and file.is_torn


@pytest.mark.parametrize("content", ["[]", "null", "3"])
def test_settings_are_an_object(tmp_path, content):
    path = tmp_path / "out.jsonl"
    write(path)
    path.with_name("out.jsonl.run").write_text(content)
    with pytest.raises(ValueError, match=r"out.jsonl.run holds .* and no settings by name: name another file"):
        OutputFile(path, SETTINGS).check_settings()


def test_nothing_is_changed_before_the_start(tmp_path):
    path = tmp_path / "out.jsonl"
    write(path)
    path.write_bytes(path.read_bytes()[:-3])
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    file = OutputFile(path, SETTINGS)
    file.check_settings()
    whole(file)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"num": 3}, "was written with `num` 2, and now it is 3. Give what it was written with"),
        ({"top_p": 0.5}, "was written with `top_p` None, and now it is 0.5"),
        ({"weights": "cd"}, "was written with other weights than those of here, or in another number format"),
    ],
)
def test_other_settings_are_named(tmp_path, changed, message):
    path = tmp_path / "out.jsonl"
    write(path)
    with pytest.raises(ValueError, match=message):
        OutputFile(path, SETTINGS | changed).check_settings()
    # A model that has moved is the same, and a file without rows is nobody's.
    OutputFile(path, SETTINGS | {"model": "there"}).check_settings()
    path.write_bytes(b"")
    OutputFile(path, SETTINGS | changed).check_settings()


def test_a_file_that_something_else_has_written_is_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"mine": 1}\n', encoding="utf-8")
    file = OutputFile(path, SETTINGS)
    with pytest.raises(ValueError, match=r"without out.jsonl.run beside it nothing says how it was written"):
        file.check_settings()
    file.settings_path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is no JSON"):
        file.check_settings()
    with pytest.raises(ValueError, match=r"Line 1 of .* is no row of outputs"):
        whole(file)
    write(tmp_path / "own.jsonl")
    text = (tmp_path / "own.jsonl").read_bytes()
    (tmp_path / "own.jsonl").write_bytes(text.replace(b'{"source"', b'"source"', 1))
    with pytest.raises(ValueError, match=r"Line 1 of .* is no row of outputs"):
        whole(OutputFile(tmp_path / "own.jsonl", SETTINGS))


def test_two_at_once_do_not_write_over_each_other(tmp_path):
    path = tmp_path / "out.jsonl"
    first, second = OutputFile(path, SETTINGS), OutputFile(path, SETTINGS)
    assert whole(first) == whole(second) == []
    first.start()
    with pytest.raises(ValueError, match=r"Another process is writing to .*out.jsonl"):
        second.start()
    first.append(ROWS)
    first.close()
    # It has looked at the file before the other one wrote.
    with pytest.raises(ValueError, match=r"Another process has written to .* since it was read"):
        second.start()
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == ROWS
