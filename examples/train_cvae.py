"""
Train a conditional VAE (Sohn et al. 2015) with the plain Trainer: recognition network q(z|x,y), prior network p(z|x), generation
network p(y|x,z).

Without arguments: offline, on embedded dialogues, where many replies to a context are right; a small model from nothing, minutes.

    accelerate launch examples/train_cvae.py

On your own pairs of a context and its targets (JSON lines, CSV, or a dataset's name):

    accelerate launch examples/train_cvae.py \
        --encoder_name_or_path bert-base-uncased --decoder_name_or_path gpt2 \
        --train_file train.jsonl --validation_file validation.jsonl \
        --num_train_epochs 3 --learning_rate 5e-5 --free_bits 8 --output_dir outputs/cvae-bert-gpt2

On texts to complete, of whose words the first quarter is given, from a recipe:

    accelerate launch examples/train_cvae.py examples/recipes/sohn_captions.yaml --given 0.25 \
        --train_file train.jsonl --validation_file validation.jsonl --test_file test.jsonl --output_dir outputs/captions

Every argument of `TrainingArguments` works. A YAML or JSON file of arguments may come first; what follows overrides it.
"""

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets import Dataset, IterableDataset

from hf_vae import CVAEConfig, CVAEModel, CVAEProcessor
from hf_vae.data import (
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
from hf_vae.evaluation import HeldOutPairs, conditional_log_likelihoods, reference_metrics
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
from hf_vae.training.building import build_conditional_model, config_options
from hf_vae.training.checkpoints import remove_stages
from hf_vae.training.run import report_callbacks, start_run, tokenize_pairs, tokenize_stream, train_baseline, train_in_stages

EMBEDDED_RECIPE = Path(__file__).parent / "recipes" / "cvae_embedded.yaml"


@dataclass
class CVAEArguments(ConditionalArguments):
    prior_type: str = field(default="conditional", metadata={"help": "conditional, a network p(z|x), or standard, N(0, I)."})


@dataclass
class DataArguments(PairArguments):
    given: float | None = field(
        default=None,
        metadata={"help": "Share of each text's words that is given, 0.25 for the first quarter; the rest is to be generated."},
    )
    text_column: str = field(default="text", metadata={"help": "With given: column of the texts, where the rows have columns."})
    num_dialogues: int = field(default=60_000, metadata={"help": "Embedded dialogues: training contexts with a reply each."})


@dataclass
class EvaluationArguments(ReportArguments):
    max_test_samples: int = field(default=500, metadata={"help": "Test sources to measure on."})
    num_outputs: int = field(default=10, metadata={"help": "Outputs for each test source."})
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the bounds on the likelihood."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest text to generate."})
    latent_temperature: float = field(
        default=1.0, metadata={"help": "Factor on the spread of z in the outputs measured; becomes the model's default."}
    )
    with_baseline: bool = field(default=False, metadata={"help": "Also train and measure the same model without z."})


def check_evaluation(model_args: CVAEArguments, data_args: DataArguments, evaluation_args: EvaluationArguments) -> None:
    """What can be refused of these before anything is computed or written."""
    CVAEConfig(**config_options(CVAEConfig, model_args))
    if evaluation_args.latent_temperature < 0:
        raise ValueError(f"`--latent_temperature` is {evaluation_args.latent_temperature}; it cannot be negative.")
    least = {
        "num_outputs": 2, "importance_samples": 1, "max_test_samples": 2, "max_new_tokens": 1, "num_dialogues": 1,
        "max_source_length": 1, "max_target_length": 2, "max_train_samples": 1,
    }  # fmt: skip
    check_least({**vars(data_args), **vars(evaluation_args)}, least)
    check_held_out(data_args)
    check_report(evaluation_args)
    if data_args.given is None:
        return
    if not 0 < data_args.given < 1:
        raise ValueError(f"`--given` is {data_args.given}; it is a share between 0 and 1, such as 0.25 for the first quarter.")
    if data_args.train_file is None:
        raise ValueError("`--given` splits texts of your own: add a `--train_file`. The embedded dialogues have replies already.")


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
    file, given = data_args.train_file, data_args.given

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
        raise ValueError(f"{names['test'][0]} has {len(test)} source; figures need at least two.")
    if data_args.streaming:
        return first_pairs(stream_train(data_args), data_args.first_rows), validation, test
    train = load(data_args.train_file, "train", max_rows=data_args.max_train_samples)
    return expand_targets(train), validation, test


