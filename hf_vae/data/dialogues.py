"""
Small dialogues with known truth, made of the grammar's sentences. It is known exactly which replies to a context are right, which
act each of them performs, and how probable it is.

A dialogue may open with a greeting and an earlier exchange. Its last turn tells of an event or asks about one. A reply performs one
of the acts that such a turn allows, in one of the act's forms, which name someone or something in that turn. Act and form are
drawn uniformly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

from datasets import Dataset

from . import grammar

ACTS = ("agree", "doubt", "acknowledge", "deny", "uncertain", "inquire")
# The acts, with their forms, that may reply to a turn that tells, and to a turn that asks.
REPLIES: dict[str, dict[str, tuple[str, ...]]] = {
    "told": {
        "agree": (
            "yes , the {agent} did .",
            "right , it was in the {place} .",
            "true , i saw the {object} myself .",
            "yes , that was at {time} .",
        ),
        "doubt": (
            "are you sure it was the {agent} ?",
            "was it really the {object} ?",
            "i thought it was not in the {place} .",
            "that was hardly at {time} .",
        ),
        "acknowledge": (
            "i see , the {agent} again .",
            "good to know about the {object} .",
            "oh , in the {place} of all places .",
            "so that was at {time} then .",
        ),
        "inquire": (
            "and where is the {object} now ?",
            "who else was in the {place} ?",
            "what did the {agent} do next ?",
            "what happened after {time} ?",
        ),
    },
    "asked": {
        "agree": (
            "yes , the {agent} did .",
            "right , it was in the {place} .",
            "true , i saw the {object} myself .",
            "yes , that was at {time} .",
        ),
        "deny": (
            "no , the {agent} did not .",
            "no , it was not the {object} .",
            "no , never in the {place} .",
            "no , not at {time} .",
        ),
        "uncertain": (
            "maybe the {agent} did .",
            "i do not know about the {object} .",
            "perhaps it was in the {place} .",
            "i cannot say who was there at {time} .",
        ),
        "inquire": (
            "why do you ask about the {object} ?",
            "who was in the {place} ?",
            "who told you about the {agent} ?",
            "what else happened at {time} ?",
        ),
    },
}
GREETINGS = ("hello .", "good morning .", "any news ?", "how are you ?")
SPEAKERS = ("A", "B")


def entropy() -> float:
    """H(reply | context) in nats: every context has the same number of right replies, all equally likely."""
    return math.log(sum(map(len, REPLIES["told"].values())))


def valid_replies(last_turn: str) -> dict[str, str]:
    """
    Every right reply to a context that ends with `last_turn`, with the act that it performs.

    Raises:
        ValueError: `last_turn` is not a sentence of the grammar.
    """
    parsed = grammar.parse(last_turn)
    if parsed is None:
        raise ValueError(
            f"{last_turn!r} is not a sentence of the grammar, so no reply to it is right or wrong: give a turn of these dialogues."
        )
    words = parsed.meaning._asdict()
    return {form.format(**words): act for act, forms in REPLIES[parsed.meaning.mood].items() for form in forms}


def log_prob(reply: str, last_turn: str) -> float:
    """log p(reply | context) in nats, under the distribution that dialogues are drawn from."""
    return -entropy() if reply in valid_replies(last_turn) else -math.inf


def draw_dialogues(num_dialogues: int, seed: int, skip: int = 0) -> list[dict]:
    """
    Draws rows `{"turns", "response", "act"}`: a turn is `{"speaker", "text"}`, the response is a text. The last turns of any two
    dialogues are about different events.

    Args:
        num_dialogues (`int`): number of rows.
        seed (`int`): rows with one seed have disjoint last events throughout.
        skip (`int`, defaults to 0): rows of this seed to pass over, so that splits of one seed never share a last event.

    Raises:
        ValueError: more rows than the grammar has meanings.
    """
    rows = []
    for number, last in enumerate(grammar.draw_sentences(num_dialogues, seed, skip), start=skip):
        # Each row has a generator of its own, so that it does not depend on the number of rows.
        draw = random.Random(f"{seed}/dialogue/{number}")
        asker, other = draw.sample(SPEAKERS, 2)
        turns = []
        if draw.random() < 0.5:
            turns.append({"speaker": draw.choice(SPEAKERS), "text": draw.choice(GREETINGS)})
        if draw.random() < 0.5:
            earlier = grammar.realize(grammar.meaning_at(draw.randrange(grammar.NUM_MEANINGS)), draw.choice(grammar.FORMS))
            turns += [
                {"speaker": asker, "text": earlier},
                {"speaker": other, "text": draw.choice(list(valid_replies(earlier)))},
            ]
        turns.append({"speaker": asker, "text": last})
        response, act = draw.choice(list(valid_replies(last).items()))
        rows.append({"turns": turns, "response": response, "act": act})
    return rows


def load_dialogues(num_dialogues: int, seed: int = 0, skip: int = 0) -> Dataset:
    """[`draw_dialogues`] as a `datasets.Dataset` with the columns `turns`, `response` and `act`."""
    return Dataset.from_list(draw_dialogues(num_dialogues, seed, skip))


def load_examples(num_dialogues: int, seed: int = 0, skip: int = 0) -> Dataset:
    """[`draw_dialogues`] as contexts, each with its one reply, in the columns of [`load_dialogs`]."""
    rows = []
    for row in draw_dialogues(num_dialogues, seed, skip):
        messages = [{"role": turn["speaker"], "content": turn["text"]} for turn in row["turns"]]
        role = SPEAKERS[1 - SPEAKERS.index(messages[-1]["role"])]
        rows.append({"source": {"messages": messages, "role": role, "act": row["act"], "meta": None}, "targets": [row["response"]]})
    return Dataset.from_list(rows)


def judge(
    outputs: Iterable[Sequence[str]], last_turns: Iterable[str], predicted_acts: Iterable[Sequence[str]] | None = None
) -> dict[str, float]:
    """
    Measures how many of several replies to each context are right.

    Args:
        outputs (iterable of `list[str]`): the replies generated for each context.
        last_turns (iterable of `str`): the last turn of each context.
        predicted_acts (iterable of `list[str]`, *optional*): for each reply the act that the model predicted for it.

    Returns:
        `valid_reply`, the share of all replies that are right; `distinct_valid`, the mean number of different right replies to a
        context; with `predicted_acts` also `act_match`, the share of all replies that are right and perform the predicted act.

    Raises:
        ValueError: a last turn is not a sentence of the grammar, or the arguments differ in length.
    """
    outputs, last_turns = list(outputs), list(last_turns)
    acts = None if predicted_acts is None else list(predicted_acts)
    total = valid = distinct = matched = 0
    for number, (replies, last) in enumerate(zip(outputs, last_turns, strict=True)):
        right = valid_replies(last)
        total += len(replies)
        valid += sum(reply in right for reply in replies)
        distinct += len(set(replies) & set(right))
        if acts is not None:
            matched += sum(right.get(reply) == act for reply, act in zip(replies, acts[number], strict=True))
    metrics = {"valid_reply": valid / total, "distinct_valid": distinct / len(outputs)}
    return metrics if acts is None else {**metrics, "act_match": matched / total}
