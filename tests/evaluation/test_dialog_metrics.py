"""Metrics of dialogues against figures worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from hf_vae.evaluation.dialog_metrics import (
    act_match,
    bow_similarities,
    dialog_metrics,
    dialogwae_bleu,
    multi_reference_bleu,
    reply_distinct,
)
from hf_vae.evaluation.evaluate_metric import DialogMetric
from hf_vae.evaluation.word_vectors import load_word_vectors

# Two contexts with two replies each, the first with three references and the second with one.
HYPOTHESES = [["i am fine , thanks .", "leave me alone now"], ["at nine in the morning", "at ten ."]]
REFERENCES = [["I am very well , thanks .", "i am fine , and you ?", "Could be worse ."], ["At nine in the evening"]]


def nltk_bleu(hypothesis, reference, weights):
    tokens = [text.lower().split() for text in (reference, hypothesis)]
    return sentence_bleu([tokens[0]], tokens[1], weights, SmoothingFunction().method7)


def smoothed(precisions):
    """Chen & Cherry 2014, smoothing 5: each order averaged with the smoothed one before it and the next."""
    before, figures = precisions[0] + 1, []
    for this, following in itertools.pairwise(precisions):
        before = (before + this + following) / 3
        figures.append(before)
    return figures


def f1(precision, recall):
    return 2 * precision * recall / (precision + recall)


def test_bleu_of_one_pair_from_its_counts():
    # "a b x y" has 2 of its 4 words, 1 of its 3 pairs, 0 of its 2 triples, 0 of its 1 quadruple and no quintuple. Smoothing 4
    # gives the k-th order without a match ln(length) / (5 * 2^k) matches.
    precisions = smoothed([2 / 4, 1 / 3, math.log(4) / 10 / 2, math.log(4) / 20 / 1, 0])
    figures = multi_reference_bleu([["a b x y"]], [["a b c d"]])
    for order in range(1, 5):
        expected = math.prod(precisions[:order]) ** (1 / order)
        assert figures[f"bleu_{order}_precision"] == figures[f"bleu_{order}_recall"] == pytest.approx(expected)
    # A reply of half the length is multiplied by exp(1 - 4 / 2).
    precisions = smoothed([1, 1, math.log(2) / 10, math.log(2) / 20, 0])
    assert multi_reference_bleu([["a b"]], [["a b c d"]])["bleu_1_recall"] == pytest.approx(precisions[0] * math.exp(-1))


def test_bleu_of_a_reply_that_equals_its_reference():
    """What the docstring says of `method7`: it can exceed 1, for BLEU-1 up to 4/3."""
    figures = multi_reference_bleu([["a b c d e"]], [["a b c d e"]])
    assert figures["bleu_1_precision"] == pytest.approx(4 / 3)
    assert figures["bleu_4_precision"] == pytest.approx((4 / 3 * 10 / 9 * 28 / 27 * 82 / 81) ** (1 / 4))


def test_precision_and_recall_of_bleu():
    figures = multi_reference_bleu(HYPOTHESES, REFERENCES)
    for order in range(1, 5):
        weights = [1 / order] * order + [0] * (4 - order)
        first, second = ([[nltk_bleu(h, r, weights) for r in refs] for h in hyps] for hyps, refs in zip(HYPOTHESES, REFERENCES))
        precision = [(max(first[0]) + max(first[1])) / 2, (second[0][0] + second[1][0]) / 2]
        recall = [sum(max(first[0][j], first[1][j]) for j in range(3)) / 3, max(second[0][0], second[1][0])]
        assert sum(precision) != pytest.approx(sum(recall), rel=0.01)
        assert figures[f"bleu_{order}_precision"] == pytest.approx(sum(precision) / 2)
        assert figures[f"bleu_{order}_recall"] == pytest.approx(sum(recall) / 2)
        assert figures[f"bleu_{order}_f1"] == pytest.approx(f1(sum(precision) / 2, sum(recall) / 2))
    assert len(figures) == 12


def test_each_reference_counts_alone():
    """Two references that have half the reply each are no whole one."""
    halves = multi_reference_bleu([["a b c d"]], [["a b x y", "v w c d"]])
    assert halves == pytest.approx(multi_reference_bleu([["a b c d"]], [["a b x y"]]))


def test_texts_are_lower_cased_and_split_at_punctuation():
    assert multi_reference_bleu([["Hello,World! Don't"]], [["hello , world ! don ' t"]])["bleu_4_precision"] > 1


@pytest.mark.parametrize("metric", [multi_reference_bleu, dialogwae_bleu])
def test_replies_of_less_than_two_tokens_score_nothing(metric):
    """Beside others: equal to the reference or blank, they count as 0 in the mean and never raise."""
    one = metric([["yes ."]], [["yes .", "no ."]])
    three = metric([["yes .", "", "yes"]], [["yes .", "no ."]])
    for name, figure in one.items():
        if name.endswith("precision"):
            assert three[name] == pytest.approx(figure / 3) and figure > 0
        if name.endswith("recall"):
            assert three[name] == pytest.approx(figure)
    assert set(metric([["yes", ""]], [["yes"]]).values()) == {0.0}


def test_dialogwae_bleu():
    weights = [1 / 3] * 3
    first, second = ([[nltk_bleu(h, r, weights) for r in refs] for h in hyps] for hyps, refs in zip(HYPOTHESES, REFERENCES))
    precision = [sum(first[0] + first[1]) / 6, (second[0][0] + second[1][0]) / 2]
    recall = [sum(max(first[0][j], first[1][j]) for j in range(3)) / 3, max(second[0][0], second[1][0])]
    figures = dialogwae_bleu(HYPOTHESES, REFERENCES)
    precision, recall = sum(precision) / 2, sum(recall) / 2
    assert figures == pytest.approx(
        {"dialogwae_bleu_precision": precision, "dialogwae_bleu_recall": recall, "dialogwae_bleu_f1": f1(precision, recall)}
    )
    # Three orders smooth the third with the fifth, four with the fourth.
    assert recall != pytest.approx(multi_reference_bleu(HYPOTHESES, REFERENCES)["bleu_3_recall"], rel=1e-3)


VECTORS = {"right": np.array([1.0, 0.0]), "up": np.array([0.0, 1.0]), "far": np.array([-3.0, 0.0]), "left": np.array([-1.0, 0.0])}


def bow(hypotheses, references, vectors=VECTORS):
    return bow_similarities(hypotheses, references, vectors)


def test_mean_and_extrema_of_one_pair():
    # The mean of (1, 0), (-3, 0) and (0, 1) is (-2, 1) / 3; its extrema are -3, further from 0 than 1, and 1. Against (0, 1).
    figures = bow([["right far Up!"]], [["up"]])
    assert figures["a_bow_precision"] == figures["a_bow_recall"] == pytest.approx((1 / math.sqrt(5) + 1) / 2)
    assert figures["e_bow_precision"] == figures["e_bow_recall"] == pytest.approx((1 / math.sqrt(10) + 1) / 2)
    # Where both are as far from 0 it is the largest; a mean of zeros is unrelated to everything.
    figures = bow([["left right"]], [["right"]])
    assert (figures["e_bow_precision"], figures["a_bow_precision"]) == pytest.approx((1, 0.5))
    assert bow([["left"]], [["right"]])["a_bow_precision"] == pytest.approx(0)


def test_precision_and_recall_of_word_vectors():
    # (cos + 1) / 2 of "right", "up" (rows) with "right", "left" (columns): [[1, 0], [1/2, 1/2]]; then of "far", "up" with "left".
    figures = bow([["right", "up"], ["far", "up"]], [["right", "left"], ["left"]])
    precision, recall = ((1 + 1 / 2) / 2 + (1 + 1 / 2) / 2) / 2, ((1 + 1 / 2) / 2 + 1) / 2
    for name in ("a_bow", "e_bow"):
        assert figures[f"{name}_precision"] == pytest.approx(precision)
        assert figures[f"{name}_recall"] == pytest.approx(recall)
        assert figures[f"{name}_f1"] == pytest.approx(f1(precision, recall))


def test_words_and_texts_without_a_vector_are_left_out():
    known = bow([["right"]], [["up"]])
    assert known["bow_contexts"] == 1
    # A word, a reply, a blank reply, a reference.
    assert bow([["right zzz", "zzz", ""]], [["zzz", "up"]]) == pytest.approx(known)
    # A context without a reply that has a word, and one without such a reference.
    assert bow([["right"], ["zzz"], ["up"]], [["up"], ["up"], ["zzz"]]) == pytest.approx(known)
    with pytest.raises(ValueError, match="`word_vectors` has no word of the replies"):
        bow([["zzz"], ["up"]], [["up"], ["zzz"]])


def test_bad_vectors_are_named():
    with pytest.raises(ValueError, match=r"`word_vectors` has vectors of the shapes \[\(2,\), \(3,\)\]"):
        bow([["right"]], [["up"]], {**VECTORS, "down": np.zeros(3)})
    with pytest.raises(ValueError, match=r"`word_vectors` has vectors of the shapes \[\]"):
        bow([["right"]], [["up"]], {})
    with pytest.raises(ValueError, match=r"of the shapes \[\(\)\]"):
        bow([["right"]], [["up"]], {"right": 1.0})


@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_word_vectors_from_a_file(tmp_path, header):
    path = tmp_path / "vectors.txt"
    # Trailing blanks as word2vec writes them, a word with blanks, a word that is a blank, a second line for one word, an empty one.
    path.write_text(header + "up 0 1 \n. . . 1.5 -2e-1\r\n\u00a0\t3 4\nup 7 7\n\nUp 5 6", encoding="utf-8", newline="")
    vectors = load_word_vectors(path)
    expected = {"up": [0, 1], ". . .": [1.5, -0.2], "\u00a0": [3, 4], "Up": [5, 6]}
    assert {word: vector.tolist() for word, vector in vectors.items()} == {
        word: pytest.approx(vector) for word, vector in expected.items()
    }
    assert vectors["up"].dtype == np.float32
    assert bow([["up"]], [["up"]], vectors)["a_bow_recall"] == pytest.approx(1)


def test_words_of_broken_characters_cost_only_themselves(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"\xff\xfe 1 2\nup 0 1\n")
    assert load_word_vectors(path)["up"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("up 0 1\nleft -1 0 5\n", "vectors.txt, line 2: a vector of dimension 3, but line 1 has 2"),
        ("up 0 1\nleft -1\n", "vectors.txt, line 2: a vector of dimension 1, but line 1 has 2"),
        ("2 3\nup 0 1 2\nleft 0 1\n", "vectors.txt, line 3: a vector of dimension 2, but the header has 3"),
        ("up\n", "vectors.txt, line 1: a vector of dimension 0, but there must be numbers"),
        ("up 0 1\nleft 0 one\n", "vectors.txt, line 2: the vector of 'left' has something other than finite numbers"),
        ("up 0 nan\n", "vectors.txt, line 1: the vector of 'up' has something other than finite numbers"),
        ("2 3\n\n", "vectors.txt has no word vectors"),
    ],
)
def test_bad_files_of_word_vectors_are_named(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_word_vectors(path)


def test_act_match_by_hand():
    # First context: all of q, q, s are among the references' q, s, t, t, of which two are among the replies'. Second: none.
    hypotheses, references = [["q", "q", "s"], ["t", None, -100]], [["q", "s", "t", "t"], ["s"]]
    assert act_match(hypotheses, references) == pytest.approx({"act_precision": 0.5, "act_recall": 0.25, "act_f1": 1 / 3})
    assert act_match([[1, 2]], [[1]]) == pytest.approx({"act_precision": 0.5, "act_recall": 1.0, "act_f1": 2 / 3})
    assert act_match([[1]], [[2]]) == {"act_precision": 0.0, "act_recall": 0.0, "act_f1": 0.0}


@pytest.mark.parametrize("unknown", [None, -100])
def test_unknown_acts_of_references_are_refused(unknown):
    with pytest.raises(ValueError, match="`reference_acts` has unknown acts for the contexts 1 "):
        act_match([[1], [1]], [[1], [1, unknown]])


def test_distinct_within_and_over_replies():
    # Words: 2 of 3, 2 of 2, of both 2 of 5; then 2 of 2 (a full stop is a word), 0 of 0, of both 2 of 2.
    # Pairs: 2 of 2, 1 of 1, of both 2 of 3; then 1 of 1, 0 of 0, of both 1 of 1.
    figures = reply_distinct([["no no yes", "No yes"], ["Maybe.", ""]])
    assert figures == pytest.approx(
        {
            "distinct_1_intra": (2 / 3 + 1 + 1 + 0) / 4,
            "distinct_1_inter": (2 / 5 + 1) / 2,
            "distinct_2_intra": (1 + 1 + 1 + 0) / 4,
            "distinct_2_inter": (2 / 3 + 1) / 2,
        }
    )


PAIRED = [multi_reference_bleu, dialogwae_bleu, dialog_metrics, bow, act_match]


@pytest.mark.parametrize("metric", PAIRED)
def test_contexts_without_references_are_named(metric):
    what = "reference_acts" if metric is act_match else "references"
    with pytest.raises(ValueError, match=f"`{what}` has none for the contexts 1, 2 .*: leave these contexts out"):
        metric([["up"], ["up"], ["up"]], [["up"], [], None])
    with pytest.raises(ValueError, match="for the contexts 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 5 more "):
        metric([["up"]] * 16, [["up"]] + [[]] * 15)


@pytest.mark.parametrize("metric", PAIRED)
def test_arguments_that_do_not_fit_are_named(metric):
    hypotheses, references = ("hypothesis_acts", "reference_acts") if metric is act_match else ("hypotheses", "references")
    with pytest.raises(ValueError, match=f"`{hypotheses}` for 2 and `{references}` for 1 contexts"):
        metric([["up"], ["up"]], [["up"]])
    with pytest.raises(ValueError, match=f"`{hypotheses}` for 0 and `{references}` for 0 contexts"):
        metric([], [])
    with pytest.raises(ValueError, match=f"`{hypotheses}` has none for the contexts 0 "):
        metric([[]], [["up"]])
    with pytest.raises(ValueError, match=f"`{hypotheses}` has between 1 and 2 for a context"):
        metric([["up"], ["up", "left"]], [["up"], ["up"]])
    with pytest.raises(ValueError, match=f"`{references}` has no list for the contexts 0 "):
        metric([["up"]], ["up"])


@pytest.mark.parametrize("metric", [multi_reference_bleu, dialogwae_bleu, dialog_metrics, bow])
def test_what_is_no_text_is_named(metric):
    with pytest.raises(ValueError, match="`hypotheses` has 3 for context 1 "):
        metric([["up"], [3]], [["up"], ["up"]])
    with pytest.raises(ValueError, match="`references` has None for context 0 "):
        metric([["up"]], [["up", None]])
    with pytest.raises(ValueError, match="`references` has blank texts for the contexts 1 "):
        metric([["up"], ["up"]], [["up"], ["up", " "]])


def test_all_metrics_together():
    expected = multi_reference_bleu(HYPOTHESES, REFERENCES) | dialogwae_bleu(HYPOTHESES, REFERENCES) | reply_distinct(HYPOTHESES)
    assert dialog_metrics(HYPOTHESES, REFERENCES) == expected
    acts = [["answer", "order"], ["answer", "answer"]], [["answer"] * 3, ["answer"]]
    assert dialog_metrics(HYPOTHESES, REFERENCES, *acts) == expected | act_match(*acts)
    assert not any(name.startswith("act") for name in expected)


def test_acts_that_do_not_fit_the_texts_are_named():
    acts = [["answer", "order"], ["answer", "answer"]], [["answer"] * 3, ["answer"]]
    with pytest.raises(ValueError, match="`reference_acts` is missing"):
        dialog_metrics(HYPOTHESES, REFERENCES, acts[0])
    with pytest.raises(ValueError, match="`hypothesis_acts` is missing"):
        dialog_metrics(HYPOTHESES, REFERENCES, reference_acts=acts[1])
    with pytest.raises(ValueError, match="`reference_acts` has more or fewer acts than there are texts for the contexts 0 "):
        dialog_metrics(HYPOTHESES, REFERENCES, acts[0], [["answer"], ["answer"]])
    with pytest.raises(ValueError, match="`hypothesis_acts` has 1 contexts and the texts have 2"):
        dialog_metrics(HYPOTHESES, REFERENCES, acts[0][:1], acts[1])


def test_the_evaluate_metric_gives_the_same_figures(tmp_path):
    metric = DialogMetric(cache_dir=str(tmp_path))
    assert metric.compute(predictions=HYPOTHESES, references=REFERENCES) == dialog_metrics(HYPOTHESES, REFERENCES)
    acts = {"hypothesis_acts": [[0, 1], [0, 0]], "reference_acts": [[0, 0, 0], [0]]}
    for hypotheses, references in zip(HYPOTHESES, REFERENCES):
        metric.add(predictions=hypotheses, references=references)
    assert metric.compute(**acts) == dialog_metrics(HYPOTHESES, REFERENCES, **acts)
    with pytest.raises(ValueError, match="`references` has none for the contexts 1 "):
        metric.compute(predictions=HYPOTHESES, references=[REFERENCES[0], []])