def score(outputs: list[list[str]], test: Dataset, on_dialogues: bool, tokenize: str | None = None) -> dict[str, float]:
    """Of several outputs for each test source: how many are right, where that is known, and else text metrics."""
    if not on_dialogues:
        return reference_metrics(outputs, list(test["targets"]), tokenize)
    judged = dialogues.judge(outputs, map(last_turn, test["source"]))
    judged[f"distinct_valid_in_{len(outputs[0])}"] = judged.pop("distinct_valid")
    return {**judged, "entropy": dialogues.entropy(), "cll_exact": -dialogues.entropy()}


def main(argv: list[str]) -> dict:
    # 1. Arguments, refused before any compute where they cannot work.
    arguments = (CVAEArguments, DataArguments, EvaluationArguments)
    model_args, data_args, evaluation_args, training_args = parse_arguments(arguments, argv, EMBEDDED_RECIPE, "outputs/cvae")
    check_arguments(model_args, training_args, data_args.train_file is not None, CVAEConfig.model_type)
    check_evaluation(model_args, data_args, evaluation_args)
    check_streaming(data_args, training_args)
    output_dir = Path(training_args.output_dir)
    on_dialogues = data_args.train_file is None
    state, repository = start_run(model_args, training_args, evaluation_args)

    # 2. Data: one row a pair to train on, one row a source with all its targets to measure on.
    with state.main_process_first():
        train, validation, test = load_data(data_args, evaluation_args.max_test_samples, training_args.seed)

    # 3. Model and processor.
    build = partial(build_conditional_model, CVAEModel, CVAEProcessor, model_args, data_args, evaluation_args.max_new_tokens, train)
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

    # 5. Measure on held-out sources: likelihood bounds on the first target of each, ten greedy outputs that differ by z.
    held_out = HeldOutPairs(
        processor,
        test,
        partial(score, test=test, on_dialogues=on_dialogues, tokenize=evaluation_args.metrics_tokenizer),
        lengths,
        num_outputs=evaluation_args.num_outputs,
        latent_temperature=evaluation_args.latent_temperature,
        max_new_tokens=evaluation_args.max_new_tokens,
        importance_samples=evaluation_args.importance_samples,
        seed=training_args.seed,
        tokenize=evaluation_args.metrics_tokenizer,
    )
    metrics, outputs = held_out.measure(model)
    posterior, prior = held_out.distributions(model)
    metrics.update(conditional_log_likelihoods(metrics))

    # 6. The same model trained without z: beams and sampling are then all the diversity there is.
    if state.is_main_process:
        # Before anything else can fail.
        write_metrics(metrics, output_dir / "metrics.json")
    if evaluation_args.with_baseline:
        baseline = train_baseline(build, model_args, training_args, tokenized["train"])
        metrics["baseline"] = held_out.measure_without_latent(baseline)
        metrics["baseline"].update(conditional_log_likelihoods(metrics["baseline"]))

    # 7. What a stranger needs: figures, and a card that tells them.
    if state.is_main_process:
        record = run_record(
            "examples/train_cvae.py",
            argv,
            model_args,
            training_args,
            data_args.train_file,
            embedded_corpus="dialogues made of hf_vae's grammar",
            metrics=metrics,
            baseline=metrics.get("baseline", {}),
            measured_on=(
                f"Measured on {len(test)} held-out sources: bounds on the first target of each; other figures on "
                f"{evaluation_args.num_outputs} greedy outputs that differ by z, drawn from the prior at a temperature of "
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
