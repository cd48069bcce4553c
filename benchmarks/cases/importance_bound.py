"""The importance-weighted bound with K samples of z against K passes of the bare decoder, and its memory against K."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from hf_vae import VAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.data import grammar
from hf_vae.evaluation import LikelihoodEvaluator

from ..comparison import Row, compare, interleave, seconds, summarise
from ..isolated import peak_memory
from ..models import make_decoder, make_vae, read_before
from ..options import Options
from ..sizes import SIZES

SAMPLES = 500
ROWS = (32, 64, 128, 256, 512)


def sentences_and_processor(options: Options, count: int):
    texts = grammar.draw_sentences(count, options.seed)
    vocabulary = SIZES[options.sizes[0]].vocabulary
    tokenizers = train_tokenizers(grammar.draw_sentences(500, options.seed), max(vocabulary, 300))
    return texts, VAEProcessor(*tokenizers)


def bound(options: Options, samples: int, count: int) -> Callable[[], object]:
    """The bound of `count` sentences; q is computed before, as in an evaluation, which needs it more than once."""
    texts, processor = sentences_and_processor(options, count)
    size = SIZES[options.sizes[0]]
    model = make_vae(replace(size, vocabulary=max(size.vocabulary, 300)), options)
    evaluator = LikelihoodEvaluator(model, processor, texts, texts)
    posterior, prior = evaluator.posterior(), evaluator.prior()
    return partial(evaluator.importance_weighted, posterior, prior, samples)


def forwards(options: Options, samples: int, count: int) -> Callable[[int], object]:
    """-log p of the same sentences from the bare decoder, `samples` times each, so many rows at a time."""
    texts, processor = sentences_and_processor(options, count)
    size = SIZES[options.sizes[0]]
    decoder = make_decoder(replace(size, vocabulary=max(size.vocabulary, 300)), options).eval()
    labels = processor(texts, texts)["labels"].to(options.device).repeat_interleave(samples, 0)
    mask = (labels != -100).long()
    read = read_before(labels.clamp(min=0))

    @torch.no_grad()
    def work(rows: int) -> None:
        for ids, attention, targets in zip(read.split(rows), mask.split(rows), labels.split(rows)):
            decoder(input_ids=ids, attention_mask=attention, labels=targets, shift_labels=targets, use_cache=False)

    return work


def run(options: Options) -> Iterator[Row]:
    samples, count = (50, 2) if options.quick else (SAMPLES, 4)
    ours, theirs = bound(options, samples, count), forwards(options, samples, count)
    with options.precision():
        best = min(ROWS, key=lambda rows: min(seconds(partial(theirs, rows), options.synchronize)() for _ in range(2)))
    yield compare(
        f"importance-weighted bound, K = {samples}, {count} sentences, {options.sizes[0]}",
        ours,
        partial(theirs, best),
        options,
        against=f"{samples} decoder passes, {best} rows at a time",
        target=1.05,
    )
    few = samples // 5
    measured = interleave(
        lambda: peak_memory("importance_bound", "bound", options, samples=samples, count=count),
        lambda: peak_memory("importance_bound", "bound", options, samples=few, count=count),
        1 if options.quick else 3,
        warm_up=0,
    )
    case = f"peak memory of the bound, K = {samples}, {options.sizes[0]}"
    yield summarise(case, *measured, unit="MiB", against=f"itself with K = {few}", target=1.05)
