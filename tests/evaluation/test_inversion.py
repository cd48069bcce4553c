"""Metrics of texts that were written from vectors, by hand."""

import math

import pytest
import torch

from hf_vae.evaluation import cosines, inversion_metrics, known_metrics, token_f1

# The direction of a text is the share of "a" and of "b" among its words.
TARGETS = ["a a b", "b"]
GIVEN = torch.tensor([[2.0, 1.0], [0.0, 1.0]])


def embed(texts):
    return [[float(text.split().count(each)) for each in "ab"] for text in texts]


def test_token_f1_counts_words_as_often_as_they_come():
    # Two of three words are among the two of the target: precision 2/3, recall 1.
    assert token_f1("a a b", "A b") == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert token_f1("a b", "b a") == 1 and token_f1("a", "b") == 0
    assert token_f1("", "") == 1 and token_f1("", "a") == 0


def test_cosines_are_those_by_hand_and_a_text_is_embedded_once():
    asked = []

    def counting(texts):
        asked.extend(texts)
        return embed(texts)

    near = cosines(counting, [["a b", "a a b"], ["a b", "b b"]], GIVEN)
    expected = [[3 / math.sqrt(10), 1], [1 / math.sqrt(2), 1]]
    torch.testing.assert_close(near, torch.tensor(expected))
    assert sorted(asked) == ["a a b", "a b", "b b"]


def test_the_best_is_chosen_by_the_cosine_and_not_by_the_target():
    metrics = inversion_metrics([["a b", "a a b"], ["b", "b b"]], TARGETS, GIVEN, embed)
    assert metrics["exact_match"] == 0.5 and metrics["token_f1"] == pytest.approx((0.8 + 1) / 2)
    assert metrics["cosine"] == pytest.approx((3 / math.sqrt(10) + 1) / 2)
    # "b b" has the same direction as "b": the first of equals is taken.
    assert metrics["best_of_2_exact_match"] == 1 and metrics["best_of_2_cosine"] == pytest.approx(1)
    assert metrics["best_of_2_bleu"] == pytest.approx(100) and metrics["bleu"] < 100
    assert len(known_metrics(metrics)) == len(metrics)
    alone = inversion_metrics([["a b"], ["b"]], TARGETS, GIVEN, embed)
    assert alone == {name: value for name, value in metrics.items() if not name.startswith("best")}


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="`candidates` has 1 lists and `targets` 2"):
        inversion_metrics([["a"]], TARGETS, GIVEN, embed)
    with pytest.raises(ValueError, match="`candidates` has 2 lists and `embeddings` 1 rows"):
        inversion_metrics([["a"], ["b"]], TARGETS, GIVEN[:1], embed)
    with pytest.raises(ValueError, match="give equally many"):
        inversion_metrics([["a"], ["b", "b"]], TARGETS, GIVEN, embed)
    with pytest.raises(ValueError, match=r"`embedder` gives \(2, 2\) for 2 texts, and `embeddings` has 3 columns"):
        inversion_metrics([["a"], ["b"]], TARGETS, torch.ones(2, 3), embed)
