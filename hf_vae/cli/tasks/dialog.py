"""Dialogues (Zhao et al. 2017): one context, many replies; with acts, the knowledge-guided form."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

from ...configuration_dialog_cvae import DialogCVAEConfig
from ...data import dialogs_of, dialogues, expand_targets, first_pairs, held_out_files, load_dialogs, stream_pairs
from ...evaluation import ActClassifier, bow_similarities, conditional_log_likelihoods, dialog_metrics, load_word_vectors
from ...modeling_dialog_cvae import DialogCVAEModel
from ...options.tasks.dialog import DataArguments, DialogArguments, EvaluationArguments
from ...processing_dialog import DialogCVAEProcessor
from ...processing_vae import VAEProcessor
from .. import train
from ..build import build_model, config_options, freeze_or_adapt, prompt_options
from ..held_out import HeldOutPairs, predict_acts
from .pairs import PairTask


def without_act(row: dict) -> dict:
    return {"source": {**row["source"], "act": None}}


def stream_train(data_args: DataArguments, knowledge_guided: bool) -> IterableDataset:
    """The training contexts with their replies, read as they are asked for."""

    def read(rows, first: int):
        examples = list(dialogs_of(rows, str(data_args.train_file), data_args.max_turns, data_args.meta_columns, first))
        return expand_targets(examples if knowledge_guided else [{**each, **without_act(each)} for each in examples])

    return stream_pairs(str(data_args.train_file), read, **data_args.file_options)


def load_data(data_args: DataArguments, max_test: int, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training pairs (`source`, `target`), of a stream the first ones, and validation and test contexts with their `targets`."""
    if data_args.train_file is None:
        num_validation = 200
        counts = {"test": (max_test, 0), "validation": (num_validation, max_test)}
        counts["train"] = (data_args.num_dialogues, max_test + num_validation)
        splits = {name: dialogues.load_examples(count, seed, skip) for name, (count, skip) in counts.items()}
    else:
        options: dict[str, Any] = {
            "max_turns": data_args.max_turns,
            "meta_columns": data_args.meta_columns,
            **data_args.file_options,
        }
        names = held_out_files(data_args.validation_file, data_args.test_file)
        splits = {
            "validation": load_dialogs(*names["validation"], **options),
            "test": load_dialogs(*names["test"], max_rows=max_test, **options),
        }
        if not data_args.streaming:
            splits["train"] = load_dialogs(str(data_args.train_file), "train", max_rows=data_args.max_train_samples, **options)
        if len(splits["test"]) < 2:
            raise ValueError(f"{names['test'][0]} has {len(splits['test'])} context; metrics need at least two.")
    if data_args.streaming:
        train = first_pairs(stream_train(data_args, knowledge_guided=True), data_args.first_rows)
    else:
        train = expand_targets(splits["train"])
    return train, splits["validation"], splits["test"]


def values_of(train: Dataset, validation: Dataset, test: Dataset, data_args: DataArguments, knowledge_guided: bool) -> dict:
    """
    The acts and the values of the meta features that the data has, as the processor takes them.

    Raises:
        ValueError: acts are to be predicted and there are none, or held-out data has one that was never trained on.
    """
    sources = {name: list(split["source"]) for name, split in (("train", train), ("validation", validation), ("test", test))}
    options: dict = {}
    if knowledge_guided:
        acts = {name: {source["act"] for source in split} - {None} for name, split in sources.items()}
        if len(acts["train"]) < 2:
            raise ValueError(f"`--knowledge_guided`: the training turns have the acts {sorted(acts['train'])}; there must be two.")
        new = sorted((acts["validation"] | acts["test"]) - acts["train"])
        if new:
            raise ValueError(f"The held-out turns have the acts {', '.join(new)}, which no training turn has.")
        options["acts"] = sorted(acts["train"])
    categories = {}
    for column in data_args.meta_columns:
        seen = [source["meta"][column] for split in sources.values() for source in split]
        if all(isinstance(value, (int, float)) for value in seen):
            options.setdefault("meta_values", []).append(column)
        else:
            categories[column] = sorted({str(value) for value in seen})
    return {**options, **({"meta_categories": categories} if categories else {})}


def last_turns(test: Dataset) -> list[str]:
    return [source["messages"][-1]["content"] for source in test["source"]]


def score(outputs, test: Dataset, on_grammar: bool, classify=None, word_vectors=None, tokenize=None) -> dict[str, float]:
    """Of several replies to each test context: how many are right, if that is known, and else the paper's metrics."""
    if on_grammar:
        judged = dialogues.judge(outputs, last_turns(test))
        judged[f"distinct_valid_in_{len(outputs[0])}"] = judged.pop("distinct_valid")
        return {**judged, "entropy": dialogues.entropy(), "cll_exact": -dialogues.entropy()}
    references = list(test["targets"])
    acts = {} if classify is None else {"hypothesis_acts": classify(outputs), "reference_acts": classify(references)}
    metrics = dialog_metrics(outputs, references, **acts, tokenize=tokenize)
    return metrics if word_vectors is None else {**metrics, **bow_similarities(outputs, references, word_vectors, tokenize)}


