"""Training on texts of many lengths: length groups and dynamic padding against a collator that pads everything to the longest."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_vae import VAEDataCollator, VAEProcessor
from hf_vae.data import grammar, load_texts
from hf_vae.training.from_scratch import train_tokenizers

from ..comparison import Row, interleave, seconds, summarise
from ..models import SIZES, make_vae
from ..options import Options

MAX_LENGTH = 64
BATCHES_AT_ONCE = 4


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


def batches(options: Options, count: int, batch_size: int, vocabulary: int) -> tuple[list, list, int]:
    """The same texts batched as with the Trainer's `train_sampling_strategy="group_by_length"`, and naively; and target tokens."""
    texts = ragged_texts(options, count)
    processor = VAEProcessor(*train_tokenizers(texts, vocabulary))
    lengths = {"max_length": MAX_LENGTH, "max_target_length": MAX_LENGTH}
    features = processor(texts, texts, return_tensors=None, **lengths)
    rows = [dict(zip(features, row)) for row in zip(*features.values())]
    generator = torch.Generator().manual_seed(options.seed)
    grouped = list(LengthGroupedSampler(batch_size, lengths=[len(row["input_ids"]) for row in rows], generator=generator))
    shuffled = torch.randperm(len(rows), generator=generator).tolist()
    ours, theirs = (
        [pad([rows[i] for i in order[at : at + batch_size]]).to(options.device) for at in range(0, len(order), batch_size)]
        for order, pad in ((grouped, VAEDataCollator(processor)), (shuffled, VAEDataCollator(processor, MAX_LENGTH)))
    )
    # Both sides take the groups in a random order, as training does.
    order = torch.randperm(len(ours), generator=generator).tolist()
    return [ours[i] for i in order], theirs, sum(len(row["labels"]) for row in rows)


def run(options: Options) -> Iterator[Row]:
    name = options.sizes[0]
    size = SIZES[name]
    count = size.batch * BATCHES_AT_ONCE * (2 if options.quick else 4)
    ours, theirs, target_tokens = batches(options, count, size.batch, max(size.vocabulary, 300))
    vocabulary = max(size.vocabulary, 300)
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
    padded = sum(batch["labels"].numel() for batch in ours) / target_tokens
    yield summarise(
        case,
        *pairs,
        per=target_tokens,
        unit="target tokens/s",
        against=f"all padded to {MAX_LENGTH}",
        target=1.5,
        note=f"{padded:.2f} positions per target token in length groups, {MAX_LENGTH * count / target_tokens:.2f} naively",
    )
