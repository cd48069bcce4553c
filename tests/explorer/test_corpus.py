"""Which rows of a file a page shows, and what is known of them."""

from collections import Counter

import pytest

from helpers import make_published, write_rows
from hf_vae.data import grammar
from hf_vae.explorer import embedded_corpus, read_corpus, sampled
from hf_vae.explorer.corpus import MOST_VALUES


def test_a_sample_is_of_all_rows_alike_and_in_their_order():
    assert sampled(range(5), 10) == ([0, 1, 2, 3, 4], 5)
    rows, total = sampled(iter(range(1000)), 20, seed=3)
    assert total == 1000 and len(rows) == 20 and rows == sorted(rows) and sampled(range(1000), 20, seed=3)[0] == rows
    # Of six rows three: each in half of 2000 samples, to four standard deviations.
    found = Counter(row for seed in range(2000) for row in sampled(range(6), 3, seed)[0])
    assert all(abs(found[row] - 1000) < 4 * 500**0.5 for row in range(6))


def test_a_long_file_is_sampled_and_says_so(tmp_path):
    file = tmp_path / "many.txt"
    file.write_text("".join(f"text {number}\n" for number in range(100_000)), encoding="utf-8")
    corpus = read_corpus(str(file), make_published("vae")[1], most=50, seed=1)
    assert len(corpus) == 50 and corpus.origin == f"50 of the 100,000 texts of {file}, drawn by chance with seed 1."


def test_columns_come_along(tmp_path):
    rows = [
        {"text": f"text {n}", "genre": "ab"[n % 2], "score": n / 7, "stars": n % 5, "id": f"row {n}", "tags": [n], "same": 1}
        for n in range(MOST_VALUES + 10)
    ]
    corpus = read_corpus(write_rows(tmp_path / "rows.jsonl", rows), make_published("vae")[1])
    assert corpus.origin == f"All {len(rows)} texts of {tmp_path / 'rows.jsonl'}."
    # Few whole numbers are labels; what differs in every row, is a list, or never differs, is no colour.
    assert list(corpus.columns) == ["genre", "score", "stars"]
    assert corpus.columns["stars"][:3] == ["0", "1", "2"] and corpus.columns["score"][7] == 1.0
    table = tmp_path / "rows.csv"
    table.write_text("text,score\n" + "".join(f"text {n},{n / 4}\n" for n in range(9)) + "last,\n", encoding="utf-8")
    assert read_corpus(str(table), make_published("vae")[1]).columns["score"][-2:] == [2.0, None]


def test_rows_of_several_texts_are_sampled_too(tmp_path):
    rows = [{"targets": [f"text {n} {k}" for k in range(4)]} for n in range(20)]
    file, processor = write_rows(tmp_path / "rows.jsonl", rows), make_published("vae")[1]
    corpus = read_corpus(file, processor, text_column="targets", most=40)
    assert corpus.origin == f"40 of the 80 texts of {file}, drawn by chance with seed 0."
    assert len(set(corpus.texts)) == 40 and any(text.startswith("text 19") for text in corpus.texts)
    few = read_corpus(file, processor, text_column="targets", most=10)
    assert len(few) == 10 and few.origin == f"10 of the 20 rows of {file}, drawn by chance with seed 0."


def test_pairs_that_are_copies_are_left_out_with_their_columns(tmp_path):
    rows = [{"source": "a dog", "targets": ["a dog"], "kind": "copy"}]
    rows += [{"source": "a dog", "targets": [f"dog {n}", "more"], "kind": "xy"[n % 2]} for n in range(4)]
    corpus = read_corpus(write_rows(tmp_path / "pairs.jsonl", rows), make_published("paraphrase")[1])
    assert corpus.texts == ["dog 0", "dog 1", "dog 2", "dog 3"] and corpus.columns == {"kind": ["x", "y", "x", "y"]}
    assert corpus.sources == ["a dog"] * 4


def test_dialogues_have_a_row_for_each_reply(tmp_path):
    turns = [{"speaker": "AB"[n % 2], "text": f"turn {n}", "act": act} for n, act in enumerate(["x", "other", "x"])]
    corpus = read_corpus(write_rows(tmp_path / "talk.jsonl", [{"turns": turns}] * 2), make_published("dialog")[1])
    assert corpus.texts == ["turn 1", "turn 2"] * 2 and corpus.columns == {"act": ["other", "x"] * 2}
    # The model was told of x, y and z alone.
    assert [source["act"] for source in corpus.sources] == [None, "x"] * 2


def test_numbers_that_are_too_large_to_be_a_colour_are_labels(tmp_path):
    rows = [{"text": text, "id": number} for text, number in (("a", 10**400), ("b", 7), ("c", 8))]
    corpus = read_corpus(write_rows(tmp_path / "rows.jsonl", rows), make_published("vae")[1])
    assert corpus.columns["id"] == [str(10**400), "7", "8"]


def test_a_file_without_the_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no column text; it has line"):
        read_corpus(write_rows(tmp_path / "rows.jsonl", [{"line": "a"}]), make_published("vae")[1])


def test_the_embedded_corpus_has_the_forms_as_columns():
    corpus = embedded_corpus(make_published("paraphrase")[1], 5)
    for text, source, voice in zip(corpus.texts, corpus.sources, corpus.columns["voice"], strict=True):
        parsed = grammar.parse_source(text)
        assert parsed.form.voice == voice and parsed.meaning == grammar.parse_source(source).meaning
