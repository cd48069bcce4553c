"""A training step with a vocabulary of 50,257 words: without logits, as training does it, against the logits of all tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..comparison import Row, compare, interleave, summarise
from ..isolated import peak_memory
from ..models import make_vae, tokens
from ..options import Options
from ..sizes import SIZES

WORDS = 50257


def step_of(options: Options, with_logits: bool) -> Callable[[], object]:
    """One training step, without the optimiser."""
    size = replace(SIZES[options.sizes[0]], vocabulary=WORDS)
    model = make_vae(size, options).train()
    words = tokens(size.batch, size.length, size, options)

    def step():
        model.zero_grad()
        model(input_ids=words, labels=words, output_logits=with_logits).loss.backward()

    return step


def run(options: Options) -> Iterator[Row]:
    name = f"{options.sizes[0]} with {WORDS} words"
    against = "with output_logits=True"
    ours, theirs = step_of(options, with_logits=False), step_of(options, with_logits=True)
    yield compare(f"training step without logits, {name}", ours, theirs, options, against=against, target=1.0)
    measured = interleave(
        lambda: peak_memory("vocabulary", "step_of", options, with_logits=False),
        lambda: peak_memory("vocabulary", "step_of", options, with_logits=True),
        1 if options.quick else 3,
        warm_up=0,
    )
    yield summarise(f"peak memory without logits, {name}", *measured, unit="MiB", against=against, target=1.0)
