"""The dialogues' law is what it says."""

import math
from collections import Counter

import pytest

from hf_vae.data import dialogues, grammar

TOLD = "the farmer bought the lamp in the market at noon ."
ASKED = "is it true that the farmer bought the lamp in the market at noon ?"


def test_every_context_has_as_many_right_replies_and_each_has_one_act():
    for last in (TOLD, ASKED):
        replies = dialogues.valid_replies(last)
        assert len(replies) == 16 == round(math.exp(dialogues.entropy()))
        assert Counter(replies.values()) == dict.fromkeys(dialogues.REPLIES[grammar.parse(last).meaning.mood], 4)
        assert sum(math.exp(dialogues.log_prob(reply, last)) for reply in replies) == pytest.approx(1)
    assert dialogues.valid_replies(TOLD)["was it really the lamp ?"] == "doubt"
    assert "no , not at noon ." in dialogues.valid_replies(ASKED) and "no , not at noon ." not in dialogues.valid_replies(TOLD)
    assert dialogues.log_prob("yes , the baker did .", TOLD) == -math.inf
    assert set().union(*dialogues.REPLIES.values()) == set(dialogues.ACTS)
    with pytest.raises(ValueError, match=r"'hello \.' is not a sentence of the grammar"):
        dialogues.valid_replies("hello .")


def test_what_is_drawn_is_right_and_uniform():
    rows = dialogues.draw_dialogues(3_000, seed=0)
    counts = Counter()
    for row in rows:
        replies = dialogues.valid_replies(row["turns"][-1]["text"])
        assert replies[row["response"]] == row["act"]
        counts[list(replies).index(row["response"])] += 1
        assert {turn["speaker"] for turn in row["turns"]} <= {"A", "B"}
    # 187.5 of each are expected; five standard deviations.
    assert len(counts) == 16 and all(abs(count - 187.5) < 66 for count in counts.values())
    assert {len(row["turns"]) for row in rows} == {1, 2, 3, 4}
    assert len({row["turns"][-1]["text"] for row in rows}) == 3_000


def test_splits_do_not_depend_on_each_other():
    whole = dialogues.draw_dialogues(30, seed=4)
    assert dialogues.draw_dialogues(10, seed=4, skip=20) == whole[20:]
    assert dialogues.draw_dialogues(10, seed=5) != whole[:10]
    data = dialogues.load_dialogues(5, seed=4)
    assert data.column_names == ["turns", "response", "act"] and data[0] == whole[0]


def test_the_judge_counts_right_replies_and_acts():
    yes, no = "yes , the farmer did .", "no , the farmer did not ."
    figures = dialogues.judge([[yes, yes, no], [yes, no, "hm ."]], [TOLD, ASKED], [["agree"] * 3, ["agree", "agree", "deny"]])
    # To what is told, no one may answer no here.
    assert figures == {"valid_reply": 4 / 6, "distinct_valid": 1.5, "act_match": 3 / 6}
    assert "act_match" not in dialogues.judge([[yes]], [TOLD])
    with pytest.raises(ValueError):
        dialogues.judge([[yes]], [TOLD, ASKED])
