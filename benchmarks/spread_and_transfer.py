"""
What the z of a paraphrase model does on real text: ten outputs by z that lie to each other in several ways, and z of one pair given
to other sources.

    python -m benchmarks.spread_and_transfer --model MODEL --test_file FILE --name captions [--num 300] [--write]

MODEL is a paraphrase model, such as that of `examples/recipes/paraphrase_captions.yaml`, and FILE has its held-out sources with
their `targets`. `--write` puts the tables into docs/measured/spread.md, between the marks of `--name`.

Spreads are compared over the same resamples of the sources. A form is measured by what is seen of a text without a parser: its
first words, its last one, its length, whether it has a word in -ing.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sacrebleu.metrics import BLEU
from transformers import AutoModel, AutoProcessor

from hf_vae.data import load_pairs
from hf_vae.evaluation import (
    Estimate,
    LikelihoodEvaluator,
    bootstrapped_differences,
    bootstrapped_metrics,
    generate_texts,
    information_metrics,
)
from hf_vae.evaluation.distributed import spread_samples
from hf_vae.latent_space import encode_texts, fit_attribute, transfer
from hf_vae.latent_spread import LATENT_SPREADS

from .report import markdown_table, write_between

PAGE = Path(__file__).parent.parent / "docs" / "measured" / "spread.md"
OUTPUTS = 10
# First words that are told of one by one.
OPENINGS = 6
# A dimension of z that says less than this of a target, in nats, is hardly read.
SAYS_SOMETHING = 0.1
# Names of measures that are looked up by them.
FIRST, LENGTH = "first word, %", "difference of length, words"
# What is held against another target, that of the source's own pair, and so not compared with the other rows.
OWN, PRIOR_OWN = "of the source's own pair, held against its own target", "from the prior, held against that target too"
# Pairs and sources of our own, in the manner of each corpus.
EXAMPLES: dict[str, list[tuple[tuple[str, str], list[str]]]] = {
    "captions": [
        (
            ("A boy is jumping into a lake .", "There is a boy who jumps into the water ."),
            ["A brown dog runs through the snow .", "Two women are sitting on a bench ."],
        ),
        (
            ("A boy is jumping into a lake .", "a boy in the water"),
            ["A brown dog runs through the snow .", "Two women are sitting on a bench ."],
        ),
    ],
    "quora": [
        (
            ("how do i learn to cook", "what is the best way to learn cooking"),
            ["how can i lose weight", "how do i get better at chess"],
        ),
        (
            ("how do i learn to cook", "is there any way to learn cooking"),
            ["how can i lose weight", "how do i get better at chess"],
        ),
    ],
}


def marks(name: str) -> tuple[str, str]:
    """What the tables of a corpus stand between."""
    return f"<!-- spread and transfer: {name} -->", f"<!-- end of spread and transfer: {name} -->"


def words_of(text: str) -> list[str]:
    return text.lower().split()


def same_opening(text: str, example: str, num_words: int = 1) -> float:
    """1 if both begin with the same `num_words` words; a text with fewer has none."""
    own, its = words_of(text)[:num_words], words_of(example)[:num_words]
    return float(own == its and len(own) == num_words)


def same_ending(text: str, example: str) -> float:
    """1 if both end with the same word or mark."""
    own, its = words_of(text), words_of(example)
    return float(bool(own) and own[-1:] == its[-1:])


def same_participle(text: str, example: str) -> float:
    """1 if both have a word in -ing, or neither: "a dog is running" and "a dog runs" differ in it."""

    def has_one(each: str) -> bool:
        return any(word.endswith("ing") for word in words_of(each))

    return float(has_one(text) == has_one(example))


def length_difference(text: str, example: str) -> float:
    """By how many words one is longer than the other."""
    return float(abs(len(words_of(text)) - len(words_of(example))))


def foreign_share(text: str, example: str, own: Sequence[str]) -> float:
    """
    The share of a text's words that the example has and none of `own`, the new source and its references, does: what has come
    along with the form. 0 of a text without words.
    """
    found = words_of(text)
    brought = set(words_of(example)) - {word for each in own for word in words_of(each)}
    return sum(word in brought for word in found) / len(found) if found else 0.0


def sentence_bleu(text: str, references: Sequence[str]) -> float:
    """0 to 100, lower-cased, of as many n-grams as there can be."""
    return BLEU(lowercase=True, effective_order=True).sentence_score(text, list(references)).score


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error; of a single value there is none."""
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), spread / math.sqrt(len(values))


