"""Seconds of training until the importance-weighted NLL of held-out sentences is within a tenth of their entropy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from hf_vae import VAEConfig, VAEDataCollator, VAEModel, VAEProcessor
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.data import grammar
from hf_vae.evaluation import LikelihoodEvaluator

from ..comparison import Row
from ..options import Options
from ..sizes import SIZES

# Of `--synthetic_dir`, nats per sentence, from its generator.
SYNTHETIC_ENTROPY = 30.1
LEARNING_RATE = 1e-3
SAMPLES = 50


class Corpus(NamedTuple):
    name: str
    train: list[str]
    held_out: list[str]
    entropy: float
    theirs: str


def corpus(options: Options, count: int) -> Corpus:
    if options.synthetic_dir is None:
        held_out, train = grammar.draw_sentences(200, options.seed), grammar.draw_sentences(count, options.seed, skip=200)
        return Corpus("the embedded grammar", train, held_out, grammar.sentence_entropy(), "")
    train, held_out = (
        (Path(options.synthetic_dir) / file).read_text(encoding="utf-8").splitlines() for file in ("train.txt", "eval.txt")
    )
    theirs = "after 8 epochs: Optimus' recipe 37.7 (a plain LM 31.06), LangVAE has no such figure; both measured apart"
    return Corpus("synthetic", train, held_out[:200], SYNTHETIC_ENTROPY, theirs)


def seconds_to(options: Options, data: Corpus, threshold: float, longest: float) -> tuple[float | None, float, int]:
    """
    Trains until `threshold` nats per sentence or `longest` seconds.

    Returns:
        Seconds of training alone, or `None` where the threshold was not reached; the last NLL; sentences trained on.
    """
    size = SIZES[options.sizes[0]]
    tokenizers = train_tokenizers(data.train, max(size.vocabulary, 300))
    processor = VAEProcessor(*tokenizers)
    encoder, decoder = small_configs(
        tokenizers[0],
        decoder_type="gpt2",
        hidden_size=size.hidden,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        num_attention_heads=size.heads,
        initializer_range=0.02,
        dropout=0.1,
    )
    config = VAEConfig(encoder=encoder, decoder=decoder, latent_size=size.latent, latent_injection=list(options.latent_injection))
    model = VAEModel(config).to(options.device)
    features = processor(data.train, data.train, return_tensors=None)
    rows = [dict(zip(features, row)) for row in zip(*features.values())]
    loader = torch.utils.data.DataLoader(
        rows, size.batch, shuffle=True, collate_fn=VAEDataCollator(processor), generator=torch.Generator().manual_seed(options.seed)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    evaluator = LikelihoodEvaluator(model, processor, data.held_out, data.held_out)
    trained, seen, nll = 0.0, 0, float("inf")
    step, every = 0, max(len(loader) // 2, 1)
    while True:
        for batch in loader:
            start = time.perf_counter()
            model.train()
            # The KL is let in slowly, over the first two epochs, so that z is of use by then.
            model.kl_weight.fill_(min(1.0, step / (2 * len(loader))))
            with options.precision():
                model(**batch.to(options.device)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            options.synchronize()
            trained += time.perf_counter() - start
            step, seen = step + 1, seen + len(batch["labels"])
            if step % every and trained < longest:
                continue
            bound = evaluator.importance_weighted(evaluator.posterior(), evaluator.prior(), SAMPLES)
            nll = bound.nll.mean().item()
            if nll <= threshold or trained >= longest:
                return trained if nll <= threshold else None, nll, seen


def run(options: Options) -> Iterator[Row]:
    longest = 20.0 if options.quick else 180.0
    data = corpus(options, 4000)
    threshold = 1.1 * data.entropy
    reached, nll, seen = seconds_to(options, data, threshold, longest)
    note = f"NLL {nll:.2f} after {seen} sentences; entropy {data.entropy:.2f}, asked for {threshold:.2f}"
    if reached is None:
        note += f"; stopped after {longest:.0f} s, as --quick does" if options.quick else f"; not reached in {longest:.0f} s"
    if data.theirs:
        note += f"; {data.theirs}"
    yield Row(
        f"time to an NLL within 10 % of the entropy, {data.name}, {options.sizes[0]}", reached, None, None, None, "s", "", note=note
    )
