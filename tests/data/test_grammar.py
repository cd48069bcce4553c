"""The embedded grammar: its law, its parser and its splits."""

import math

import pytest

from hf_vae.data import (
    grammar,
)

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
    with pytest.raises(ValueError, match="is not a sentence of the grammar"):
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


def test_splits_share_no_meaning_and_rows_do_not_depend_on_how_many():
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


def test_sentences_are_the_sources_of_pairs_and_splits_share_none():
    test, train = grammar.draw_sentences(50, seed=3), grammar.draw_sentences(500, seed=3, skip=50)
    assert test == [row["source"] for row in grammar.draw_pairs(50, seed=3, num_targets=5)]
    meanings = [{grammar.parse(text).meaning for text in texts} for texts in (test, train)]
    assert len(meanings[0]) == 50 and len(meanings[1]) == 500 and not meanings[0] & meanings[1]
    assert set(test) != set(grammar.draw_sentences(50, seed=4))
    data = grammar.load_sentences(5, seed=3, skip=2)
    assert data.column_names == ["text"] and list(data["text"]) == test[2:7]


def test_the_entropy_of_a_sentence_is_that_of_the_law_it_is_drawn_by(monkeypatch):
    """On a grammar cut down to two words a slot: every sentence is enumerated."""
    slots = [slot[:2] for slot in grammar._SLOTS]
    monkeypatch.setattr(grammar, "_SLOTS", slots)
    monkeypatch.setattr(grammar, "NUM_MEANINGS", 2 ** len(slots))
    meanings = [grammar.meaning_at(index) for index in range(grammar.NUM_MEANINGS)]
    sentences = {grammar.realize(meaning, form) for meaning in meanings for form in grammar.FORMS}
    # All distinct, so that a meaning and a form, drawn uniformly, are a sentence drawn uniformly.
    assert len(sentences) == 64 * 36
    assert grammar.sentence_entropy() == pytest.approx(-sum(math.log(1 / len(sentences)) / len(sentences) for _ in sentences))
    # 400 draws of 64 sentences: each form is in 1/36 of them, 711 times; five standard deviations are 132. Each draw without
    # repetition has all 64 meanings once, so they need no count.
    drawn = [text for seed in range(400) for text in grammar.draw_sentences(64, seed)]
    assert set(drawn[:64]) <= sentences and len({grammar.parse(text).meaning for text in drawn[:64]}) == 64
    forms = dict.fromkeys(grammar.FORMS, 0)
    for text in drawn:
        forms[grammar.parse(text).form] += 1
    assert all(abs(count - 711) < 132 for count in forms.values())
    # And which meaning comes first is anyone's.
    first = {grammar.parse(drawn[64 * seed]).meaning for seed in range(400)}
    assert len(first) > 60


def test_judging_outputs():
    right = grammar.paraphrases(SOURCE)
    other = grammar.realize(grammar.meaning_at(1), grammar.FORMS[0])
    judged = grammar.judge([[right[0], right[0], SOURCE, other, "no sentence"]], [SOURCE])
    # Four of five are sentences, three keep the meaning, and the copy is no paraphrase: one is left.
    assert judged == {"grammatical": 0.8, "meaning_kept": 0.6, "distinct_correct": 1.0}


def test_a_sentence_is_described_in_words():
    assert grammar.describe("it seems that the lamp was bought by the farmer at noon in the market .") == "it seems that, passive"
    assert grammar.describe("the farmer bought the lamp in the market at noon .") == "no opening, active"
