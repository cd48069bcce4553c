"""
Sentences of reviews that are given the other sentiment: `edit` and `revise` beside published systems, on the
test of Li et al. (2018).

    python -m benchmarks.control_yelp --data DIR --model MODEL [--lm LM] [--write]

DIR has `train.jsonl` and `validation.jsonl` with rows of `text` and `label` (0 or 1), `test.jsonl`, whose rows also have
`references`, and in `systems/NAME.txt` what each system wrote, line by line as the test. MODEL is a sentence VAE of the training
texts, such as that of `examples/recipes/vae_yelp.yaml`. LM is a causal language model for perplexities. `--write` puts the tables
into docs/measured/control.md.

The scorer is trained on all labels and never steers. What steers is fitted to a few hundred labels.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sacrebleu.metrics import BLEU
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

from hf_vae.data.readers import read_rows
from hf_vae.evaluation import language_model_nll, self_bleu
from hf_vae.latent_space import edit, encode_texts, fit_attribute, reconstruct, revise

from .report import markdown_table, write_between

PAGE = Path(__file__).parent.parent / "docs" / "measured" / "control.md"
MARKS = ("<!-- control on yelp -->", "<!-- end of control on yelp -->")
# The published system that is to be reached; and what the source itself is called beside the systems.
RIVAL, COPY = "LatentOps", "copying"
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
REVISION_STRENGTHS = (0.4, 0.6, 0.8, 1.0)
# The one with the best cross-validated accuracy on the labels that steer is taken.
REGULARIZATIONS = (1.0, 10.0, 100.0)
# A text of at most as many words is short.
SHORT = 7
OUTPUTS = 150
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20}


@dataclass
class Sentiments:
    """Texts and their labels, 0 or 1; of the test also four `references` each, and what each of the `systems` wrote."""

    train: tuple[list[str], list[int]]
    validation: tuple[list[str], list[int]]
    test: tuple[list[str], list[int]]
    references: list[list[str]]
    systems: dict[str, list[str]]

    @property
    def wanted(self) -> list[int]:
        """The other label of each test text."""
        return [1 - label for label in self.test[1]]


def read_data(folder: str) -> Sentiments:
    """
    Reads the files that the module's docstring names.

    Raises:
        ValueError: a system has more or fewer lines than the test, or rows have different numbers of references.
    """
    path = Path(folder)
    rows = {split: list(read_rows(str(path / f"{split}.jsonl"), split)) for split in ("train", "validation", "test")}
    labelled = {split: ([row["text"] for row in each], [int(row["label"]) for row in each]) for split, each in rows.items()}
    references = [row["references"] for row in rows["test"]]
    if len(set(map(len, references))) != 1:
        raise ValueError(f"{path / 'test.jsonl'} has rows with {sorted(set(map(len, references)))} `references`: give all as many.")
    systems = {file.stem: file.read_text(encoding="utf-8").splitlines() for file in sorted((path / "systems").glob("*.txt"))}
    for name, outputs in systems.items():
        if len(outputs) != len(references):
            raise ValueError(f"{path / 'systems' / name}.txt has {len(outputs)} lines for {len(references)} test texts.")
    return Sentiments(**labelled, references=references, systems=systems)


def some_of(data: Sentiments, num_texts: int) -> Sentiments:
    """With `num_texts` of the test's texts, the middles of as many equal stretches, so that both labels are there."""
    step = max(1, len(data.references) // num_texts)
    rows = slice(step // 2, None, step)
    texts, labels = data.test
    systems = {name: outputs[rows] for name, outputs in data.systems.items()}
    return replace(data, test=(texts[rows], labels[rows]), references=data.references[rows], systems=systems)


def fit_scorer(texts: Sequence[str], labels: Sequence[int]) -> Pipeline:
    """Logistic regression on the TF-IDF of words and pairs of neighbours."""
    features = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)
    return make_pipeline(features, LogisticRegression(C=10.0, max_iter=1000)).fit(texts, labels)


def accuracy(scorer: Pipeline, texts: Sequence[str], labels: Sequence[int]) -> float:
    """Per cent of the texts that have their label in the scorer's eyes."""
    return 100 * float((scorer.predict(texts) == labels).mean())


def corpus_bleu(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU of words between spaces, as the files have them; `references` has a list for each output."""
    metric = BLEU(tokenize="none", force=True)
    return metric.corpus_score(list(outputs), [list(stream) for stream in zip(*references, strict=True)]).score


class Fluency:
    """
    Perplexity per word of a text on a line of its own, under one causal language model. The text's end is not counted: a model of
    documents or of chats does not expect one behind a sentence.

    Args:
        folder (`str`): the model's, with its tokenizer.
        num_texts (`int`): how many are looked at, spread evenly over what is given.
    """

    def __init__(self, folder: str, num_texts: int):
        self.model, self.tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        self.num_texts = num_texts
        # A tokenizer that drops line breaks has a BOS for what stands in front.
        newline = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        self.start = newline[-1] if newline else self.tokenizer.bos_token_id

    def chosen(self, texts: Sequence[str]) -> list[str]:
        """The texts that are looked at: of two labels one after the other it takes both."""
        return list(texts[:: max(1, len(texts) // self.num_texts)][: self.num_texts])

    def __call__(self, texts: Sequence[str]) -> float:
        # An empty text has no word.
        looked_at = [text for text in self.chosen(texts) if text.strip()]
        tokens = self.tokenizer(looked_at, add_special_tokens=False)["input_ids"]
        nats = language_model_nll(self.model, tokens, self.start).sum().item()
        return math.exp(nats / sum(len(text.split()) for text in looked_at))


def score(outputs: Sequence[str], data: Sentiments, scorer: Pipeline, fluency: Fluency | None) -> dict[str, float]:
    """
    All that the table shows of one system's outputs.

    Returns:
        `accuracy` in per cent; `bleu` to the first reference, as the papers have it, `bleu_all` to all four, `bleu_source`;
        `mean`, the geometric mean of `accuracy` and `bleu`; `perplexity` with a language model.
    """
    sources = [[text] for text in data.test[0]]
    found = {
        "accuracy": accuracy(scorer, outputs, data.wanted),
        "bleu": corpus_bleu(outputs, [row[:1] for row in data.references]),
        "bleu_all": corpus_bleu(outputs, data.references),
        "bleu_source": corpus_bleu(outputs, sources),
    }
    found["mean"] = math.sqrt(found["accuracy"] * found["bleu"])
    return found if fluency is None else {**found, "perplexity": fluency(outputs)}


def draw_labelled(texts: Sequence[str], labels: Sequence[int], num: int, seed: int) -> tuple[list[str], list[int]]:
    """`num` texts of each label, drawn without replacement."""
    drawn: list[tuple[str, int]] = []
    for label in sorted(set(labels)):
        of_label = [text for text, each in zip(texts, labels) if each == label]
        if len(of_label) < num:
            raise ValueError(f"`num` is {num}, and {len(of_label)} texts have the label {label}: ask for fewer.")
        drawn += [(text, label) for text in random.Random(seed).sample(of_label, num)]
    return [text for text, _ in drawn], [label for _, label in drawn]


def length_of(text: str) -> str:
    return "short" if len(text.split()) <= SHORT else "long"


def fit_attributes(model: Any, processor: Any, data: Sentiments, num: int, seed: int) -> float:
    """Gives the model the attributes `sentiment` and `length`, fitted to the same `num` texts of each label; the seconds."""
    start = time.perf_counter()
    texts, labels = draw_labelled(*data.train, num, seed)
    latents = encode_texts(model, processor, texts).mode()
    fitted = [fit_attribute(model, processor, latents, labels, regularization=each) for each in REGULARIZATIONS]
    model.set_attribute("sentiment", max(fitted, key=lambda attribute: float(attribute.score)))
    model.set_attribute("length", fit_attribute(model, processor, latents, list(map(length_of, texts))))
    return time.perf_counter() - start


def edits(model: Any, processor: Any, data: Sentiments, **strength: float) -> tuple[list[str], float]:
    """The test texts with the other sentiment, and the seconds that it took; without `strength`, by the default ones."""
    start = time.perf_counter()
    outputs = edit(model, processor, data.test[0], {"sentiment": data.wanted}, **strength, **GREEDY).texts
    return outputs, time.perf_counter() - start


def revisions(model: Any, processor: Any, data: Sentiments, strength: float) -> tuple[list[str], float]:
    """The test texts with the other sentiment by changes of single words, and the seconds that it took."""
    start = time.perf_counter()
    outputs = revise(model, processor, data.test[0], {"sentiment": data.wanted}, strength).texts
    return outputs, time.perf_counter() - start


def two_attributes(model: Any, processor: Any, scorer: Pipeline, num: int, seed: int) -> dict[str, float]:
    """
    `num` new texts of each of the four pairs of sentiment and length.

    Returns:
        `sentiment` and `length`, the per cent that have what was asked for; `both`; `self_bleu` of the texts of a pair, the mean
        of the four; `seconds` for the texts of one pair, at most.
    """
    right: list[tuple[bool, bool]] = []
    spent, outputs = [], []
    for sentiment in (0, 1):
        for length in ("short", "long"):
            generator = torch.Generator().manual_seed(seed)
            start = time.perf_counter()
            asked = {"sentiment": sentiment, "length": length}
            sequences = model.generate(num_samples=num, attributes=asked, generator=generator, **GREEDY)
            texts = processor.batch_decode(sequences, skip_special_tokens=True)
            spent.append(time.perf_counter() - start)
            outputs.append(texts)
            right += [(found == sentiment, length_of(text) == length) for text, found in zip(texts, scorer.predict(texts))]
    shares = {name: 100 * sum(each[which] for each in right) / len(right) for which, name in enumerate(("sentiment", "length"))}
    return {
        **shares,
        "both": 100 * sum(map(all, right)) / len(right),
        "self_bleu": self_bleu(outputs),
        "seconds": max(spent),
    }


def standing(curve: Mapping[str, Mapping[str, float]], systems: Mapping[str, Mapping[str, float]]) -> str:
    """In a sentence: whether the curve lies above the rival's point, and above how many systems its best mean lies."""
    best = max(curve, key=lambda name: curve[name]["mean"])
    beaten = sum(each["mean"] < curve[best]["mean"] for each in systems.values())
    rows = [
        f"The best geometric mean of the curve, {curve[best]['mean']:.1f} ({best}), lies above {beaten} of {len(systems)} systems."
    ]
    if RIVAL in systems:
        rival = systems[RIVAL]
        above = [name for name, each in curve.items() if all(each[metric] >= rival[metric] for metric in ("accuracy", "bleu"))]
        rows.append(f"The accuracy and the BLEU of {RIVAL} are both reached by {', '.join(above) or 'no point of the curve'}.")
    return " ".join(rows)


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """In Markdown; a column that no row has is left out."""
    columns = {
        "accuracy": "accuracy, %",
        "bleu": "BLEU, first reference",
        "bleu_all": "BLEU, four references",
        "bleu_source": "BLEU to the source",
        "mean": "√(accuracy · BLEU)",
        "perplexity": "perplexity",
        "seconds": "seconds",
    }
    columns = {name: title for name, title in columns.items() if any(name in row for row in rows.values())}
    cells = [
        [system, *(f"{row[name]:.{0 if name == 'perplexity' else 1}f}" if name in row else "" for name in columns)]
        for system, row in rows.items()
    ]
    return markdown_table(["", *columns.values()], cells)


def measure(
    data: Sentiments,
    model: Any,
    processor: Any,
    fluency: Fluency | None = None,
    strengths: Sequence[float] = STRENGTHS,
    revision_strengths: Sequence[float] = REVISION_STRENGTHS,
    num_labels: int = 200,
    seed: int = 0,
) -> str:
    """The tables and what is to be read beside them, in Markdown."""
    scorer = fit_scorer(*data.train)
    systems = {name: score(outputs, data, scorer, fluency) for name, outputs in data.systems.items()}
    copy = score(data.test[0], data, scorer, fluency)
    spent = fit_attributes(model, processor, data, num_labels, seed)
    again = score(reconstruct(model, processor, data.test[0], **GREEDY).texts, data, scorer, fluency)
    curve: dict[str, dict[str, float]] = {}
    for strength in [*strengths, None]:
        # The default tries several, and keeps the first with which the text shows the attribute.
        outputs, seconds = edits(model, processor, data, **({} if strength is None else {"strength": strength}))
        name = "`edit`, the default strengths" if strength is None else f"`edit`, strength {strength:g}"
        curve[name] = {**score(outputs, data, scorer, fluency), "seconds": seconds}
    for strength in revision_strengths:
        outputs, seconds = revisions(model, processor, data, strength)
        curve[f"`revise`, strength {strength:g}"] = {**score(outputs, data, scorer, fluency), "seconds": seconds}
    pairs = two_attributes(model, processor, scorer, OUTPUTS, seed)
    scores = {name: float(model.latent_attributes[name].score) for name in ("sentiment", "length")}
    ordered = dict(sorted(systems.items(), key=lambda item: -item[1]["mean"]))
    return "\n".join(
        [
            table({COPY: copy, **ordered, "our VAE, z unchanged": again, **curve}),
            "",
            standing(curve, systems),
            "",
            f"The scorer's accuracy on the validation texts is {accuracy(scorer, *data.validation):.1f} %. The attributes were "
            f"fitted to {num_labels} texts of each label in {spent:.1f} seconds; cross-validated, z tells sentiment with an "
            f"accuracy of {100 * scores['sentiment']:.1f} % and length with {100 * scores['length']:.1f} %.",
            "",
            f"Two attributes at once, {OUTPUTS} new texts of each of four pairs: sentiment {pairs['sentiment']:.1f} %, length "
            f"{pairs['length']:.1f} %, both {pairs['both']:.1f} %, self-BLEU {pairs['self_bleu']:.1f}, at most "
            f"{pairs['seconds']:.1f} seconds for the {OUTPUTS}.",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control_yelp", description="Sentiment transfer by control in z.")
    parser.add_argument("--data", required=True, help="The folder of the files and the systems' outputs.")
    parser.add_argument("--model", required=True, help="A sentence VAE of the training texts.")
    parser.add_argument("--lm", help="A causal language model for perplexities.")
    parser.add_argument("--lm_texts", type=int, default=1000, help="Texts of each system that it reads.")
    parser.add_argument("--texts", type=int, default=1000, help="Texts of the test, spread evenly over it.")
    parser.add_argument("--labels", type=int, default=200, help="Labelled texts of each label that the attributes are fitted to.")
    parser.add_argument("--strengths", type=float, nargs="+", default=list(STRENGTHS), help="Where the curve is measured.")
    parser.add_argument(
        "--revision_strengths", type=float, nargs="*", default=list(REVISION_STRENGTHS), help="The same of `revise`."
    )
    parser.add_argument("--seed", type=int, default=0, help="Of the labelled texts, and of the new ones.")
    parser.add_argument("--write", action="store_true", help="Put the tables into docs/measured/control.md.")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = some_of(read_data(arguments.data), arguments.texts)
    model, processor = AutoModel.from_pretrained(arguments.model).eval(), AutoProcessor.from_pretrained(arguments.model)
    fluency = None if arguments.lm is None else Fluency(arguments.lm, arguments.lm_texts)
    text = measure(
        data, model, processor, fluency, arguments.strengths, arguments.revision_strengths, arguments.labels, arguments.seed
    )
    print(text)
    if arguments.write:
        write_between(PAGE, MARKS, text)


if __name__ == "__main__":
    main()
