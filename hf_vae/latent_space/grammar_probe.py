"""What operations in the latent space do where the truth is known: on the sentences and the paraphrases of the grammar."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from ..data import grammar
from ..latent_attribute import LatentAttribute
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .arithmetic import arithmetic
from .attributes import fit_attribute
from .codes import decode_latents, encode_texts
from .control import edit
from .interpolation import interpolate_latents, smoothness
from .reconstruction import sample_prior
from .transfer import transfer

# Factors that are changed, each from one value to another, with everything else as it is.
CHANGES = (
    ("mood", "told", "asked"),
    ("voice", "active", "passive"),
    ("time_position", "front", "end"),
    ("agent", "farmer", "doctor"),
    ("place", "park", "kitchen"),
)

# Factors that are asked for by their labels.
CONTROLLED = {"mood": tuple(grammar.OPENINGS), "voice": grammar.VOICES, "time_position": grammar.TIME_POSITIONS}


def with_factor(parsed: grammar.Parse, factor: str, value: object) -> str:
    """The sentence that differs from `parsed` in this slot of its meaning or choice of its form alone."""
    change: dict[str, Any] = {factor: value}
    if factor in grammar.Meaning._fields:
        return grammar.realize(parsed.meaning._replace(**change), parsed.form)
    return grammar.realize(parsed.meaning, parsed.form._replace(**change))


def grammar_metrics(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Sequence[str],
    num_samples: int = 500,
    num_analogies: int = 100,
    num_paths: int = 50,
    seed: int = 0,
    **generation_options,
) -> dict[str, float]:
    """
    Shares, greedy decoding throughout.

    Args:
        model ([`VAEModel`]): trained on the grammar's sentences.
        processor ([`VAEProcessor`]): its processor.
        texts (`Sequence[str]`): held-out sentences of the grammar.
        num_samples (`int`, defaults to 500): draws from the prior.
        num_analogies (`int`, defaults to 100): sentences in which each factor of `CHANGES` is changed by an analogy: a and b differ
            in it alone, and z_c + z_b - z_a is decoded for another sentence c.
        num_paths (`int`, defaults to 50): linear paths of nine points between sentences.
        seed (`int`, defaults to 0): of the draws.
        generation_options: passed to `generate`.

    Returns:
        `grammatical`: prior samples that are sentences; `arithmetic_<factor>`: analogies whose result is c with that factor changed
        and everything else kept, and `arithmetic`, their mean; `midpoints_grammatical`: middles of paths that are sentences;
        `path_edit_distance`: mean normalised edit distance of neighbours on a path.

    Raises:
        ValueError: a text that is no sentence of the grammar.
    """
    parses = [grammar.parse_source(text) for text in texts]
    options = {"do_sample": False, **generation_options}
    samples = sample_prior(model, processor, num_samples, seed=seed, **options).texts
    metrics = {"grammatical": sum(grammar.parse(text) is not None for text in samples) / num_samples}
    shuffled = random.Random(seed)
    for factor, old, new in CHANGES:
        rows = [shuffled.choices(parses, k=2) for _ in range(num_analogies)]
        a, b = ([with_factor(first, factor, value) for first, _ in rows] for value in (old, new))
        c, wanted = ([with_factor(second, factor, value) for _, second in rows] for value in (old, new))
        results = arithmetic(model, processor, a, b, c, **options).texts
        metrics[f"arithmetic_{factor}"] = sum(map(str.__eq__, results, wanted)) / num_analogies
    metrics["arithmetic"] = sum(metrics[f"arithmetic_{factor}"] for factor, _, _ in CHANGES) / len(CHANGES)
    ends = encode_texts(model, processor, [shuffled.choice(list(texts)) for _ in range(2 * num_paths)]).mode()
    paths = torch.cat([interpolate_latents(start, end, 9, "linear") for start, end in ends.view(num_paths, 2, -1)])
    decoded = decode_latents(model, processor, paths, **options)
    lines = [decoded[start : start + 9] for start in range(0, len(decoded), 9)]
    metrics["midpoints_grammatical"] = sum(grammar.parse(line[4]) is not None for line in lines) / num_paths
    metrics["path_edit_distance"] = sum(smoothness(line)["edit_distance"] for line in lines) / num_paths
    return metrics


def grammar_attributes(
    model: VAEModel, processor: VAEProcessor, num_labels: int = 500, seed: int = 0
) -> dict[str, LatentAttribute]:
    """
    p(a|z) of mood, voice and place of the time, fitted to labelled sentences.

    Args:
        model ([`VAEModel`]): trained on the grammar's sentences.
        processor ([`VAEProcessor`]): its processor.
        num_labels (`int`, defaults to 500): labelled sentences.
        seed (`int`, defaults to 0): of these, which are not those that `grammar.draw_sentences` has with this seed.
    """
    labelled = grammar.draw_sentences(num_labels, seed + 1_000)
    means = encode_texts(model, processor, labelled).mode()
    known = [_factors(grammar.parse_source(text)) for text in labelled]
    return {factor: fit_attribute(model, processor, means, [each[factor] for each in known], seed=seed) for factor in CONTROLLED}


def grammar_control(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Sequence[str],
    num_labels: int = 500,
    seed: int = 0,
    **generation_options,
) -> dict[str, float]:
    """
    How [`edit`] does: mood, voice and place of the time are set to other values, each by itself, with attributes that are fitted to
    sentences of their own and not kept. The opening belongs to the mood, and may change with it.

    Args:
        model ([`VAEModel`]): trained on the grammar's sentences.
        processor ([`VAEProcessor`]): its processor.
        texts (`Sequence[str]`): held-out sentences of the grammar.
        num_labels (`int`, defaults to 500): labelled sentences.
        seed (`int`, defaults to 0): of these, and of the values that are asked for.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        Shares of the texts: `control_accuracy_<factor>`, the edited text has the value that was asked for; `control_kept_<factor>`,
        everything else is as it was; `control_accuracy` and `control_kept`, their means.

    Raises:
        ValueError: a text that is no sentence of the grammar.
    """
    before = [_factors(grammar.parse_source(text)) for text in texts]
    drawn = random.Random(seed)
    attributes = grammar_attributes(model, processor, num_labels, seed)
    metrics = {}
    for factor, values in CONTROLLED.items():
        wanted = [drawn.choice([value for value in values if value != each[factor]]) for each in before]
        held = {factor: attributes[factor]}
        edited = edit(model, processor, list(texts), {factor: wanted}, held=held, **generation_options).texts
        after = [_factors(parsed) if (parsed := grammar.parse(text)) else {} for text in edited]
        free = {factor, "opening"} if factor == "mood" else {factor}
        right = [each.get(factor) == value for each, value in zip(after, wanted)]
        kept = [all(new.get(name) == old[name] for name in old.keys() - free) for old, new in zip(before, after)]
        metrics[f"control_accuracy_{factor}"] = sum(right) / len(right)
        metrics[f"control_kept_{factor}"] = sum(kept) / len(kept)
    for name in ("control_accuracy", "control_kept"):
        metrics[name] = sum(metrics[f"{name}_{factor}"] for factor in CONTROLLED) / len(CONTROLLED)
    return metrics


def _factors(parsed: grammar.Parse) -> dict[str, Any]:
    """All that a sentence says, and all choices of its form."""
    return {**parsed.meaning._asdict(), **parsed.form._asdict()}


def form_transfer(
    model: VAEModel, processor: VAEProcessor, pairs: Sequence[tuple[str, str]], seed: int = 0, **generation_options
) -> dict[str, float]:
    """
    How [`transfer`] does: the form of a pair's target, given to another source.

    That source has the pair's mood and action, and everything else otherwise. For the openings of statements and of questions are
    different words, and so are the two verbs of each action: which of one kind belong to which of another is a convention, and no
    text shows it.

    Args:
        model ([`ParaphraseVAEModel`]): trained on the grammar's paraphrases.
        processor ([`ParaphraseVAEProcessor`]): its processor.
        pairs (`Sequence[tuple[str, str]]`): held-out sources, each with one of its paraphrases.
        seed (`int`, defaults to 0): of the other sources.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        Shares of the pairs: `form_transfer`, the text says the source in exactly the form of the pair's target;
        `form_transfer_<choice>`, it makes this choice of the form so; `form_transfer_meaning`, it says what its source says.

    Raises:
        ValueError: a text that is no sentence of the grammar.
    """
    drawn = random.Random(seed)
    sources, meanings, forms = [], [], []
    for x, y in pairs:
        of, form = grammar.parse_source(x).meaning, grammar.parse_source(y).form
        meaning = grammar.meaning_at(drawn.randrange(grammar.NUM_MEANINGS))._replace(mood=of.mood, action=of.action)
        sources.append(grammar.realize(meaning, drawn.choice([each for each in grammar.FORMS if each != form])))
        meanings.append(meaning)
        forms.append(form)
    texts = transfer(model, processor, list(pairs), sources, **generation_options).texts
    parses = [grammar.parse(text) for text in texts]

    def share(right) -> float:
        return sum(right) / len(pairs)

    metrics = {"form_transfer": share(map(str.__eq__, texts, map(grammar.realize, meanings, forms)))}
    for choice in grammar.Form._fields:
        made = (each is not None and getattr(each.form, choice) == getattr(form, choice) for each, form in zip(parses, forms))
        metrics[f"form_transfer_{choice}"] = share(made)
    metrics["form_transfer_meaning"] = share(each is not None and each.meaning == of for each, of in zip(parses, meanings))
    return metrics
