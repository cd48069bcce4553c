"""
Train a paraphrase VAE (VAE-SVG, Gupta et al. 2018) with the plain Trainer.

Without arguments: offline, on the embedded grammar, a small model from nothing, in minutes.

    accelerate launch examples/train_paraphrase.py

From a recipe, on your own pairs (JSON lines, CSV, or a dataset's name), a model of the recipe's size from nothing:

    accelerate launch examples/train_paraphrase.py examples/recipes/paraphrase_captions.yaml \
        --train_file train.jsonl --validation_file validation.jsonl --test_file test.jsonl --output_dir outputs/captions

Between pretrained models:

    accelerate launch examples/train_paraphrase.py \
        --encoder_name_or_path bert-base-uncased --decoder_name_or_path gpt2 \
        --train_file train.jsonl --validation_file validation.jsonl \
        --num_train_epochs 3 --learning_rate 5e-5 --free_bits 8 --output_dir outputs/paraphrase-bert-gpt2

Every argument of `TrainingArguments` works. A YAML or JSON file of arguments may come first; what follows overrides it.
"""

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets import Dataset, IterableDataset

from hf_vae import ParaphraseVAEConfig, ParaphraseVAEModel, ParaphraseVAEProcessor
from hf_vae.configuration_vae import check_choice
from hf_vae.data import PAIRINGS, expand_targets, first_pairs, grammar, held_out_files, load_pairs, pairs_of, stream_pairs
from hf_vae.evaluation import HeldOutPairs, paraphrase_metrics
from hf_vae.hub import report_run, run_record, upload_model, write_metrics
from hf_vae.latent_space.plots import plot_latents
from hf_vae.training.arguments import (
    ConditionalArguments,
    PairArguments,
    ReportArguments,
    check_arguments,
    check_held_out,
    check_least,
    check_report,
    check_streaming,
    parse_arguments,
)
from hf_vae.training.building import build_conditional_model
from hf_vae.training.checkpoints import remove_stages
from hf_vae.training.run import report_callbacks, start_run, tokenize_pairs, tokenize_stream, train_baseline, train_in_stages

EMBEDDED_RECIPE = Path(__file__).parent / "recipes" / "paraphrase_embedded.yaml"


@dataclass
class DataArguments(PairArguments):
    pairing: str = field(
        default="targets",
        metadata={"help": "Pairs to train on: source to targets, or, of paraphrases, both_ways, or all texts of a row."},
    )
    grammar_pairs: int = field(default=60_000, metadata={"help": "Embedded grammar: training pairs, a meaning each."})


@dataclass
class EvaluationArguments(ReportArguments):
    max_test_samples: int = field(default=500, metadata={"help": "Test sources to measure on."})
    num_paraphrases: int = field(default=10, metadata={"help": "Paraphrases of each test source."})
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the importance-weighted bound."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest paraphrase to generate."})
    latent_temperature: float = field(
        default=1.0, metadata={"help": "Factor on the spread of z in the paraphrases measured; becomes the model's default."}
    )
    with_baseline: bool = field(default=False, metadata={"help": "Also train and measure the same model without z."})


def check_evaluation(data_args: DataArguments, evaluation_args: EvaluationArguments) -> None:
    """What can be refused of these before anything is computed or written."""
    if evaluation_args.latent_temperature < 0:
        raise ValueError(f"`--latent_temperature` is {evaluation_args.latent_temperature}; it cannot be negative.")
    check_choice("--pairing", data_args.pairing, tuple(PAIRINGS))
    least = {"num_paraphrases": 2, "importance_samples": 1, "max_test_samples": 2, "max_new_tokens": 1}
    check_least(vars(evaluation_args), least)
    check_held_out(data_args)
    check_report(evaluation_args)


def stream_train(data_args: DataArguments) -> IterableDataset:
    """The training pairs, read as they are asked for."""

    def read(rows, first: int):
        columns = (data_args.source_column, data_args.target_column)
        return PAIRINGS[data_args.pairing](pairs_of(rows, data_args.train_file, *columns, first))

    return stream_pairs(data_args.train_file, read, **data_args.file_options)


