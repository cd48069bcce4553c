"""Training on texts of many lengths: length groups and dynamic padding against a collator that pads everything to the longest."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_vae import VAEDataCollator, VAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.data import grammar, load_texts

from ..comparison import Row, interleave, seconds, summarise
from ..models import make_vae
from ..options import Options
from ..sizes import SIZES

MAX_LENGTH = 64
# The Trainer's sampler sorts 50 batches at a time, of fewer texts a fourth: as many are drawn as a training has, and some measured.
BATCHES_DRAWN = 200


def ragged_texts(options: Options, count: int) -> list[str]:
    """Of a file, or grammar sentences strung together, a geometric number of them, so that most texts are short."""
    if options.ragged_file is not None:
        return load_texts(options.ragged_file, text_column=options.text_column, max_rows=count)[:count]
    draw = random.Random(options.seed)
    sentences = iter(grammar.draw_sentences(4 * count, options.seed))
    texts = []
    for _ in range(count):
        parts = [next(sentences)]
        while draw.random() < 0.5 and len(parts) < 4:
            parts.append(next(sentences))
        texts.append(" ".join(parts))
    return texts


def batches(options: Options, measured: int, batch_size: int, vocabulary: int) -> tuple[list, list, int]:
    """The same texts batched as with the Trainer's `train_sampling_strategy="group_by_length"`, and naively; and target tokens."""
    texts = ragged_texts(options, BATCHES_DRAWN * batch_size)
    processor = VAEProcessor(*train_tokenizers(texts, vocabulary))
    lengths = {"max_length": MAX_LENGTH, "max_target_length": MAX_LENGTH}
    features = processor(texts, texts, return_tensors=None, **lengths)
    rows = [dict(zip(features, row)) for row in zip(*features.values())]
    generator = torch.Generator().manual_seed(options.seed)
    order = list(LengthGroupedSampler(batch_size, lengths=[len(row["input_ids"]) for row in rows], generator=generator))
    groups = [order[at : at + batch_size] for at in range(0, len(order) - batch_size + 1, batch_size)]
    chosen = [groups[i] for i in torch.randperm(len(groups), generator=generator)[:measured].tolist()]
    together = [number for group in chosen for number in group]
    shuffled = [together[i] for i in torch.randperm(len(together), generator=generator).tolist()]
    mixed = [shuffled[at : at + batch_size] for at in range(0, len(shuffled), batch_size)]
    ours, theirs = (
        [pad([rows[i] for i in batch]).to(options.device) for batch in each]
        for each, pad in ((chosen, VAEDataCollator(processor)), (mixed, VAEDataCollator(processor, MAX_LENGTH)))
    )
    return ours, theirs, sum(len(rows[i]["labels"]) for i in together)


def run(options: Options) -> Iterator[Row]:
    name = options.sizes[0]
    size = SIZES[name]
    vocabulary = max(size.vocabulary, 300)
    ours, theirs, target_tokens = batches(options, 8 if options.quick else 16, size.batch, vocabulary)
    model = make_vae(type(size)(**{**vars(size), "vocabulary": vocabulary}), options).train()

    def epoch(all_batches) -> None:
        for batch in all_batches:
            model.zero_grad()
            model(**batch).loss.backward()

    def measured(all_batches) -> Callable[[], float]:
        return seconds(partial(epoch, all_batches), options.synchronize)

    with options.precision():
        pairs = interleave(measured(ours), measured(theirs), min(options.repeats, 3))
    where = "a file" if options.ragged_file else "made texts"
    case = f"training on ragged text ({where}), {name}"
    positions, naively = (sum(batch["labels"].numel() for batch in each) / target_tokens for each in (ours, theirs))
    yield summarise(
        case,
        *pairs,
        per=target_tokens,
        unit="target tokens/s",
        against=f"all padded to {MAX_LENGTH}",
        target=1.5,
        note=f"{positions:.2f} positions per target token in length groups, {naively:.2f} naively",
    )
