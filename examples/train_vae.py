"""
Train a sentence VAE (Bowman et al. 2015; Optimus, Li et al. 2020) with the plain Trainer.

Without arguments: offline, on the embedded grammar, a small model from nothing, in minutes.

    accelerate launch examples/train_vae.py

From a recipe, on your own sentences (text lines, JSON lines, CSV, or a dataset's name), a model of the recipe's size from nothing:

    accelerate launch examples/train_vae.py examples/recipes/bowman_ptb.yaml \
        --train_file train.txt --validation_file validation.txt --test_file test.txt --output_dir outputs/bowman_ptb

Between pretrained models:

    accelerate launch examples/train_vae.py \
        --encoder_name_or_path bert-base-cased --decoder_name_or_path gpt2 --pooling pooler --latent_injection memory embedding \
        --train_file train.txt --validation_file validation.txt \
        --kl_schedule cyclical --kl_schedule_options '{"period": 20000, "cycles": 1}' --free_bits 0.25 --free_bits_per dimension \
        --num_train_epochs 1 --learning_rate 5e-5 --output_dir outputs/optimus

Every argument of `TrainingArguments` works. A YAML or JSON file of arguments may come first; what follows overrides it.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset

from hf_vae import VAEConfig, VAEModel, VAEProcessor
from hf_vae.data import first_pairs, grammar, held_out_files, load_texts, stream_pairs, texts_of
from hf_vae.evaluation import LikelihoodEvaluator, collapse_report, evaluate_vae
from hf_vae.hub import run_record, upload_model, write_metrics, write_report
from hf_vae.latent_space import decode_latents, encode_texts, interpolate, sample_prior
from hf_vae.latent_space.grammar_probe import grammar_metrics
from hf_vae.latent_space.plots import plot_interpolation, plot_latents
from hf_vae.training.arguments import (
    ModelArguments,
    ReportArguments,
    StreamingArguments,
    check_arguments,
    check_held_out,
    check_least,
    check_report,
    check_streaming,
    parse_arguments,
)
from hf_vae.training.building import build_model, freeze_or_adapt
from hf_vae.training.checkpoints import remove_stages
from hf_vae.training.run import report_callbacks, start_run, tokenize_pairs, tokenize_stream, train_baseline, train_in_stages

EMBEDDED_RECIPE = Path(__file__).parent / "recipes" / "vae_embedded.yaml"


@dataclass
class DataArguments(StreamingArguments):
    train_file: str | None = field(
        default=None, metadata={"help": "Text lines, JSON lines, CSV or a dataset's name. Without it: the embedded grammar."}
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "As train_file; measured while training with --eval_strategy, and at the end without a test_file."},
    )
    test_file: str | None = field(default=None, metadata={"help": "As train_file; measured at the end. Default: validation_file."})
    text_column: str = field(default="text", metadata={"help": "Column of the sentences, where the rows have columns."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only so many training rows."})
    max_length: int = field(default=64, metadata={"help": "Sentences are cut to so many tokens, EOS included."})
    grammar_sentences: int = field(default=60_000, metadata={"help": "Embedded grammar: training sentences."})


@dataclass
class EvaluationArguments(ReportArguments):
    max_test_samples: int | None = field(default=None, metadata={"help": "Test sentences to measure on; all by default."})
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the importance-weighted bound."})
    refine_steps: int = field(
        default=0, metadata={"help": "Gradient steps on each test sentence's own posterior; 0 leaves it out."}
    )
    max_new_tokens: int = field(default=40, metadata={"help": "Longest sentence to generate."})
    with_baseline: bool = field(
        default=False, metadata={"help": "Also train and measure the same model without z, a language model."}
    )


def check_evaluation(data_args: DataArguments, evaluation_args: EvaluationArguments) -> None:
    """What can be refused of these before anything is computed or written."""
    given = {**vars(data_args), **vars(evaluation_args)}
    least = {
        "max_train_samples": 2, "max_test_samples": 2, "importance_samples": 1, "refine_steps": 0,
        "max_length": 2, "max_new_tokens": 1, "grammar_sentences": 2,
    }  # fmt: skip
    check_least(given, least)
    check_report(evaluation_args)
    check_held_out(data_args)


def stream_train(data_args: DataArguments) -> IterableDataset:
    """The training sentences, each to itself, read as they are asked for."""

    def read(rows, first: int):
        return ({"source": text, "target": text} for text in texts_of(rows, data_args.train_file, data_args.text_column, first))

    return stream_pairs(data_args.train_file, read, **data_args.file_options)


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
        names["train"] = (data_args.train_file, "train")
    most = {"test": max_test, "train": data_args.max_train_samples}
    options = {"text_column": data_args.text_column, **data_args.file_options}
    texts = {split: load_texts(*name, max_rows=most.get(split), **options) for split, name in names.items()}
    if data_args.streaming:
        names["train"] = (data_args.train_file, "train")
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
    return evaluator.nll(torch.zeros(len(texts), 1, model.config.latent_size)).mean().item()


def main(argv: list[str]) -> dict:
    # 1. Arguments, refused before any compute where they cannot work.
    arguments = (ModelArguments, DataArguments, EvaluationArguments)
    model_args, data_args, evaluation_args, training_args = parse_arguments(arguments, argv, EMBEDDED_RECIPE, "outputs/vae")
    check_arguments(model_args, training_args, data_args.train_file is not None, VAEConfig.model_type)
    check_evaluation(data_args, evaluation_args)
    check_streaming(data_args, training_args)
    output_dir = Path(training_args.output_dir)
    on_grammar = data_args.train_file is None
    state, repository = start_run(model_args, training_args, evaluation_args)

    # 2. Data: sentences.
    with state.main_process_first():
        texts = load_data(data_args, evaluation_args.max_test_samples, training_args.seed)

    # 3. Model and processor.
    lengths = {"max_length": data_args.max_length, "max_target_length": data_args.max_length}

    def build():
        longest = data_args.max_length
        read = {"encoder_tokens": longest, "decoder_tokens": 1 + max(longest, evaluation_args.max_new_tokens)}
        model, processor = build_model(VAEModel, VAEProcessor, model_args, iter(texts["train"]), **read)
        return freeze_or_adapt(model, model_args), processor

    model, processor = build()
    model.generation_config.max_new_tokens = evaluation_args.max_new_tokens
    sentences = {split: Dataset.from_dict({"source": texts[split], "target": texts[split]}) for split in ("train", "validation")}
    tokenized = tokenize_pairs(processor, sentences, **lengths)
    if data_args.streaming:
        stream = stream_train(data_args)
        tokenized["train"] = tokenize_stream(processor, stream, data_args.shuffle_buffer, training_args.seed, **lengths)

    # 4. Train with the plain Trainer: first, where the recipe says so, each half by itself.
    validation = texts["validation"]
    callbacks = report_callbacks(model_args, evaluation_args, training_args, processor, validation, validation, **lengths)
    model = train_in_stages(model, processor, model_args, training_args, tokenized, callbacks)

    # 5. The same model trained without z, for as many steps: the language model that z must pay for itself against.
    language_model_nll = None
    if evaluation_args.with_baseline:
        baseline = train_baseline(build, model_args, training_args, tokenized["train"])
        language_model_nll = measure_without_latent(baseline, processor, texts["test"], lengths)

    # 6. Measure on held-out sentences.
    evaluator = LikelihoodEvaluator(model, processor, texts["test"], texts["test"], **lengths)
    metrics = evaluate_vae(
        evaluator,
        importance_samples=evaluation_args.importance_samples,
        seed=training_args.seed,
        refine_steps=evaluation_args.refine_steps,
        language_model_nll=language_model_nll,
        tokenize=evaluation_args.metrics_tokenizer,
    )
    metrics["sentences_cut"] = evaluator.truncated_share()
    if state.is_main_process:
        # Before anything else can fail.
        write_metrics(metrics, output_dir / "metrics.json")
    generation = {"max_new_tokens": evaluation_args.max_new_tokens}
    if on_grammar:
        metrics["entropy"] = grammar.sentence_entropy()
        metrics.update(grammar_metrics(model, processor, texts["test"], seed=training_args.seed, **generation))

    # 7. What a stranger needs: figures, examples, and a card that tells them.
    shown = texts["test"][:5]
    codes = encode_texts(model, processor, shown, max_length=data_args.max_length).mode()
    reconstructions = decode_latents(model, processor, codes, **generation)
    samples = sample_prior(model, processor, 5, seed=training_args.seed, **generation).texts
    path = interpolate(model, processor, codes[0], codes[1], steps=7, **generation)
    posterior, prior = evaluator.posterior(), evaluator.prior()
    if state.is_main_process:
        pairs = [(text, [reconstruction]) for text, reconstruction in zip(shown, reconstructions)]
        record = run_record(
            "examples/train_vae.py",
            argv,
            model_args,
            training_args,
            data_args.train_file,
            embedded_corpus="sentences of hf_vae's grammar",
            metrics=metrics,
            baseline={} if language_model_nll is None else {"iw_nll": language_model_nll},
            measured_on=f"Measured on {metrics['num_examples']} held-out sentences.",
            samples=pairs,
        )
        pictures = {"latent.png": partial(plot_latents, posterior, prior), "interpolation.png": partial(plot_interpolation, path)}
        finite = write_report(model, replace(record, name=repository.name if repository else record.name), output_dir, pictures)
        print("\nReconstructions, from the posterior's mean:")
        for text, reconstruction in zip(shown, reconstructions):
            print(f"   = {text}\n  -> {reconstruction}")
        print("\nFrom the prior:")
        for sample in samples:
            print(f"  -> {sample}")
        print("\nFrom the first sentence to the second:")
        for text in path.texts:
            print(f"  -> {text}")
        print("\n" + json.dumps({name: value for name, value in finite.items() if name != "collapse_report"}, indent=2))
        print(f"\n{collapse_report(metrics, language_model_nll)}\n\nSaved to {output_dir}")

        # 8. Share it.
        if repository:
            upload_model(repository, output_dir)
        remove_stages(training_args)
    state.wait_for_everyone()
    return metrics


if __name__ == "__main__":
    main(sys.argv[1:])
