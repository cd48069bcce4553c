"""What operations in the latent space do where the truth is known: on the sentences of the grammar."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from ..data import grammar
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .arithmetic import arithmetic
from .codes import decode_latents, encode_texts
from .interpolation import interpolate_latents, smoothness
from .reconstruction import sample_prior

# Factors that are changed, each from one value to another, with everything else as it is.
CHANGES = (
    ("mood", "told", "asked"),
    ("voice", "active", "passive"),
    ("time_position", "front", "end"),
    ("agent", "farmer", "doctor"),
    ("place", "park", "kitchen"),
)


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
    parses = []
    for text in texts:
        parsed = grammar.parse(text)
        if parsed is None:
            raise ValueError(f"`texts` holds {text!r}, which is no sentence of the grammar.")
        parses.append(parsed)
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
