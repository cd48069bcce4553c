"""Pairs of a context and its targets, or texts to complete (Sohn et al. 2015)."""

from __future__ import annotations

from functools import partial
from typing import Any

from datasets import Dataset, IterableDataset

from ...configuration_cvae import CVAEConfig
from ...data import (
    dialogues,
    expand_targets,
    first_pairs,
    held_out_files,
    load_pairs,
    load_texts,
    pairs_of,
    split_text,
    split_texts,
    stream_pairs,
    texts_of,
)
from ...evaluation import conditional_log_likelihoods, reference_metrics
from ...modeling_cvae import CVAEModel
from ...options.tasks.cvae import CVAEArguments, DataArguments, EvaluationArguments
from ...processing_conditional_vae import CVAEProcessor
from .. import train
from ..build import config_options
from .pairs import PairTask


def context_text(turns: list[dict]) -> str:
    """A dialogue as one text: each turn on a line of its own, which its speaker opens."""
    return "\n".join(f"{turn['speaker']} : {turn['text']}" for turn in turns)


def last_turn(context: str) -> str:
    """What the last line of a [`context_text`] says."""
    return context.splitlines()[-1].partition(" : ")[2]


def load_replies(num_dialogues: int, seed: int, skip: int = 0) -> Dataset:
    """Contexts (`source`) of the embedded dialogues, each with the one reply that was drawn (`targets`)."""
    rows = dialogues.draw_dialogues(num_dialogues, seed, skip)
    return Dataset.from_list([{"source": context_text(row["turns"]), "targets": [row["response"]]} for row in rows])


def stream_train(data_args: DataArguments) -> IterableDataset:
    """The training pairs, read as they are asked for."""
    file, given = str(data_args.train_file), data_args.given

    def read(rows, first: int):
        if given is None:
            return expand_targets(pairs_of(rows, file, data_args.source_column, data_args.target_column, first))
        parts = (split_text(text, given) for text in texts_of(rows, file, data_args.text_column, first))
        return ({"source": source, "target": target} for source, target in parts if source and target)

    return stream_pairs(file, read, **data_args.file_options)


def load_data(data_args: DataArguments, max_test: int, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training pairs (`source`, `target`), of a stream the first ones, and validation and test sources with their `targets`."""
    if data_args.train_file is None:
        num_validation = 200
        test = load_replies(max_test, seed)
        validation = load_replies(num_validation, seed, skip=max_test)
        train = load_replies(data_args.num_dialogues, seed, skip=max_test + num_validation)
        return expand_targets(train), validation, test

    def load(file: str, split: str, max_rows: int | None = None) -> Dataset:
        if data_args.given is None:
            columns = (data_args.source_column, data_args.target_column)
            return load_pairs(file, split, *columns, max_rows, **data_args.file_options)
        texts = load_texts(file, split, data_args.text_column, max_rows, **data_args.file_options)
        pairs = split_texts(texts, data_args.given)
        # A row may hold several texts.
        return pairs.select(range(min(max_rows or len(pairs), len(pairs))))

    names = held_out_files(data_args.validation_file, data_args.test_file)
    validation = load(*names["validation"])
    test = load(*names["test"], max_rows=max_test)
    if len(test) < 2:
        raise ValueError(f"{names['test'][0]} has {len(test)} source; metrics need at least two.")
    if data_args.streaming:
        return first_pairs(stream_train(data_args), data_args.first_rows), validation, test
    train = load(str(data_args.train_file), "train", max_rows=data_args.max_train_samples)
    return expand_targets(train), validation, test


def score(outputs: list[list[str]], test: Dataset, on_dialogues: bool, tokenize: str | None = None) -> dict[str, float]:
    """Of several outputs for each test source: how many are right, if that is known, and else text metrics."""
    if not on_dialogues:
        return reference_metrics(outputs, list(test["targets"]), tokenize)
    judged = dialogues.judge(outputs, map(last_turn, test["source"]))
    judged[f"distinct_valid_in_{len(outputs[0])}"] = judged.pop("distinct_valid")
    return {**judged, "entropy": dialogues.entropy(), "cll_exact": -dialogues.entropy()}


class CVAETask(PairTask):
    name = "cvae"
    model_class = CVAEModel
    processor_class = CVAEProcessor
    arguments = (CVAEArguments, DataArguments, EvaluationArguments)
    corpus = "dialogues made of hf_vae's grammar"
    least = {"num_outputs": 2, "num_dialogues": 1}
    measured_on = "sources: bounds on the first target of each; other metrics on {} greedy outputs"

    def check(self) -> None:
        CVAEConfig(**config_options(CVAEConfig, self.model_args))
        super().check()
        given = self.data_args.given
        if given is None:
            return
        if not 0 < given < 1:
            raise ValueError(f"`--given` is {given}; it is a share between 0 and 1, such as 0.25 for the first quarter.")
        if self.on_embedded:
            raise ValueError(
                "`--given` splits texts of your own: add a `--train_file`. The embedded dialogues have replies already."
            )

    def load(self) -> None:
        splits = load_data(self.data_args, self.evaluation_args.max_test_samples, self.training_args.seed)
        self.train, self.validation, self.test = splits

    def stream(self) -> IterableDataset:
        return stream_train(self.data_args)

    def score(self, outputs: list[list[str]]) -> dict[str, float]:
        return score(outputs, self.test, self.on_embedded, self.evaluation_args.metrics_tokenizer)

    def complete(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {**metrics, **conditional_log_likelihoods(metrics)}


main = partial(train.main, CVAETask)