def look_at(text: str, example: str, source: str, references: Sequence[str]) -> dict[str, float]:
    """
    What is seen of an output: how far it has the form of the `example`, whether it still has the content of its `source`, and how
    much of the example's content has come along.
    """
    return {
        FIRST: 100 * same_opening(text, example),
        "first two words, %": 100 * same_opening(text, example, 2),
        "last word, %": 100 * same_ending(text, example),
        "with or without -ing, %": 100 * same_participle(text, example),
        LENGTH: length_difference(text, example),
        "BLEU to the source's references": sentence_bleu(text, references),
        "the example's own words, %": 100 * foreign_share(text, example, [source, *references]),
    }


def form_of(
    outputs: Sequence[Sequence[str]], examples: Sequence[str], sources: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """
    What [`look_at`] sees of the outputs.

    Args:
        outputs (`list[list[str]]`): of each source one or several.
        examples (`list[str]`): the target whose form the outputs of each source are held against.
        sources (`list[str]`), references (`list[list[str]]`): what the outputs are to say.

    Returns:
        By name a value for each source, the mean over its outputs.
    """
    rows = [[look_at(text, *row) for text in texts] for texts, *row in zip(outputs, examples, sources, references, strict=True)]
    return {name: [statistics.fmean(each[name] for each in row) for row in rows] for name in rows[0][0]}


def rare_openings(examples: Sequence[str]) -> tuple[str, list[int]]:
    """The word that most examples begin with, and the numbers of those that begin with another."""
    first = [(words_of(text) or [""])[0] for text in examples]
    [(commonest, _)] = Counter(first).most_common(1)
    return commonest, [number for number, word in enumerate(first) if word != commonest]


def draw_sources(test_file: str, processor: Any, num: int, max_length: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """
    `num` sources of the file and the references of each, in a random order, because neighbours in a file may be alike. None is
    longer than `max_length` tokens, and its first reference neither: z of a pair is to say all of it.
    """

    def fits(row: dict[str, Any]) -> bool:
        tokens = processor.encoder_tokenizer([row["source"], row["targets"][0]], add_special_tokens=True)["input_ids"]
        return max(map(len, tokens)) <= max_length

    rows = [row for row in load_pairs(test_file, "test") if fits(row)]
    if len(rows) < 3:
        raise ValueError(
            f"{test_file} has {len(rows)} rows of at most {max_length} tokens, and three are needed: raise `--max_length`."
        )
    drawn = random.Random(seed).sample(rows, min(num, len(rows)))
    return [row["source"] for row in drawn], [row["targets"] for row in drawn]


def what_z_says(evaluator: LikelihoodEvaluator, seed: int) -> tuple[str, list[int]]:
    """
    In words the KL, how many numbers of z it lies in, and how far all q together are from the prior; and the places of the numbers
    that say something, all if there is no KL of each.
    """
    with evaluator.reading_once():
        posterior, prior = evaluator.posterior(), evaluator.prior()
        noise = torch.randn((len(evaluator), 1, posterior.noise_size), generator=torch.Generator().manual_seed(seed))
        own = posterior.from_noise(noise)
        drawn = prior.from_noise(torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed + 1)))
        nll = evaluator.nll(torch.cat([own, own[evaluator.shuffled_partners()], drawn], dim=1)).mean(0).tolist()
    found = information_metrics(posterior, prior, seed=seed)
    told = [
        f"z says {found['mutual_information']:.1f} nats of a pair, of at most {found['mutual_information_ceiling']:.1f}; "
        f"{found['active_units_0.01']:.0f} of its {found['latent_size']:.0f} numbers are active units."
    ]
    by_number = posterior.kl(prior)
    loud = list(range(prior.noise_size))
    if by_number is not None:
        nats = by_number.mean(0)
        loud = (nats > SAYS_SOMETHING).nonzero().flatten().tolist()
        told.append(f"The KL is {nats.sum():.1f} nats, and {len(loud)} numbers have more than {SAYS_SOMETHING} of them.")
    if "marginal_kl" in found:
        told.append(f"All q together are {found['marginal_kl']:.1f} nats from the prior.")
    told.append(
        f"A target costs {nll[0]:.1f} nats with its own z, {nll[1]:.1f} with the z of another pair and {nll[2]:.1f} with one from "
        "the prior."
    )
    return " ".join(told), loud


def what_z_tells(model: Any, processor: Any, pairs: Sequence[tuple[str, str]], seed: int) -> str:
    """In words how well the length of a target, and whether it has a word in -ing, can be told from its z, linearly."""
    means = encode_texts(model, processor, [y for _, y in pairs], sources=[x for x, _ in pairs]).mode()
    told = []
    lengths = [float(len(words_of(y))) for _, y in pairs]
    if len(set(lengths)) > 1:
        told.append(f"the number of words with R² {fit_attribute(model, processor, means, lengths, seed=seed).score:.2f}")
    participles = [bool(same_participle(y, "being")) for _, y in pairs]
    if len(set(participles)) > 1:
        accuracy = 100 * fit_attribute(model, processor, means, participles, seed=seed).score
        commonest = 100 * max(Counter(participles).values()) / len(participles)
        told.append(f"whether there is a word in -ing with an accuracy of {accuracy:.0f} %, where a guess has {commonest:.0f} %")
    return f"From z can be told, cross-validated: {', '.join(told)}." if told else ""


