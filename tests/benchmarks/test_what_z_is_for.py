"""The README's first table: what it measures, and how it is put into the page."""

import pytest

import hf_vae
from benchmarks import what_z_is_for
from benchmarks.what_z_is_for import MARKS, form_transfer, load, measure, table
from hf_vae.data import grammar


def test_the_form_that_a_model_transfers_is_compared_with_the_wanted_one(monkeypatch):
    """A model that says b as it stands has b's form, which is never the wanted one; one that answers right has it always."""
    model, processor = load(hf_vae.demo("paraphrase"))
    sources = []

    def encode(model, processor, texts, sources):
        assert all(grammar.parse(text).meaning == grammar.parse(source).meaning for text, source in zip(texts, sources))
        forms.extend(grammar.parse(text).form for text in texts)
        return type("Posterior", (), {"mode": lambda self: None})()

    def copy(model, processor, z, input_ids, **more):
        sources.extend(processor.encoder_tokenizer.batch_decode(input_ids, skip_special_tokens=True))
        return sources

    forms: list = []
    monkeypatch.setattr(what_z_is_for, "encode_texts", encode)
    monkeypatch.setattr(what_z_is_for, "decode_latents", copy)
    shares = form_transfer(model, processor, 20)
    assert shares["exact"] == 0 and shares["meaning"] == 1
    right = [grammar.realize(grammar.parse(text).meaning, form) for text, form in zip(sources, forms)]
    monkeypatch.setattr(what_z_is_for, "decode_latents", lambda *args, **more: right)
    assert set(form_transfer(model, processor, 20).values()) == {1.0}


def test_the_table_has_a_column_for_each_model_and_says_what_seq2seq_cannot_do(tmp_path, monkeypatch):
    measured = measure(hf_vae.demo("paraphrase"), hf_vae.demo("sentences"), None, num=8, num_timed=1)
    alone = table(measured)
    assert "without z" not in alone and "cannot" not in alone
    ten = measured["z"]
    assert 0 <= ten["distinct_correct"] <= ten["distinct"] <= 10 and ten["ms"] > 0
    whole = table({**measured, "beam": ten, "sampling": ten})
    assert whole.count("cannot") == 6 and {line.count("|") for line in whole.splitlines()} == {5}
    page = tmp_path / "README.md"
    monkeypatch.setattr(what_z_is_for, "README", page)
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nbehind\n")
    what_z_is_for.write(whole)
    assert page.read_text() == f"before\n{MARKS[0]}\n{whole}\n{MARKS[1]}\nbehind\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="needs them once"):
        what_z_is_for.write(whole)