@dataclass
class DialogTask(PairTask):
    name = "dialog"
    model_class = DialogCVAEModel
    processor_class = DialogCVAEProcessor
    arguments = (DialogArguments, DataArguments, EvaluationArguments)
    corpus = "dialogues made of hf_vae's grammar"
    least = {"num_outputs": 2, "num_dialogues": 1, "max_turns": 1, "max_turn_length": 1}
    measured_on = "contexts: bounds on the first reply to each; other metrics on {} greedy replies"

    # The act of each training reply, and what the processor is told of acts and meta features.
    acts: list[str | None] = field(init=False)
    values: dict[str, Any] = field(init=False)

    def check(self) -> None:
        DialogCVAEConfig(**config_options(DialogCVAEConfig, self.model_args))
        super().check()
        evaluation_args = self.evaluation_args
        if self.data_args.meta_columns and self.on_embedded:
            raise ValueError(
                "`--meta_columns` names columns of your own data: add a `--train_file`. The embedded dialogues have none."
            )
        if evaluation_args.word_vectors and not Path(evaluation_args.word_vectors).is_file():
            raise FileNotFoundError(f"`--word_vectors`: there is no file {evaluation_args.word_vectors}.")

    def load(self) -> None:
        splits = load_data(self.data_args, self.evaluation_args.max_test_samples, self.training_args.seed)
        self.acts = [source["act"] for source in splits[0]["source"]]
        if not self.model_args.knowledge_guided:
            # q is not to see what the decoder is not told.
            splits = tuple(split.map(without_act) for split in splits)
        self.train, self.validation, self.test = splits
        self.values = values_of(*splits, self.data_args, self.model_args.knowledge_guided)

    def stream(self) -> IterableDataset:
        return stream_train(self.data_args, self.model_args.knowledge_guided)

    def build(self) -> tuple[Any, VAEProcessor]:
        values = self.values
        texts = (text for row in self.train for text in (row["target"], *(turn["content"] for turn in row["source"]["messages"])))
        marks = DialogCVAEProcessor.marks_of_speakers
        flat = self.model_args.context_encoding == "flat"
        # Without a limit of its own, a turn may be as long as a whole context.
        turn = self.data_args.max_turn_length or self.data_args.max_source_length
        source, target = self.data_args.max_source_length, self.data_args.max_target_length
        model, processor = build_model(
            DialogCVAEModel,
            DialogCVAEProcessor,
            self.model_args,
            texts=(text for part in ([" ".join(marks)] * 10, texts) for text in part),
            encoder_tokens=source + target if flat else max(turn, target),
            decoder_tokens=(source if self.model_args.source_conditioning == "prompt" else 0)
            + 1
            + max(target, self.evaluation_args.max_new_tokens),
            config_of_data={
                "num_acts": len(values["acts"]) if "acts" in values else None,
                "meta_categories": [len(each) for each in values.get("meta_categories", {}).values()] or None,
                "num_meta_values": len(values.get("meta_values", [])),
            },
            **prompt_options(self.model_args),
            context_encoding=self.model_args.context_encoding,
            max_turns=self.data_args.max_turns,
            max_turn_length=self.data_args.max_turn_length,
            max_context_length=self.data_args.max_source_length,
            **values,
        )
        return freeze_or_adapt(model, self.model_args), processor

    def score(self, outputs: list[list[str]]) -> dict[str, float]:
        classify = None
        if not self.on_embedded and len(set(self.acts) - {None}) > 1:
            classify = self.classifier
        tokenize = self.evaluation_args.metrics_tokenizer
        return score(outputs, self.test, self.on_embedded, classify, self.word_vectors, tokenize)

    @cached_property
    def word_vectors(self):
        file = self.evaluation_args.word_vectors
        return load_word_vectors(file) if file else None

    @cached_property
    def classifier(self) -> ActClassifier:
        """Who judges which act a reply performs: it has learnt that from the training replies."""
        return ActClassifier(self.train["target"], self.acts, seed=self.training_args.seed)

    @property
    def requests(self) -> list[Any]:
        """Who is asked for a reply is not told its act."""
        return [{**source, "act": None} for source in self.test["source"]]

    def complete(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {**metrics, **conditional_log_likelihoods(metrics)}

    def more_metrics(self, model: Any, held_out: HeldOutPairs, outputs: list[list[str]]) -> dict[str, Any]:
        if not (self.on_embedded and self.model_args.knowledge_guided):
            return {}
        predicted = predict_acts(held_out, model)
        return {"act_match": dialogues.judge(outputs, last_turns(self.test), predicted)["act_match"]}

    def samples(self, outputs: list[list[str]]) -> list[tuple[str, list[str]]]:
        sources = self.test["source"][:5]
        contexts = [" / ".join(f"{turn['role']}: {turn['content']}" for turn in source["messages"]) for source in sources]
        return [(context, several[:5]) for context, several in zip(contexts, outputs)]

    @property
    def example(self) -> Any:
        first = self.test["source"][0]
        return {"messages": first["messages"], "meta": first["meta"]} if first["meta"] else first["messages"]


main = partial(train.main, DialogTask)