def repelled_where_z_speaks(
    evaluator: LikelihoodEvaluator, loud: Sequence[int], num_samples: int, temperature: float, seed: int
) -> torch.Tensor:
    """z from the prior `(sources, num_samples, latent_size)`, of which only the numbers at the places `loud` repel each other."""
    prior, sources = evaluator.prior(), range(len(evaluator))
    noise = spread_samples(sources, num_samples, prior.noise_size, seed, "independent")
    noise[..., list(loud)] = spread_samples(sources, num_samples, len(loud), seed, "repelled")
    return prior.from_noise(noise, temperature)


def estimate(value: Estimate, digits: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{value.value:{sign}.{digits}f} ({value.low:{sign}.{digits}f} to {value.high:{sign}.{digits}f})"


SPREAD_COLUMNS = {
    "distinct": ("distinct of ten", 2), "best_bleu": ("BLEU, best", 1), "best_chrf": ("chrF, best", 1),
    "bleu": ("BLEU, average", 1), "self_bleu": ("self-BLEU", 1), "distinct_2": ("distinct-2", 3),
    "lengths": ("deviation of length, words", 2),
}  # fmt: skip


def spread_table(
    outputs: dict[str, list[list[str]]],
    references: Sequence[Sequence[str]],
    seconds: dict[str, float],
    num_resamples: int,
    seed: int,
) -> str:
    """Each spread's metrics; of all but the first their differences to it, with 95 % intervals over sources."""
    of_sources = {
        name: {
            "distinct": [float(len(set(texts))) for texts in each],
            "lengths": [statistics.pstdev(len(words_of(text)) for text in texts) for texts in each],
        }
        for name, each in outputs.items()
    }
    baseline = next(iter(outputs))
    head = ["`latent_spread`", *(title for title, _ in SPREAD_COLUMNS.values()), "CPU ms a source"]
    drawn = {"num_resamples": num_resamples, "seed": seed}
    rows, below = [], []
    for name, each in outputs.items():
        metrics = bootstrapped_metrics(each, references, of_sources=of_sources[name], **drawn)
        cells = [f"{metrics[column].value:.{digits}f}" for column, (_, digits) in SPREAD_COLUMNS.items()]
        label = f"`{name}`" if name in LATENT_SPREADS else name
        rows.append([label, *cells, f"{1000 * seconds[name]:.0f}"])
        if name != baseline:
            gained = {
                column: [own - its for own, its in zip(values, of_sources[baseline][column])]
                for column, values in of_sources[name].items()
            }
            found = bootstrapped_differences(each, outputs[baseline], references, of_sources=gained, **drawn)
            cells = [estimate(found[column], digits, signed=True) for column, (_, digits) in SPREAD_COLUMNS.items()]
            below.append([f"{label} less `{baseline}`", *cells, ""])
    return markdown_table(head, [*rows, *below])


def kept_openings(found: dict[str, dict[str, list[float]]], examples: Sequence[str]) -> str:
    """In words how often the outputs begin as the example, for the commonest first words of examples."""
    first = [(words_of(text) or [""])[0] for text in examples]
    compared = [row for name, row in found.items() if name not in (OWN, PRIOR_OWN)]
    told = []
    for word, many in Counter(first).most_common(OPENINGS):
        shares = [statistics.fmean(share for share, each in zip(row[FIRST], first) if each == word) for row in compared]
        told.append(f"`{word}` {' / '.join(f'{share:.0f}' for share in shares)} of {many}")
    return "By the example's first word, per cent that begin with it too, in the order of the rows: " + ", ".join(told) + "."


def transfer_table(found: dict[str, dict[str, list[float]]], rare: Sequence[int], commonest: str) -> str:
    """
    A row for each way to come by z, and what the first one has more than each of the others, with standard errors. Those that are
    held against another target are not compared.
    """
    other = f"the same, if it is not `{commonest}`, %"
    columns = [*next(iter(found.values()))]
    columns.insert(columns.index(FIRST) + 1, other)

    def values(name: str, column: str) -> list[float]:
        return [found[name][FIRST][number] for number in rare] if column == other else found[name][column]

    def shown(numbers: Sequence[float], column: str, signed: bool) -> str:
        if not numbers:
            return ""
        digits = 2 if column == LENGTH else 1
        mean, error = mean_and_error(numbers)
        return f"{mean:+.{digits}f} ± {error:.{digits}f}" if signed else f"{mean:.{digits}f}"

    rows = [[name, *(shown(values(name, column), column, False) for column in columns)] for name in found]
    first, *others = [name for name in found if name not in (OWN, PRIOR_OWN)]
    for name in others:
        cells = []
        for column in columns:
            gained = [own - its for own, its in zip(values(first, column), values(name, column))]
            cells.append(shown(gained, column, True))
        rows.append([f"{first}, less {name}", *cells])
    return markdown_table(["z", *columns], rows)


def measure(options: argparse.Namespace) -> str:
    """All that the page shows of one corpus."""
    model, processor = AutoModel.from_pretrained(options.model).eval(), AutoProcessor.from_pretrained(options.model)
    sources, references = draw_sources(options.test_file, processor, options.num, options.max_length, options.seed)
    generation: dict[str, Any] = {"do_sample": False, "max_new_tokens": options.max_length}
    temperature = options.latent_temperature
    if temperature is None:
        temperature = getattr(model.generation_config, "latent_temperature", None) or 1.0
    lengths = {"max_length": options.max_length, "max_target_length": options.max_length}
    evaluator = LikelihoodEvaluator(model, processor, sources, [each[0] for each in references], **lengths)
    told, loud = what_z_says(evaluator, options.seed)
    written, seconds = {}, {}
    common: dict[str, Any] = {"latent_temperature": temperature, "seed": options.seed, "max_length": options.max_length}
    # The first call takes longer than those after it.
    generate_texts(model, processor, sources[:1], OUTPUTS, **common, **generation)
    for spread in LATENT_SPREADS:
        start = time.process_time()
        written[spread] = generate_texts(model, processor, sources, OUTPUTS, latent_spread=spread, **common, **generation)
        seconds[spread] = (time.process_time() - start) / len(sources)
    if loud:
        where = f"repelled, in {len(loud)} numbers"
        latents = repelled_where_z_speaks(evaluator, loud, OUTPUTS, temperature, options.seed)
        start = time.process_time()
        written[where] = generate_texts(model, processor, sources, OUTPUTS, latents, max_length=options.max_length, **generation)
        seconds[where] = (time.process_time() - start) / len(sources)
    first = [each[0] for each in references]
    pairs = list(zip(sources, first))
    # The order is random, so the rows behind are pairs by chance.
    example, other = (pairs[shift:] + pairs[:shift] for shift in (1, 2))
    forms = [target for _, target in example]
    moved, strange, own = (transfer(model, processor, each, sources, **generation).texts for each in (example, other, pairs))
    commonest, rare = rare_openings(forms)

    def seen(outputs: Sequence[Sequence[str]], examples: Sequence[str]) -> dict[str, list[float]]:
        return form_of(outputs, examples, sources, references)

    found = {
        "of the example": seen([[text] for text in moved], forms),
        "of another pair": seen([[text] for text in strange], forms),
        "from the prior": seen(written["independent"], forms),
        OWN: seen([[text] for text in own], first),
        PRIOR_OWN: seen(written["independent"], first),
    }
    sizes = f"{len(sources)} sources, seed {options.seed}, z at a temperature of {temperature:g}."
    parts = [
        f"{told} {what_z_tells(model, processor, pairs, options.seed)}".strip(),
        f"Ten greedy outputs a source; {sizes}",
        spread_table(written, references, seconds, options.resamples, options.seed),
        f"Form transfer: z of one pair, given to another source. {len(rare)} of {len(forms)} examples begin with another word than "
        f"`{commonest}`.",
        transfer_table(found, rare, commonest),
        kept_openings(found, forms),
    ]
    shown = []
    for pair, others in EXAMPLES.get(options.name, []):
        shown.append(f"{pair[0]}  →  {pair[1]}")
        shown += [f"    {x}  →  {y}" for x, y in zip(others, transfer(model, processor, pair, others, **generation).texts)]
    if shown:
        lines = "\n".join(shown)
        parts.append(f"Sentences of our own. First the example, then other sources with its z:\n\n```text\n{lines}\n```")
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a paraphrase model")
    parser.add_argument("--test_file", required=True, help="rows of `source` and `targets`")
    parser.add_argument("--name", default="captions", help="of the corpus, in the marks of the page")
    parser.add_argument("--num", type=int, default=300, help="sources, drawn at random")
    parser.add_argument("--latent_temperature", type=float, help="by default the model's own")
    parser.add_argument("--max_length", type=int, default=24, help="tokens of a source, of a target and of an output at most")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    text = measure(options)
    print(text)
    if options.write:
        write_between(PAGE, marks(options.name), text)


if __name__ == "__main__":
    main()