def load_data(data_args: DataArguments, max_test: int, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training pairs (`source`, `target`), of a stream the first ones, and validation and test sources with their `targets`."""
    if data_args.train_file is None:
        num_validation = 200
        test = grammar.load_paraphrases(max_test, seed, num_targets=5)
        validation = grammar.load_paraphrases(num_validation, seed, skip=max_test)
        train = grammar.load_paraphrases(data_args.grammar_pairs, seed, skip=max_test + num_validation)
        return expand_targets(train), validation, test
    columns = {"source_column": data_args.source_column, "target_column": data_args.target_column}
    options = {**columns, **data_args.file_options}
    names = held_out_files(data_args.validation_file, data_args.test_file)
    validation = load_pairs(*names["validation"], **options)
    test = load_pairs(*names["test"], max_rows=max_test, **options)
    if len(test) < 2:
        raise ValueError(f"{names['test'][0]} has {len(test)} source; figures need at least two.")
    if data_args.streaming:
        return first_pairs(stream_train(data_args), data_args.first_rows), validation, test
    train = load_pairs(data_args.train_file, "train", max_rows=data_args.max_train_samples, **options)
    return PAIRINGS[data_args.pairing](train), validation, test


def score(outputs: list[list[str]], test: Dataset, on_grammar: bool, tokenize: str | None = None) -> dict[str, float]:
    """Text metrics of several outputs for each test source, and on the grammar how right they are."""
    metrics = paraphrase_metrics(list(test["source"]), outputs, list(test["targets"]), tokenize)
    if on_grammar:
        judged = grammar.judge(outputs, test["source"])
        judged[f"distinct_correct_in_{len(outputs[0])}"] = judged.pop("distinct_correct")
        metrics.update(judged, entropy=grammar.entropy())
    return metrics


def main(argv: list[str]) -> dict:
    # 1. Arguments, refused before any compute where they cannot work.
    arguments = (ConditionalArguments, DataArguments, EvaluationArguments)
    model_args, data_args, evaluation_args, training_args = parse_arguments(arguments, argv, EMBEDDED_RECIPE, "outputs/paraphrase")
    check_arguments(model_args, training_args, data_args.train_file is not None, ParaphraseVAEConfig.model_type)
    check_evaluation(data_args, evaluation_args)
    check_streaming(data_args, training_args)
    output_dir = Path(training_args.output_dir)
    on_grammar = data_args.train_file is None
    state, repository = start_run(model_args, training_args, evaluation_args)

    # 2. Data: one row a pair to train on, one row a source with all its paraphrases to measure on.
    with state.main_process_first():
        train, validation, test = load_data(data_args, evaluation_args.max_test_samples, training_args.seed)

    # 3. Model and processor.
    classes = (ParaphraseVAEModel, ParaphraseVAEProcessor)
    build = partial(build_conditional_model, *classes, model_args, data_args, evaluation_args.max_new_tokens, train)
    model, processor = build()
    model.generation_config.latent_temperature = evaluation_args.latent_temperature
    model.generation_config.max_new_tokens = evaluation_args.max_new_tokens
    lengths = {"max_length": data_args.max_source_length, "max_target_length": data_args.max_target_length}
    tokenized = tokenize_pairs(processor, {"train": train, "validation": expand_targets(validation)}, **lengths)
    if data_args.streaming:
        stream = stream_train(data_args)
        tokenized["train"] = tokenize_stream(processor, stream, data_args.shuffle_buffer, training_args.seed, **lengths)

    # 4. Train with the plain Trainer; a callback anneals the KL and logs the loss's parts.
    watched = (list(validation["source"]), [targets[0] for targets in validation["targets"]])
    callbacks = report_callbacks(model_args, evaluation_args, training_args, processor, *watched, **lengths)
    model = train_in_stages(model, processor, model_args, training_args, tokenized, callbacks)

    # 5. Measure on held-out sources: likelihood bounds on the first reference of each, ten greedy paraphrases that differ by z.
    held_out = HeldOutPairs(
        processor,
        test,
        partial(score, test=test, on_grammar=on_grammar, tokenize=evaluation_args.metrics_tokenizer),
        lengths,
        num_outputs=evaluation_args.num_paraphrases,
        latent_temperature=evaluation_args.latent_temperature,
        max_new_tokens=evaluation_args.max_new_tokens,
        importance_samples=evaluation_args.importance_samples,
        seed=training_args.seed,
        tokenize=evaluation_args.metrics_tokenizer,
    )
    metrics, outputs = held_out.measure(model)
    posterior, prior = held_out.distributions(model)

    # 6. The same model trained without z: beams and sampling are then all the diversity there is.
    if state.is_main_process:
        # Before anything else can fail.
        write_metrics(metrics, output_dir / "metrics.json")
    if evaluation_args.with_baseline:
        baseline = train_baseline(build, model_args, training_args, tokenized["train"])
        metrics["baseline"] = held_out.measure_without_latent(baseline)

    # 7. What a stranger needs: figures, and a card that tells them.
    if state.is_main_process:
        record = run_record(
            "examples/train_paraphrase.py",
            argv,
            model_args,
            training_args,
            data_args.train_file,
            embedded_corpus="sentences of hf_vae's paraphrase grammar",
            metrics=metrics,
            baseline=metrics.get("baseline", {}),
            measured_on=(
                f"Measured on {len(test)} held-out sources: bounds on the first reference of each; text metrics on "
                f"{evaluation_args.num_paraphrases} greedy outputs that differ by z, drawn from the prior at a temperature of "
                f"{evaluation_args.latent_temperature:g}; without z, on as many beams."
            ),
            samples=[(source, several[:5]) for source, several in zip(test["source"][:5], outputs)],
        )
        pictures = {"latent.png": partial(plot_latents, posterior, prior)}
        record = replace(record, name=repository.name if repository else record.name)
        metrics = report_run(model, record, test["targets"], output_dir, pictures)

        # 8. Share it.
        if repository:
            upload_model(repository, output_dir)
        remove_stages(training_args)
    state.wait_for_everyone()
    return metrics


if __name__ == "__main__":
    main(sys.argv[1:])
