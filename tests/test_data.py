"""The grammar's truth, and what the readers accept."""

import json
import logging
import math

import pytest

from hf_vae.data import expand_targets, grammar, load_pairs

SOURCE = grammar.realize(grammar.meaning_at(123_456), grammar.FORMS[7])


def test_size():
    assert grammar.NUM_MEANINGS >= 10**5
    assert len(grammar.FORMS) >= 24
    assert 200 <= len(grammar.vocabulary()) <= 999
    words = [
        *grammar.AGENTS,
        *(word for pair in grammar.ACTIONS for word in pair),
        *grammar.OBJECTS,
        *grammar.PLACES,
        *grammar.TIMES,
    ]
    assert len(set(words)) == len(words), "a word that fills two slots would make sentences ambiguous"
    assert len(set(grammar.vocabulary())) == len(grammar.vocabulary()) > len(words)


@pytest.mark.parametrize("index", [0, 1, 123_456, grammar.NUM_MEANINGS - 1])
def test_parsing_inverts_realising_in_every_form(index):
    meaning = grammar.meaning_at(index)
    sentences = [grammar.realize(meaning, form) for form in grammar.FORMS]
    assert len(set(sentences)) == len(grammar.FORMS)
    for form, sentence in zip(grammar.FORMS, sentences, strict=True):
        assert grammar.parse(sentence) == (meaning, form)
        assert set(sentence.split()) <= set(grammar.vocabulary())


def test_meanings_are_numbered_without_repetition():
    assert len({grammar.meaning_at(index) for index in range(0, grammar.NUM_MEANINGS, 997)}) == len(
        range(0, grammar.NUM_MEANINGS, 997)
    )
    with pytest.raises(ValueError, match="`index` is -1"):
        grammar.meaning_at(-1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the farmer",
        "the farmer bought the farmer in the park at noon .",
        "the farmer bought the letter in the park at noon ?",
        "the letter was bought in the park at noon .",
        "is it true that the farmer bought the letter in the park at noon .",
        "the farmer bought the letter in the park at noon . .",
        "The farmer bought the letter in the park at noon .",
    ],
)
def test_what_is_no_sentence_does_not_parse(text):
    assert grammar.parse(text) is None


def test_the_law_sums_to_one_and_its_entropy_is_exact():
    support = grammar.paraphrases(SOURCE)
    assert len(support) == len(set(support)) == len(grammar.FORMS) - 1
    probabilities = [math.exp(grammar.log_prob(target, SOURCE)) for target in support]
    assert sum(probabilities) == pytest.approx(1)
    assert grammar.entropy() == pytest.approx(-sum(p * math.log(p) for p in probabilities))
    assert grammar.log_prob(SOURCE, SOURCE) == -math.inf
    assert grammar.log_prob("the farmer", SOURCE) == -math.inf
    with pytest.raises(ValueError, match="is no sentence of the grammar"):
        grammar.paraphrases("the farmer")


def test_pairs_are_drawn_by_that_law():
    """Over 7,200 pairs each of 36 forms is a target 200 times; five standard deviations are 70."""
    rows = grammar.draw_pairs(7_200, seed=1)
    forms = dict.fromkeys(grammar.FORMS, 0)
    for row in rows:
        source, target = grammar.parse(row["source"]), grammar.parse(row["targets"][0])
        assert source.meaning == target.meaning and source.form != target.form
        forms[target.form] += 1
    assert all(abs(count - 200) < 70 for count in forms.values())


def test_splits_of_a_seed_share_no_meaning_and_rows_do_not_depend_on_the_number_drawn():
    test, train = grammar.draw_pairs(50, seed=3, num_targets=5), grammar.draw_pairs(500, seed=3, skip=50)
    meanings = [{grammar.parse(row["source"]).meaning for row in rows} for rows in (test, train)]
    assert len(meanings[0]) == 50 and len(meanings[1]) == 500 and not meanings[0] & meanings[1]
    assert grammar.draw_pairs(20, seed=3, num_targets=5) == test[:20]
    assert len(set(test[0]["targets"])) == 5
    data = grammar.load_paraphrases(5, seed=3, num_targets=5)
    assert data.column_names == ["source", "targets"] and list(data) == test[:5]
    for options, message in (({"num_targets": 36}, "`num_targets` is 36"), ({"skip": grammar.NUM_MEANINGS}, "meanings")):
        with pytest.raises(ValueError, match=message):
            grammar.draw_pairs(1, seed=0, **options)


def test_judging_outputs():
    right = grammar.paraphrases(SOURCE)
    other = grammar.realize(grammar.meaning_at(1), grammar.FORMS[0])
    judged = grammar.judge([[right[0], right[0], SOURCE, other, "no sentence"]], [SOURCE])
    # Four of five are sentences, three keep the meaning, and the copy is no paraphrase: one is left.
    assert judged == {"grammatical": 0.8, "meaning_kept": 0.6, "distinct_correct": 1.0}


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_json_lines_with_one_or_many_targets(tmp_path):
    many = write(tmp_path / "many.jsonl", [{"source": "a b", "targets": ["c", "d"]}, {"source": "e", "targets": ["f"]}])
    assert list(load_pairs(many)) == [{"source": "a b", "targets": ["c", "d"]}, {"source": "e", "targets": ["f"]}]
    assert list(load_pairs(many, max_rows=1)) == [{"source": "a b", "targets": ["c", "d"]}]
    one = write(tmp_path / "one.jsonl", [{"q": "a", "p": "b"}])
    assert list(load_pairs(one, source_column="q", target_column="p")) == [{"source": "a", "targets": ["b"]}]
    assert [row["target"] for row in expand_targets(load_pairs(many))] == ["c", "d", "f"]


@pytest.mark.parametrize("suffix, separator", [("csv", ","), ("tsv", "\t")])
def test_tables(tmp_path, suffix, separator):
    path = tmp_path / f"pairs.{suffix}"
    path.write_text(f"source{separator}targets\nhow far is it{separator}what is the distance\n", encoding="utf-8")
    assert list(load_pairs(str(path))) == [{"source": "how far is it", "targets": ["what is the distance"]}]


def test_copies_are_left_out_and_said(tmp_path, caplog):
    path = write(tmp_path / "copies.jsonl", [{"source": "a", "targets": ["a ", "b"]}, {"source": "c", "targets": ["c"]}])
    with caplog.at_level(logging.WARNING):
        assert list(load_pairs(path)) == [{"source": "a", "targets": ["b"]}]
    assert "left out 2 target(s)" in caplog.text


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": "a"}], "has no column source, targets; it has text"),
        ([{"source": "a", "targets": ["b"]}, {"source": " ", "targets": ["b"]}], "Row 1 of .* has no text in `source`"),
        ([{"source": "a", "targets": [""]}], "Row 0 of .* has no text in `targets`"),
        ([{"source": "a", "targets": []}], "Row 0 of .* has no text in `targets`"),
        ([{"source": "a", "targets": ["a"]}], "holds no pair of a source and a different target"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_pairs(write(tmp_path / "bad.jsonl", rows))


def test_a_missing_file_is_no_dataset_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.jsonl"):
        load_pairs(str(tmp_path / "none.jsonl"))
