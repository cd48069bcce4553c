"""
A small grammar of English with known truth, to train on offline and to measure against.

A *meaning* fills the slots of an event (who did what to what, where, when) and says whether it is told or asked. A *form* makes
the surface choices: voice, position of the time phrase, opening phrase, and which of two synonyms is the verb. Every meaning has
every form. So a parser can tell of any output whether it is a sentence of the grammar, what it means and which form it has, and the
probability of a paraphrase is known exactly.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from datasets import Dataset

_words = str.split

AGENTS = _words(
    "farmer baker doctor teacher sailor painter singer lawyer nurse pilot tailor butcher hunter dancer writer judge soldier "
    "plumber barber banker gardener miner monk knight king queen prince poet clerk guard guide student coach actor priest "
    "cook driver waiter mayor scout wizard pirate uncle aunt cousin neighbour stranger twin"
)
# Two synonyms each; the past tense is also the participle, so one word serves both voices.
ACTIONS = [
    (pair.partition("/")[0], pair.partition("/")[2])
    for pair in _words(
        "bought/purchased fixed/repaired found/discovered wrecked/destroyed cleaned/washed carried/transported wanted/desired "
        "collected/gathered sold/traded examined/inspected displayed/exhibited built/constructed dropped/spilled kept/retained "
        "praised/applauded started/launched pinched/swiped picked/selected moved/shifted needed/required guarded/protected "
        "lifted/raised received/obtained concealed/covered"
    )
]
OBJECTS = _words(
    "letter lamp clock chair table basket bottle ladder hammer kettle mirror carpet candle violin trumpet drum guitar coat "
    "hat shoe ring coin key box bag book map painting vase plate cup spoon knife rope net boat cart wheel saddle tent flag "
    "statue camera radio engine pump barrel crate"
)
PLACES = _words(
    "park kitchen garden library market church castle harbour school hospital forest valley desert tunnel garage attic "
    "cellar barn stable theatre museum station airport factory office palace prison village tower temple meadow courtyard"
)
TIMES = _words(
    "dawn sunrise noon dusk sunset midnight breakfast lunch dinner daybreak nightfall teatime bedtime christmas easter harvest"
)
OPENINGS = {
    "told": ("", "i heard that", "it seems that"),
    "asked": ("is it true that", "do you know whether", "can you say if"),
}
CLOSINGS = {"told": ".", "asked": "?"}
VOICES = ("active", "passive")
TIME_POSITIONS = ("front", "before_place", "end")


class Meaning(NamedTuple):
    """What a sentence says; `action` is an index of `ACTIONS`."""

    agent: str
    action: int
    object: str
    place: str
    time: str
    mood: str


class Form(NamedTuple):
    """How a sentence says it; `opening` is an index of the mood's `OPENINGS`, `synonym` of the action's words."""

    voice: str
    time_position: str
    opening: int
    synonym: int


class Parse(NamedTuple):
    """What a sentence of the grammar says, and how."""

    meaning: Meaning
    form: Form


FORMS = tuple(Form(*choice) for choice in itertools.product(VOICES, TIME_POSITIONS, range(3), range(2)))
_SLOTS: tuple[Sequence, ...] = (AGENTS, range(len(ACTIONS)), OBJECTS, PLACES, TIMES, tuple(OPENINGS))
NUM_MEANINGS = math.prod(map(len, _SLOTS))
# The slot that each content word fills, and the value that it fills it with.
_SLOT_OF_WORD: dict[str, tuple[str, object]] = {
    **{word: ("agent", word) for word in AGENTS},
    **{word: ("action", (index, which)) for index, pair in enumerate(ACTIONS) for which, word in enumerate(pair)},
    **{word: ("object", word) for word in OBJECTS},
    **{word: ("place", word) for word in PLACES},
    **{word: ("time", word) for word in TIMES},
}


def meaning_at(index: int) -> Meaning:
    """The meaning number `index` of `NUM_MEANINGS`."""
    if not 0 <= index < NUM_MEANINGS:
        raise ValueError(f"`index` is {index}; it must be between 0 and {NUM_MEANINGS - 1}.")
    values: list = []
    for slot in _SLOTS:
        index, choice = divmod(index, len(slot))
        values.append(slot[choice])
    return Meaning(*values)


def _arrange(agent: str, verb: str, object: str, place: str, time: str, mood: str, form: Form) -> str:
    """The sentence that these words make in this form."""
    clause = f"the {agent} {verb} the {object}" if form.voice == "active" else f"the {object} was {verb} by the {agent}"
    where, when = f"in the {place}", f"at {time}"
    order = {"front": (when, clause, where), "before_place": (clause, when, where), "end": (clause, where, when)}
    return " ".join((OPENINGS[mood][form.opening], *order[form.time_position], CLOSINGS[mood])).strip()


def realize(meaning: Meaning, form: Form) -> str:
    """The sentence that says `meaning` in `form`, in lower case with spaces between tokens."""
    verb = ACTIONS[meaning.action][form.synonym]
    return _arrange(meaning.agent, verb, meaning.object, meaning.place, meaning.time, meaning.mood, form)


# Each arrangement with the names of slots in place of words. The synonym changes the verb, not the arrangement.
_ARRANGEMENTS = {
    _arrange("<agent>", "<action>", "<object>", "<place>", "<time>", mood, form): (mood, form)
    for mood in OPENINGS
    for form in FORMS
    if form.synonym == 0
}


def describe(text: str) -> str:
    """Opening and voice of a sentence of the grammar, in words for a picture: `it seems that, passive`."""
    meaning, form = cast(Parse, parse(text))
    return f"{OPENINGS[meaning.mood][form.opening] or 'no opening'}, {form.voice}"


def parse(text: str) -> Parse | None:
    """What `text` says and in which form, or `None` if it is not a sentence of the grammar."""
    slots: dict = {}
    tags = []
    for word in text.split():
        name, value = _SLOT_OF_WORD.get(word, (None, None))
        if name is not None:
            slots[name] = value
        tags.append(word if name is None else f"<{name}>")
    arrangement = _ARRANGEMENTS.get(" ".join(tags))
    if arrangement is None:
        return None
    mood, form = arrangement
    action, synonym = slots["action"]
    meaning = Meaning(slots["agent"], action, slots["object"], slots["place"], slots["time"], mood)
    return Parse(meaning, form._replace(synonym=synonym))


def parse_source(text: str) -> Parse:
    """
    [`parse`] of a text that must be a sentence of the grammar.

    Raises:
        ValueError: it is none.
    """
    parsed = parse(text)
    if parsed is None:
        raise ValueError(f"{text!r} is not a sentence of the grammar: give one that `parse` understands.")
    return parsed


def paraphrases(text: str) -> list[str]:
    """
    Every other sentence that says what `text` says: the support of p(y|x).

    Raises:
        ValueError: `text` is not a sentence of the grammar.
    """
    parsed = parse_source(text)
    return [realize(parsed.meaning, form) for form in FORMS if form != parsed.form]


def log_prob(target: str, source: str) -> float:
    """log p(y|x) in nats under the distribution of pairs: uniform over the other forms of the source's meaning."""
    return -entropy() if target in paraphrases(source) else -math.inf


