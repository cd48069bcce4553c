"""Paraphrases (VAE-SVG, Gupta et al. 2018): one source, several targets that say the same."""

from __future__ import annotations

from functools import partial
from typing import Any

from datasets import Dataset, IterableDataset

from ...checks import check_choice
from ...data import PAIRINGS, expand_targets, first_pairs, grammar, held_out_files, load_pairs, pairs_of, stream_pairs
from ...evaluation import paraphrase_metrics
from ...latent_space.grammar_probe import form_transfer
from ...modeling_paraphrase_vae import ParaphraseVAEModel
from ...options.model import ConditionalArguments
from ...options.tasks.paraphrase import DataArguments, EvaluationArguments
from ...processing_conditional_vae import ParaphraseVAEProcessor
from .. import train
from ..held_out import HeldOutPairs
from .pairs import PairTask

# Pairs of the embedded grammar whose form is given to another source.
TRANSFERRED = 200


def stream_train(data_args: DataArguments) -> IterableDataset:
    """The training pairs, read as they are asked for."""

    def read(rows, first: int):
        columns = (data_args.source_column, data_args.target_column)
        return PAIRINGS[data_args.pairing](pairs_of(rows, str(data_args.train_file), *columns, first))

    return stream_pairs(str(data_args.train_file), read, **data_args.file_options)


def load_data(data_args: DataArguments, max_test: int, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training pairs (`source`, `target`), of a stream the first ones, and validation and test sources with their `targets`."""
    if data_args.train_file is None:
        num_validation = 200
        test = grammar.load_paraphrases(max_test, seed, num_targets=5)
        validation = grammar.load_paraphrases(num_validation, seed, skip=max_test)
        train = grammar.load_paraphrases(data_args.grammar_pairs, seed, skip=max_test + num_validation)
        return expand_targets(train), validation, test
    columns = {"source_column": data_args.source_column, "target_column": data_args.target_column}
    options: dict[str, Any] = {**columns, **data_args.file_options}
    names = held_out_files(data_args.validation_file, data_args.test_file)
    validation = load_pairs(*names["validation"], **options)
    test = load_pairs(*names["test"], max_rows=max_test, **options)
    if len(test) < 2:
        raise ValueError(f"{names['test'][0]} has {len(test)} source; metrics need at least two.")
    if data_args.streaming:
        return first_pairs(stream_train(data_args), data_args.first_rows), validation, test
    train = load_pairs(str(data_args.train_file), "train", max_rows=data_args.max_train_samples, **options)
    return PAIRINGS[data_args.pairing](train), validation, test


def score(outputs: list[list[str]], test: Dataset, on_grammar: bool, tokenize: str | None = None) -> dict[str, float]:
    """Text metrics of several outputs for each test source, and on the grammar how right they are."""
    metrics = paraphrase_metrics(list(test["source"]), outputs, list(test["targets"]), tokenize)
    if on_grammar:
        judged = grammar.judge(outputs, test["source"])
        judged[f"distinct_correct_in_{len(outputs[0])}"] = judged.pop("distinct_correct")
        metrics.update(judged, entropy=grammar.entropy())
    return metrics


class ParaphraseTask(PairTask):
    name = "paraphrase"
    model_class = ParaphraseVAEModel
    processor_class = ParaphraseVAEProcessor
    arguments = (ConditionalArguments, DataArguments, EvaluationArguments)
    corpus = "sentences of hf_vae's paraphrase grammar"
    least = {"num_paraphrases": 2, "grammar_pairs": 1}
    measured_on = "sources: bounds on the first reference of each; text metrics on {} greedy outputs"

    @property
    def num_outputs(self) -> int:
        return self.evaluation_args.num_paraphrases

    def check(self) -> None:
        check_choice("--pairing", self.data_args.pairing, tuple(PAIRINGS))
        super().check()

    def load(self) -> None:
        splits = load_data(self.data_args, self.evaluation_args.max_test_samples, self.training_args.seed)
        self.train, self.validation, self.test = splits

    def stream(self) -> IterableDataset:
        return stream_train(self.data_args)

    @property
    def labels(self) -> list[str] | None:
        return [grammar.describe(targets[0]) for targets in self.test["targets"]] if self.on_embedded else None

    def more_metrics(self, model: Any, held_out: HeldOutPairs, outputs: list[list[str]]) -> dict[str, Any]:
        if not (self.on_embedded and self.model_args.has_posterior):
            return {}
        # Difference by design, z that keep away from each other; and the form of one pair, given to another source.
        spread = grammar.judge(held_out.generate_spread(model, "repelled"), self.test["source"])["distinct_correct"]
        pairs = [(row["source"], row["targets"][0]) for row in self.test.select(range(min(len(self.test), TRANSFERRED)))]
        options = {"max_new_tokens": self.evaluation_args.max_new_tokens}
        transferred = form_transfer(model, held_out.processor, pairs, self.training_args.seed, **options)
        return {f"distinct_correct_in_{self.num_outputs}_spread": spread, **transferred}

    def score(self, outputs: list[list[str]]) -> dict[str, float]:
        return score(outputs, self.test, self.on_embedded, self.evaluation_args.metrics_tokenizer)


main = partial(train.main, ParaphraseTask)
