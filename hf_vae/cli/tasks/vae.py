"""Sentences (Bowman et al. 2015; Optimus, Li et al. 2020): each is its own target."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset

from ...data import first_pairs, grammar, held_out_files, load_texts, stream_pairs, texts_of
from ...evaluation import LikelihoodEvaluator, evaluate_vae
from ...hub import write_metrics
from ...latent_space import decode_latents, encode_texts, interpolate, sample_prior
from ...latent_space.grammar_probe import grammar_control, grammar_metrics
from ...modeling_vae import VAEModel
from ...options.model import ModelArguments
from ...options.tasks.vae import DataArguments, EvaluationArguments
from ...processing_vae import VAEProcessor
from .. import train
from ..build import build_model, freeze_or_adapt
from ..checks import check_held_out, check_least, check_report
from ..plots import plot_interpolation, plot_latents
from ..report import show_line
from ..task import Measured, Task

# In which of the test sentences the factors of the grammar are set, each by itself.
CONTROLLED_TEXTS = 200


def stream_train(data_args: DataArguments) -> IterableDataset:
    """The training sentences, each to itself, read as they are asked for."""

    def read(rows, first: int):
        return (
            {"source": text, "target": text} for text in texts_of(rows, str(data_args.train_file), data_args.text_column, first)
        )

    return stream_pairs(str(data_args.train_file), read, **data_args.file_options)


def load_data(data_args: DataArguments, max_test: int | None, seed: int) -> dict[str, list[str]]:
    """Training, validation and test sentences; of a stream the first ones."""
    if data_args.train_file is None:
        num_test, num_validation = max_test or 500, 200
        return {
            "test": grammar.draw_sentences(num_test, seed),
            "validation": grammar.draw_sentences(num_validation, seed, skip=num_test),
            "train": grammar.draw_sentences(data_args.grammar_sentences, seed, skip=num_test + num_validation),
        }
    names = held_out_files(data_args.validation_file, data_args.test_file)
    if not data_args.streaming:
        names["train"] = (str(data_args.train_file), "train")
    most = {"test": max_test, "train": data_args.max_train_samples}
    options: dict[str, Any] = {"text_column": data_args.text_column, **data_args.file_options}
    texts = {split: load_texts(*name, max_rows=most.get(split), **options) for split, name in names.items()}
    if data_args.streaming:
        names["train"] = (str(data_args.train_file), "train")
        texts["train"] = first_pairs(stream_train(data_args), data_args.first_rows)["source"]
    # A row may hold several sentences.
    texts["test"] = texts["test"][:max_test]
    for split, name in names.items():
        if len(texts[split]) < 2:
            raise ValueError(f"{name[0]} has {len(texts[split])} sentence(s); what z tells apart needs at least two.")
    return texts


def measure_without_latent(model, processor, texts: list[str], lengths: dict) -> float:
    """Nats per sentence of the model trained with z = 0, a language model."""
    evaluator = LikelihoodEvaluator(model, processor, texts, texts, **lengths)
    return evaluator.nll(torch.zeros(len(texts), 1, model.config.total_latent_size)).mean().item()


class VAETask(Task):
    name = "vae"
    model_class = VAEModel
    processor_class = VAEProcessor
    arguments = (ModelArguments, DataArguments, EvaluationArguments)
    corpus = "sentences of hf_vae's grammar"

    @property
    def lengths(self) -> dict[str, int]:
        return {"max_length": self.data_args.max_length, "max_target_length": self.data_args.max_length}

    def check(self) -> None:
        least = {
            "max_train_samples": 2, "max_test_samples": 2, "importance_samples": 1, "refine_steps": 0,
            "max_length": 2, "max_new_tokens": 1, "grammar_sentences": 2,
        }  # fmt: skip
        check_least({**vars(self.data_args), **vars(self.evaluation_args)}, least)
        check_report(self.evaluation_args)
        check_held_out(self.data_args)

    def load(self) -> None:
        texts = load_data(self.data_args, self.evaluation_args.max_test_samples, self.training_args.seed)
        self.train = Dataset.from_dict({"source": texts["train"], "target": texts["train"]})
        self.validation, self.test = (
            Dataset.from_dict({"source": texts[split], "targets": [[text] for text in texts[split]]})
            for split in ("validation", "test")
        )

    def stream(self) -> IterableDataset:
        return stream_train(self.data_args)

    def build(self) -> tuple[Any, VAEProcessor]:
        longest = self.data_args.max_length
        read = {"encoder_tokens": longest, "decoder_tokens": 1 + max(longest, self.evaluation_args.max_new_tokens)}
        model, processor = build_model(VAEModel, VAEProcessor, self.model_args, iter(self.train["source"]), **read)
        return freeze_or_adapt(model, self.model_args), processor

    def measure(self, model: Any, processor: VAEProcessor, baseline: Callable[[], Any] | None) -> Measured:
        """Bounds and what z says, on the grammar how right samples are, and what can be done with codes."""
        texts, seed, is_main = list(self.test["source"]), self.training_args.seed, PartialState().is_main_process
        # The language model of as many steps, which z must pay for itself against.
        language_model_nll = None
        if baseline is not None:
            language_model_nll = measure_without_latent(baseline(), processor, texts, self.lengths)
        evaluator = LikelihoodEvaluator(model, processor, texts, texts, **self.lengths)
        with evaluator.reading_once():
            metrics = evaluate_vae(
                evaluator,
                importance_samples=self.evaluation_args.importance_samples,
                seed=seed,
                refine_steps=self.evaluation_args.refine_steps,
                language_model_nll=language_model_nll,
                tokenize=self.evaluation_args.metrics_tokenizer,
            )
            posterior, prior = evaluator.posterior(), evaluator.prior()
        metrics["sentences_cut"] = evaluator.truncated_share()
        if is_main:
            # Before anything else can fail.
            write_metrics(metrics, Path(cast(str, self.training_args.output_dir)) / "metrics.json")
        if self.on_embedded:
            metrics["entropy"] = grammar.sentence_entropy()
            metrics.update(grammar_metrics(model, processor, texts, seed=seed, **self.generation))
            metrics.update(grammar_control(model, processor, texts[:CONTROLLED_TEXTS], seed=seed, **self.generation))
        labels = [grammar.describe(text) for text in texts] if self.on_embedded else None
        shown = texts[:5]
        codes = encode_texts(model, processor, shown, max_length=self.data_args.max_length).mode()
        reconstructions = decode_latents(model, processor, codes, **self.generation)
        drawn = sample_prior(model, processor, 5, seed=seed, **self.generation).texts
        path = interpolate(model, processor, codes[0], codes[1], steps=7, **self.generation)
        return Measured(
            metrics,
            baseline={} if language_model_nll is None else {"iw_nll": language_model_nll},
            measured_on=f"Measured on {metrics['num_examples']} held-out sentences.",
            samples=[(text, [reconstruction]) for text, reconstruction in zip(shown, reconstructions)],
            printed="\n".join(
                [
                    "\nReconstructions, from the posterior's mean:",
                    *(show_line("source", text) + "\n" + show_line("output", each) for text, each in zip(shown, reconstructions)),
                    "\nTexts of z drawn from the prior:",
                    *(show_line("output", text) for text in drawn),
                    "\nFrom the first sentence to the second, in steps of z:",
                    *(show_line("output", text) for text in path.texts),
                ]
            ),
            outputs=[drawn],
            pictures={
                "latent.png": partial(plot_latents, posterior, prior, labels=labels),
                "interpolation.png": partial(plot_interpolation, path),
            },
        )


main = partial(train.main, VAETask)