def entropy() -> float:
    """H(y|x) in nats per sentence: the logarithm of the number of other forms."""
    return math.log(len(FORMS) - 1)


def draw_pairs(num_pairs: int, seed: int, num_targets: int = 1, skip: int = 0) -> list[dict]:
    """
    Draws rows `{"source", "targets"}`, each with a meaning of its own. The form of the source is drawn uniformly, and the forms of
    the targets uniformly from the others, without repetition.

    Args:
        num_pairs (`int`): number of rows.
        seed (`int`): rows with one seed have disjoint meanings throughout.
        num_targets (`int`, defaults to 1): targets a row.
        skip (`int`, defaults to 0): rows of this seed to pass over, so that splits of one seed never share a meaning.

    Raises:
        ValueError: more rows than meanings, or more targets than forms.
    """
    if skip + num_pairs > NUM_MEANINGS:
        raise ValueError(f"`skip` + `num_pairs` is {skip + num_pairs}; the grammar has {NUM_MEANINGS} meanings.")
    if not 1 <= num_targets < len(FORMS):
        raise ValueError(f"`num_targets` is {num_targets}; a sentence has {len(FORMS) - 1} paraphrases.")
    indices = random.Random(f"{seed}/meanings").sample(range(NUM_MEANINGS), skip + num_pairs)[skip:]
    rows = []
    for index in indices:
        # Each meaning has a generator of its own, so that a row does not depend on the number of rows.
        forms = random.Random(f"{seed}/{index}").sample(FORMS, 1 + num_targets)
        source, *targets = (realize(meaning_at(index), form) for form in forms)
        rows.append({"source": source, "targets": targets})
    return rows


