"""Texts to train on whose words cannot be guessed."""

import itertools
import random
import statistics
from collections import Counter

import pytest

from hf_vae.data import replace_words

CORPUS = ["common " * 99 + "rare"] * 10


def test_a_share_of_the_words_is_replaced_and_rare_ones_come_often():
    made = list(itertools.islice(replace_words(itertools.cycle(["here " * 20]), CORPUS), 300))
    shares = [sum(word != "here" for word in text.split()) / 20 for text in made]
    # A third of the texts stays, and all in all (0 + 0.2 + 0.5) / 3 of the words are others.
    assert 70 <= shares.count(0) <= 130 and statistics.fmean(shares) == pytest.approx(0.7 / 3, abs=0.04) and max(shares) > 0.5
    others = Counter(word for text in made for word in text.split() if word != "here")
    # They occur 990 and 10 times: the square roots are as 31.5 to 3.2.
    assert set(others) == {"common", "rare"} and others["rare"] / others.total() == pytest.approx(1 / 11, abs=0.03)


def test_all_words_or_none_may_be_replaced_and_by_the_most_frequent_ones_alone():
    assert list(replace_words(["a  b c", "d"], CORPUS, shares=[0])) == ["a b c", "d"]
    assert list(replace_words(["a b c", "d"], CORPUS, shares=[1], num_words=1)) == ["common common common", "common"]


def test_the_seed_says_what_is_drawn():
    texts = ["here " * 20] * 5

    def made(seed):
        return list(replace_words(texts, CORPUS, rng=random.Random(seed)))

    assert made(0) == made(0) == list(replace_words(texts, CORPUS)) != made(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": []}, r"`shares` is \[\]; give a list of numbers between 0 and 1"),
        ({"shares": 0.5}, "`shares` is 0.5; give a list of numbers between 0 and 1"),
        ({"texts": "a b"}, "`texts` is a single text: give several, such as a list"),
        ({"words_of": "a b"}, "`words_of` is a single text: give several"),
        ({"shares": [0.2, 1.5]}, "`shares` is 1.5; it must be a finite number"),
        ({"num_words": 0}, "`num_words` is 0; it must be at least 1"),
        ({"words_of": ["", " "]}, "`words_of` has no words; give texts to draw other words from"),
    ],
)
def test_what_cannot_be_is_refused_before_a_text_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        replace_words(**{"texts": ["a"], "words_of": CORPUS, **options})
