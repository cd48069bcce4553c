"""
Long texts through several vectors of z: what comes back, what it costs in nats, and what lies between two texts.

    python -m benchmarks.long_texts data captions DIR FOLDER
    python -m benchmarks.long_texts measure MODEL --test_file FILE --output RESULTS [--lengths 20 40 80 160]
    python -m benchmarks.long_texts curve MODEL --train_file FILE --test_file FILE --weights 0.1 0.3 1 --output RESULTS
    python -m benchmarks.long_texts write NAME RESULTS [RESULTS ...]

`data` makes `train.jsonl`, `validation.jsonl` and `test.jsonl` of a corpus in DIR: `captions` puts the captions of a picture in a
row, and to train on also those of any pictures; `dialogues` puts the turns of a dialogue in a row; `paragraphs` joins the
sentences of a book. Of the last two the texts to train on begin anywhere and have from 20 to 160 words. Some words of the texts to
train on are replaced, as `hf_vae.data.replace_words` does. MODEL is a sentence VAE of such texts. `measure` writes what it is worth
on held-out ones, of each length by itself if `--lengths` are given: a text counts for a length from which it differs by a quarter
at most. `curve` trains it further under heavier weights of the KL, one after the other, and measures each: its rate and its
distortion. `write` puts the tables of a corpus into docs/measured/long_texts.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from hf_vae import KLAnnealingCallback, VAEDataCollator
from hf_vae.data import load_texts, replace_words
from hf_vae.data.readers import read_rows
from hf_vae.evaluation import LikelihoodEvaluator, likelihood_metrics, reconstruction_at_mean, token_f1
from hf_vae.latent_space import decode_latents, interpolate_latents, word_edit_distance
from hf_vae.training import ConstantSchedule

from .report import markdown_table, write_between
from .what_z_is_for import load

PAGE = Path(__file__).parent.parent / "docs" / "measured" / "long_texts.md"
SPLITS = ("train", "validation", "test")
CAPTIONS_OF_A_PICTURE = 5
# Words are replaced by the most frequent ones, all of which the recipe's tokenizer knows.
KNOWN_WORDS = 3990
# How many words a paragraph that is measured has; a text to train on may have any number between. And how far a text may be from a
# length to count for it.
PARAGRAPHS, NEAR = (20, 40, 80, 160), 0.25
STEPS_BETWEEN = 5
# Of a training whose texts are in an order of their own.
BATCH = 16

TextMaker = Callable[[Sequence[Any], random.Random], Iterator[str]]


def captions_of_pictures(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [[each.lower().strip() for each in (row["source"], *row["targets"])][:CAPTIONS_OF_A_PICTURE] for row in rows]


def caption_sets(rows: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[str]:
    """The five captions of a picture in a row."""
    return map(" ".join, captions_of_pictures(rows))


def shuffled_caption_sets(rows: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[str]:
    """Without end: the captions of a picture in another order, then as many of any pictures, and so on."""
    pictures = captions_of_pictures(rows)
    captions = [caption for each in pictures for caption in each]
    if len(captions) < CAPTIONS_OF_A_PICTURE:
        raise ValueError(
            f"There are {len(captions)} captions to train on, and a text has {CAPTIONS_OF_A_PICTURE}: give more pictures."
        )

    def of_any_pictures() -> Iterator[list[str]]:
        while True:
            rng.shuffle(captions)
            for place in range(0, len(captions) - CAPTIONS_OF_A_PICTURE + 1, CAPTIONS_OF_A_PICTURE):
                yield captions[place : place + CAPTIONS_OF_A_PICTURE]

    groups = of_any_pictures()
    for picture in itertools.cycle(pictures):
        in_a_row = list(picture)
        rng.shuffle(in_a_row)
        yield " ".join(in_a_row)
        yield " ".join(next(groups))


def dialogues(rows: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[str]:
    """The turns of a dialogue in a row."""
    for row in rows:
        yield " ".join(turn["text"].lower().strip() for turn in row["turns"])


def words_of(rows: Iterable[str]) -> list[str]:
    """The words and the punctuation marks of a book."""
    return [word for row in rows for word in re.findall(r"\w+|[^\w\s]", row.lower())]


def paragraphs(rows: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Sentences of a book, joined until there are as many words as one of `PARAGRAPHS` has, and cut there."""
    words, start = words_of(rows), 0
    while start + (wanted := rng.choice(PARAGRAPHS)) <= len(words):
        yield " ".join(words[start : start + wanted])
        start += wanted


