"""The README's first table: what it measures, and how it is put into the page."""

import pytest

import hf_vae
from benchmarks import what_z_is_for
from benchmarks.what_z_is_for import MARKS, measure, table


def test_the_table_has_a_column_for_each_model_and_says_what_seq2seq_cannot_do(tmp_path, monkeypatch):
    measured = measure(hf_vae.demo("paraphrase"), hf_vae.demo("sentences"), None, num=8, num_timed=1)
    alone = table(measured)
    assert "without z" not in alone and "cannot" not in alone
    ten = measured["z"]
    assert 0 <= ten["distinct_correct"] <= ten["distinct"] <= 10 and ten["ms"] > 0
    whole = table({**measured, "beam": ten, "sampling": ten})
    assert whole.count("cannot") == 8 and {line.count("|") for line in whole.splitlines()} == {5}
    page = tmp_path / "README.md"
    monkeypatch.setattr(what_z_is_for, "README", page)
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nbehind\n")
    what_z_is_for.write(whole)
    assert page.read_text() == f"before\n{MARKS[0]}\n{whole}\n{MARKS[1]}\nbehind\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="needs them once"):
        what_z_is_for.write(whole)