def load_paraphrases(num_pairs: int, seed: int = 0, num_targets: int = 1, skip: int = 0) -> Dataset:
    """[`draw_pairs`] as a `datasets.Dataset` with the columns `source` and `targets`."""
    return Dataset.from_list(draw_pairs(num_pairs, seed, num_targets, skip))


def draw_sentences(num_sentences: int, seed: int, skip: int = 0) -> list[str]:
    """
    Draws sentences uniformly from all meanings, without repetition, each in a form that is drawn uniformly. They are the sources of
    [`draw_pairs`], so that splits of one seed never share a meaning.
    """
    return [row["source"] for row in draw_pairs(num_sentences, seed, skip=skip)]


def load_sentences(num_sentences: int, seed: int = 0, skip: int = 0) -> Dataset:
    """[`draw_sentences`] as a `datasets.Dataset` with the column `text`."""
    return Dataset.from_dict({"text": draw_sentences(num_sentences, seed, skip)})


def sentence_entropy() -> float:
    """H(y) in nats of a sentence of the grammar: each meaning in each form is a different sentence, and all are equally likely."""
    return math.log(NUM_MEANINGS * len(FORMS))


def vocabulary() -> list[str]:
    """Every word and mark of the grammar, in a fixed order."""
    sentences = (realize(meaning_at(0)._replace(mood=mood), form) for mood in OPENINGS for form in FORMS)
    function_words = dict.fromkeys(word for sentence in sentences for word in sentence.split() if word not in _SLOT_OF_WORD)
    return [*function_words, *_SLOT_OF_WORD]


def judge(outputs: Iterable[list[str]], sources: Iterable[str]) -> dict[str, float]:
    """
    Measures how many of several outputs for each source are right.

    Args:
        outputs (iterable of `list[str]`): the texts generated for each source.
        sources (iterable of `str`): sentences of the grammar.

    Returns:
        `grammatical`, the share of all outputs that are sentences of the grammar; `meaning_kept`, the share that say what their
        source says (a copy of it does); `distinct_correct`, the mean number of different paraphrases among the outputs for one
        source (a copy is not one).

    Raises:
        ValueError: a source is not a sentence of the grammar.
    """
    total = grammatical = kept = distinct = rows = 0
    for texts, source in zip(outputs, sources, strict=True):
        meaning = parse_source(source).meaning
        parses = [parse(text) for text in texts]
        right = {text for text, parsed in zip(texts, parses) if parsed is not None and parsed.meaning == meaning}
        total += len(texts)
        grammatical += sum(parsed is not None for parsed in parses)
        kept += sum(parsed is not None and parsed.meaning == meaning for parsed in parses)
        distinct += len(right - {source})
        rows += 1
    return {"grammatical": grammatical / total, "meaning_kept": kept / total, "distinct_correct": distinct / rows}