def any_length(rng: random.Random) -> int:
    """
    Of a text to train on. A quarter of them have the least, so that there is time to learn to read z. Of the others as many have 20
    to 40 words as 40 to 80.
    """
    least, most = min(PARAGRAPHS), max(PARAGRAPHS)
    return least if rng.random() < 1 / 4 else round(math.exp(rng.uniform(math.log(least), math.log(most))))


def paragraphs_from_anywhere(rows: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Without end: from 20 to 160 words of a book, from any word on."""
    words = words_of(rows)
    if len(words) < max(PARAGRAPHS):
        raise ValueError(
            f"There are {len(words)} words to train on, and a text has up to {max(PARAGRAPHS)}: give more of the book."
        )
    while True:
        wanted = any_length(rng)
        start = rng.randrange(len(words) - wanted + 1)
        yield " ".join(words[start : start + wanted])


def dialogues_from_anywhere(rows: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[str]:
    """Without end: from 20 to 160 words of a dialogue, from any turn on that has so many behind it, or the whole if none has."""
    while True:
        turns = [turn["text"].lower().split() for turn in rng.choice(rows)["turns"]]
        wanted = any_length(rng)
        from_each = [list(itertools.chain.from_iterable(turns[start:])) for start in range(len(turns))]
        long_enough = [words for words in from_each if len(words) >= wanted]
        yield " ".join(rng.choice(long_enough or from_each[:1])[:wanted])


def num_words(text: str) -> int:
    return len(text.split())


def short_first(texts: Sequence[str], rng: random.Random) -> list[str]:
    """
    An order to train in, for batches of `BATCH` in the order of the file. The shortest eighth of the texts comes first: z is read
    sooner in short ones. Then come all others, in batches of texts of about one length.
    """
    growing = sorted(rng.sample(texts, len(texts)), key=num_words)
    batches = [growing[place : place + BATCH] for place in range(0, len(growing), BATCH)]
    first, others = batches[: len(batches) // 8], batches[len(batches) // 8 :]
    rng.shuffle(others)
    return list(itertools.chain.from_iterable(first + others))


# Of each corpus the texts to measure on, and those to train on, which do not end.
CORPORA: dict[str, tuple[TextMaker, TextMaker]] = {
    "captions": (caption_sets, shuffled_caption_sets),
    "dialogues": (dialogues, dialogues_from_anywhere),
    "paragraphs": (paragraphs, paragraphs_from_anywhere),
}


def make_data(args: argparse.Namespace) -> None:
    """Writes the three files of a corpus."""
    measured_on, trained_on = CORPORA[args.corpus]
    args.folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        [path] = args.source.glob(f"{split}.*")
        rows = load_texts(str(path), split) if path.suffix == ".txt" else read_rows(str(path), split)
        rng = random.Random(args.seed)
        texts = list(measured_on(rows, rng))
        if split == "train":
            without_end = replace_words(trained_on(rows, rng), texts, args.shares, KNOWN_WORDS, rng)
            texts = list(itertools.islice(without_end, args.num_train))
            if args.short_first:
                texts = short_first(texts, rng)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (args.folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def by_length(texts: Sequence[str], num_tokens: Sequence[int], lengths: Sequence[int], num: int) -> dict[str, list[str]]:
    """The first `num` texts of each length, EOS not counted, by what the table calls it; of all texts without `lengths`."""
    if not lengths:
        return {"all": list(texts[:num])}
    found = {}
    for length in lengths:
        near = [text for text, count in zip(texts, num_tokens) if abs(count - length) <= NEAR * length]
        if len(near) < 2:
            raise ValueError(f"`--lengths` has {length}, and {len(near)} texts are that long: two are needed.")
        found[str(length)] = near[:num]
    return found


def between(model: Any, processor: Any, codes: torch.Tensor, texts: Sequence[str], limit: int) -> dict[str, Any]:
    """
    What is written on straight lines between the codes of neighbours: the F1 of its words with the reconstruction of either end, at
    each of `STEPS_BETWEEN` points, and how many of the texts differ.
    """
    pairs = list(zip(range(0, len(texts) - 1, 2), range(1, len(texts), 2)))
    paths = [interpolate_latents(codes[start], codes[end], STEPS_BETWEEN) for start, end in pairs]
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": limit}
    written = decode_latents(model, processor, torch.cat(paths), **options)
    rows = [written[place : place + STEPS_BETWEEN] for place in range(0, len(written), STEPS_BETWEEN)]

    def likeness(which: int) -> list[float]:
        return [statistics.fmean(token_f1(row[step], row[which]) for row in rows) for step in range(STEPS_BETWEEN)]

    return {
        "to_start": likeness(0),
        "to_end": likeness(-1),
        "different": statistics.fmean(len(set(row)) for row in rows),
        "example": rows[0],
    }


def worth(model: Any, processor: Any, texts: list[str], importance_samples: int, num_paths: int, seed: int) -> dict[str, Any]:
    """Everything that is measured of a model on some texts."""
    evaluator = LikelihoodEvaluator(model, processor, texts, texts, batch_size=32)
    with evaluator.reading_once():
        found: dict[str, Any] = likelihood_metrics(evaluator, importance_samples, seed)
        posterior = evaluator.posterior()
        again = reconstruction_at_mean(evaluator, posterior)
    tokens = evaluator.label_ids()
    found |= again.metrics()
    # A word too many or too few puts all tokens behind it in the wrong place, and counts here for itself alone.
    found["edit_distance"] = statistics.fmean(map(word_edit_distance, again.texts, again.targets))
    found |= {"texts": len(texts), "tokens": statistics.fmean(map(len, tokens)), "importance_samples": importance_samples}
    found |= {"num_latents": model.config.num_latents, "latent_size": model.config.latent_size}
    found["example"] = [again.targets[0], again.texts[0]]
    if num_paths:
        longest = max(map(len, tokens))
        found["between"] = between(model, processor, posterior.mode()[: 2 * num_paths], texts[: 2 * num_paths], longest)
    return found


def num_tokens(processor: Any, texts: Sequence[str]) -> list[int]:
    return [len(row) - 1 for row in processor.label_ids(list(texts), {"truncation": False})]


def held_out_texts(args: argparse.Namespace) -> list[str]:
    """In a random order: what follows each other in a file may be alike."""
    texts = load_texts(args.test_file, "test")
    return random.Random(args.seed).sample(texts, len(texts))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each length."""
    model, processor = load(args.model)
    texts = held_out_texts(args)
    chosen = by_length(texts, num_tokens(processor, texts), args.lengths, args.num)
    if args.longest is not None:
        # Of those that would be measured anyway, so that the two rows are of the same texts.
        chosen = {
            name: [text for text in those if num_tokens(processor, [text])[0] <= args.longest] for name, those in chosen.items()
        }
    rows = []
    for length, those in chosen.items():
        start = time.perf_counter()
        row = worth(model, processor, those, args.importance_samples, args.num_paths, args.seed)
        rows.append({"length": length, "kind": "measure", **row, "seconds": time.perf_counter() - start})
        print({name: value for name, value in rows[-1].items() if not isinstance(value, (dict, list))}, flush=True)
    return rows


def curve(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each weight of the KL, the first of them as the model comes."""
    model, processor = load(args.model)
    texts = load_texts(args.train_file, "train")
    held_out = held_out_texts(args)[: args.num]
    data = Dataset.from_dict({"text": texts}).map(
        lambda batch: dict(
            processor(
                text=batch["text"], text_target=batch["text"], max_length=args.max_length, truncation=True, return_tensors=None
            )
        ),
        batched=True,
        remove_columns=["text"],
    )
    rows = []
    for weight in (None, *args.weights):
        if weight is not None:
            training = TrainingArguments(
                output_dir=tempfile.gettempdir(), max_steps=args.steps, learning_rate=args.learning_rate,
                per_device_train_batch_size=args.batch_size, lr_scheduler_type="cosine", warmup_steps=50, save_strategy="no",
                report_to="none", seed=args.seed, logging_steps=100, disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
                train_sampling_strategy="group_by_length",
            )  # fmt: skip
            callback = KLAnnealingCallback(ConstantSchedule(weight))
            Trainer(
                model, training, train_dataset=data, data_collator=cast(Any, VAEDataCollator(processor)), callbacks=[callback]
            ).train()
        row = worth(model.eval(), processor, held_out, args.importance_samples, 0, args.seed)
        rows.append({"kind": "curve", "weight": weight, **row})
        print({name: value for name, value in rows[-1].items() if not isinstance(value, (dict, list))}, flush=True)
    return rows


def shape(row: dict[str, Any]) -> str:
    return f"{row['num_latents']} × {row['latent_size']}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def measured_table(rows: Sequence[dict[str, Any]]) -> str:
    """What comes back, and what it costs."""
    head = (
        "z", "tokens", "texts", "token accuracy", "edit distance", "exact", "BLEU", "KL", "reconstruction", "another text's z",
        "IW-NLL",
    )  # fmt: skip
    cells = [
        (
            row["name"], f"{row['tokens']:.1f}", str(row["texts"]), share(row["reconstruction_at_mean_token_accuracy"]),
            f"{row['edit_distance']:.2f}", share(row["reconstruction_at_mean_exact_match"]),
            f"{row['reconstruction_at_mean_bleu']:.1f}", f"{row['kl']:.1f}", f"{row['reconstruction']:.1f}",
            f"{row['nll_shuffled']:.1f}", f"{row['iw_nll']:.1f}",
        )
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, cells)


def between_table(rows: Sequence[dict[str, Any]]) -> str:
    """How texts between two others change from one to the other."""
    fractions = [f"{step / (STEPS_BETWEEN - 1):g}" for step in range(STEPS_BETWEEN)]
    cells = []
    for row in rows:
        path = row["between"]
        both = [f"{100 * start:.0f} / {100 * end:.0f}" for start, end in zip(path["to_start"], path["to_end"])]
        cells.append((row["name"], f"{row['tokens']:.0f}", *both, f"{path['different']:.2f}"))
    return markdown_table(("z", "tokens", *fractions, "different of five"), cells)


def curve_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rates and distortions."""
    head = ("z", "KL weight", "rate (KL)", "distortion", "−ELBO", "IW-NLL", "token accuracy")
    cells = [
        (
            row["name"], "as trained" if row["weight"] is None else f"{row['weight']:g}", f"{row['kl']:.1f}",
            f"{row['reconstruction']:.1f}", f"{-row['elbo']:.1f}", f"{row['iw_nll']:.1f}",
            share(row["reconstruction_at_mean_token_accuracy"]),
        )
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, cells)


def marks(name: str) -> tuple[str, str]:
    """What the tables of a corpus stand between."""
    return f"<!-- long texts: {name} -->", f"<!-- end of long texts: {name} -->"


def samples_of(rows: Sequence[dict[str, Any]]) -> str:
    return f"K = {' and '.join(map(str, sorted({row['importance_samples'] for row in rows})))}"


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of a corpus in Markdown, and one text of each model."""
    measured = [row for row in rows if row["kind"] == "measure"]
    curves = [row for row in rows if row["kind"] == "curve"]
    parts = [f"Nats per text; the bound has {samples_of(measured)}.", measured_table(measured)]
    paths = [row for row in measured if "between" in row]
    if paths:
        said = "On the line between two texts, F1 of the words with the reconstruction of the start and of the end, per cent:"
        parts += [said, between_table(paths)]
    if curves:
        said = f"Trained further under heavier weights of the KL, one after the other; here the bound has {samples_of(curves)}:"
        parts += [said, curve_table(curves)]
    parts.append("A held-out text, and what comes back:")
    longest: dict[str, dict[str, Any]] = {}
    for row in measured:
        longest[row["name"]] = row
    width = max(map(len, longest))
    texts = [f"{'':<{width}}  {row['example'][0]}" for row in list(longest.values())[:1]]
    texts += [f"{name:<{width}}  {row['example'][1]}" for name, row in longest.items()]
    parts.append("\n".join(["```text", *texts, "```"]))
    return "\n\n".join(parts)


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of several results, each with the name that the table calls its model by."""
    rows = [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]
    return [{"name": row["label"] or shape(row), **row} for row in rows]


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="python -m benchmarks.long_texts", description="Long texts through several vectors of z.")
    commands = parse.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="Make the files of a corpus.")
    data.add_argument("corpus", choices=list(CORPORA))
    data.add_argument("source", type=Path, help="The folder of the corpus, with train, validation and test.")
    data.add_argument("folder", type=Path, help="Where the files go.")
    data.add_argument("--num_train", type=int, default=200_000, help="Texts to train on. Default: %(default)s.")
    data.add_argument(
        "--shares", type=float, nargs="+", default=[0, 0.2, 0.5],
        help="Shares of the words of a text to train on that are replaced, one of them for each text. Default: %(default)s.",
    )  # fmt: skip
    data.add_argument(
        "--short_first", action="store_true",
        help=f"Put the texts to train on in an order of their own, the shortest first, for `--train_sampling_strategy sequential` "
        f"and batches of {BATCH}.",
    )  # fmt: skip
    data.add_argument("--seed", type=int, default=0)
    for name, described in (("measure", "Measure a model."), ("curve", "Train a model under heavier weights, and measure.")):
        one = commands.add_parser(name, help=described)
        one.add_argument("model", help="A sentence VAE.")
        one.add_argument("--test_file", required=True)
        one.add_argument("--num", type=int, default=200, help="Texts, of each length. Default: %(default)s.")
        one.add_argument("--importance_samples", type=int, default=100, help="Default: %(default)s.")
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--label", default="", help="What the tables call the model, instead of k × d.")
        one.add_argument("--output", type=Path, required=True, help="Results as JSON.")
        if name == "measure":
            one.add_argument("--lengths", type=int, nargs="*", default=[], help="Tokens; all texts together without.")
            one.add_argument("--longest", type=int, help="Of these texts leave out those of more tokens.")
            one.add_argument("--num_paths", type=int, default=50, help="Lines between two texts. Default: %(default)s.")
            continue
        one.add_argument("--train_file", required=True)
        one.add_argument("--weights", type=float, nargs="+", required=True, help="Of the KL, in the order of the training.")
        one.add_argument("--steps", type=int, default=500, help="Under each weight. Default: %(default)s.")
        one.add_argument("--batch_size", type=int, default=32, help="Default: %(default)s.")
        one.add_argument("--learning_rate", type=float, default=5e-4, help="Default: %(default)s.")
        one.add_argument("--max_length", type=int, default=72, help="Tokens of a text to train on. Default: %(default)s.")
    write = commands.add_parser("write", help="Put the tables into the page.")
    write.add_argument("corpus", choices=list(CORPORA))
    write.add_argument("results", type=Path, nargs="+")
    return parse


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.command == "data":
        make_data(args)
    elif args.command == "write":
        write_between(PAGE, marks(args.corpus), page(read_results(args.results)))
    else:
        rows = {"measure": measure, "curve": curve}[args.command](args)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps([{"label": args.label, **row} for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
