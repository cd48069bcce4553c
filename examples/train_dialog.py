"""
Train a dialogue CVAE (Zhao et al. 2017) with the plain Trainer: one context, many replies. With acts it is the knowledge-guided
form.

Without arguments: offline, on embedded dialogues, where the right replies to a context and their acts are known; a small model
from nothing, minutes.

    accelerate launch examples/train_dialog.py

On your own dialogues (JSON lines with `turns` of `speaker`, `text` and, for `--knowledge_guided`, `act`; or a dataset's name):

    accelerate launch examples/train_dialog.py \
        --encoder_name_or_path bert-base-uncased --decoder_name_or_path gpt2 \
        --train_file train.jsonl --validation_file validation.jsonl --knowledge_guided true \
        --num_train_epochs 3 --learning_rate 5e-5 --bow_loss_weight 1 --output_dir outputs/dialog-bert-gpt2

From a recipe, here the paper's own network:

    accelerate launch examples/train_dialog.py examples/recipes/kgcvae_switchboard.yaml \
        --train_file train.jsonl --validation_file validation.jsonl --test_file test.jsonl --output_dir outputs/switchboard

Every argument of `TrainingArguments` works. A YAML or JSON file of arguments may come first; what follows overrides it.
"""

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets import Dataset, IterableDataset

from hf_vae import DialogCVAEConfig, DialogCVAEModel, DialogCVAEProcessor
from hf_vae.data import dialogs_of, dialogues, expand_targets, first_pairs, held_out_files, load_dialogs, stream_pairs
from hf_vae.evaluation import (
    ActClassifier,
    HeldOutPairs,
    bow_similarities,
    conditional_log_likelihoods,
    dialog_metrics,
    load_word_vectors,
    predict_acts,
)
from hf_vae.hub import report_run, run_record, upload_model, write_metrics
from hf_vae.latent_space.plots import plot_latents
from hf_vae.training.arguments import (
    ConditionalArguments,
    ReportArguments,
    StreamingArguments,
    check_arguments,
    check_held_out,
    check_least,
    check_report,
    check_streaming,
    parse_arguments,
)
from hf_vae.training.building import build_model, config_options, freeze_or_adapt
from hf_vae.training.checkpoints import remove_stages
from hf_vae.training.run import report_callbacks, start_run, tokenize_pairs, tokenize_stream, train_baseline, train_in_stages

EMBEDDED_RECIPE = Path(__file__).parent / "recipes" / "dialog_embedded.yaml"


@dataclass
class DialogArguments(ConditionalArguments):
    prior_type: str = field(default="conditional", metadata={"help": "conditional, a network p(z|x), or standard, N(0, I)."})
    context_encoding: str = field(
        default="flat", metadata={"help": "flat: the turns as one text; hierarchical: turn by turn and a GRU over them."}
    )
    knowledge_guided: bool = field(
        default=False, metadata={"help": "Predict the reply's act and condition on it; turns need acts."}
    )
    act_embedding_size: int = field(default=30, metadata={"help": "Width of an act's embedding."})
    act_hidden_size: int = field(default=400, metadata={"help": "Width of the hidden layer that predicts the act."})
    meta_embedding_size: int = field(default=30, metadata={"help": "Width of each meta feature's embedding."})


@dataclass
class DataArguments(StreamingArguments):
    train_file: str | None = field(
        default=None, metadata={"help": "JSON lines or a dataset's name. Without it: the embedded dialogues."}
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "As train_file; measured while training with --eval_strategy, and at the end without a test_file."},
    )
    test_file: str | None = field(
        default=None, metadata={"help": "As train_file, with references where there are several. Default: validation_file."}
    )
    meta_columns: list[str] = field(default_factory=list, metadata={"help": "Columns with what else is known of a dialogue."})
    max_turns: int = field(default=10, metadata={"help": "The last turns of a context that are read."})
    max_turn_length: int | None = field(default=None, metadata={"help": "With hierarchical: tokens of each turn that are read."})
    max_source_length: int = field(default=128, metadata={"help": "As one text, a context has so many tokens at most."})
    max_target_length: int = field(default=40, metadata={"help": "Replies are cut to so many tokens, EOS included."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only so many training contexts."})
    num_dialogues: int = field(default=60_000, metadata={"help": "Embedded dialogues: training contexts with a reply each."})


@dataclass
class EvaluationArguments(ReportArguments):
    max_test_samples: int = field(default=500, metadata={"help": "Test contexts to measure on."})
    num_outputs: int = field(default=10, metadata={"help": "Replies to each test context."})
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the bounds on the likelihood."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest reply to generate."})
    latent_temperature: float = field(
        default=1.0, metadata={"help": "Factor on the spread of z in the replies measured; becomes the model's default."}
    )
    word_vectors: str | None = field(default=None, metadata={"help": "A text file of word vectors, for A-bow and E-bow."})
    with_baseline: bool = field(default=False, metadata={"help": "Also train and measure the same model without z."})


def check_evaluation(model_args: DialogArguments, data_args: DataArguments, evaluation_args: EvaluationArguments) -> None:
    """What can be refused of these before anything is computed or written."""
    DialogCVAEConfig(**config_options(DialogCVAEConfig, model_args))
    if evaluation_args.latent_temperature < 0:
        raise ValueError(f"`--latent_temperature` is {evaluation_args.latent_temperature}; it cannot be negative.")
    least = {
        "num_outputs": 2, "importance_samples": 1, "max_test_samples": 2, "max_new_tokens": 1, "num_dialogues": 1, "max_turns": 1,
        "max_turn_length": 1, "max_source_length": 1, "max_target_length": 2, "max_train_samples": 1,
    }  # fmt: skip
    check_least({**vars(data_args), **vars(evaluation_args)}, least)
    check_held_out(data_args)
    check_report(evaluation_args)
    if data_args.meta_columns and data_args.train_file is None:
        raise ValueError("`--meta_columns` names columns of your own data: add a `--train_file`. The embedded dialogues have none.")
    if evaluation_args.word_vectors and not Path(evaluation_args.word_vectors).is_file():
        raise FileNotFoundError(f"`--word_vectors`: there is no file {evaluation_args.word_vectors}.")


def without_act(row: dict) -> dict:
    return {"source": {**row["source"], "act": None}}


def stream_train(data_args: DataArguments, knowledge_guided: bool) -> IterableDataset:
    """The training contexts with their replies, read as they are asked for."""

    def read(rows, first: int):
        examples = list(dialogs_of(rows, data_args.train_file, data_args.max_turns, data_args.meta_columns, first))
        return expand_targets(examples if knowledge_guided else [{**each, **without_act(each)} for each in examples])

    return stream_pairs(data_args.train_file, read, **data_args.file_options)


def load_data(data_args: DataArguments, max_test: int, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training pairs (`source`, `target`), of a stream the first ones, and validation and test contexts with their `targets`."""
    if data_args.train_file is None:
        num_validation = 200
        counts = {"test": (max_test, 0), "validation": (num_validation, max_test)}
        counts["train"] = (data_args.num_dialogues, max_test + num_validation)
        splits = {name: dialogues.load_examples(count, seed, skip) for name, (count, skip) in counts.items()}
    else:
        options = {"max_turns": data_args.max_turns, "meta_columns": data_args.meta_columns, **data_args.file_options}
        names = held_out_files(data_args.validation_file, data_args.test_file)
        splits = {
            "validation": load_dialogs(*names["validation"], **options),
            "test": load_dialogs(*names["test"], max_rows=max_test, **options),
        }
        if not data_args.streaming:
            splits["train"] = load_dialogs(data_args.train_file, "train", max_rows=data_args.max_train_samples, **options)
        if len(splits["test"]) < 2:
            raise ValueError(f"{names['test'][0]} has {len(splits['test'])} context; figures need at least two.")
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


def build(model_args: DialogArguments, data_args: DataArguments, max_new_tokens: int, train: Dataset, values: dict):
    """The model with its processor, around pretrained parts or from nothing."""
    texts = (text for row in train for text in (row["target"], *(turn["content"] for turn in row["source"]["messages"])))
    marks = DialogCVAEProcessor.marks_of_speakers
    flat = model_args.context_encoding == "flat"
    # Without a limit of its own, a turn may be as long as a whole context.
    turn = data_args.max_turn_length or data_args.max_source_length
    source, target = data_args.max_source_length, data_args.max_target_length
    model, processor = build_model(
        DialogCVAEModel,
        DialogCVAEProcessor,
        model_args,
        texts=(text for part in ([" ".join(marks)] * 10, texts) for text in part),
        encoder_tokens=source + target if flat else max(turn, target),
        decoder_tokens=(source if model_args.source_conditioning == "prompt" else 0) + 1 + max(target, max_new_tokens),
        config_of_data={
            "num_acts": len(values["acts"]) if "acts" in values else None,
            "meta_categories": [len(each) for each in values.get("meta_categories", {}).values()] or None,
            "num_meta_values": len(values.get("meta_values", [])),
        },
        source_conditioning=model_args.source_conditioning,
        context_encoding=model_args.context_encoding,
        max_turns=data_args.max_turns,
        max_turn_length=data_args.max_turn_length,
        max_context_length=data_args.max_source_length,
        **values,
    )
    return freeze_or_adapt(model, model_args), processor


def last_turns(test: Dataset) -> list[str]:
    return [source["messages"][-1]["content"] for source in test["source"]]


def score(outputs, test: Dataset, on_grammar: bool, classify=None, word_vectors=None, tokenize=None) -> dict[str, float]:
    """Of several replies to each test context: how many are right, where that is known, and else the paper's metrics."""
    if on_grammar:
        judged = dialogues.judge(outputs, last_turns(test))
        judged[f"distinct_valid_in_{len(outputs[0])}"] = judged.pop("distinct_valid")
        return {**judged, "entropy": dialogues.entropy(), "cll_exact": -dialogues.entropy()}
    references = list(test["targets"])
    acts = {} if classify is None else {"hypothesis_acts": classify(outputs), "reference_acts": classify(references)}
    metrics = dialog_metrics(outputs, references, **acts, tokenize=tokenize)
    return metrics if word_vectors is None else {**metrics, **bow_similarities(outputs, references, word_vectors, tokenize)}


def main(argv: list[str]) -> dict:
    # 1. Arguments, refused before any compute where they cannot work.
    arguments = (DialogArguments, DataArguments, EvaluationArguments)
    model_args, data_args, evaluation_args, training_args = parse_arguments(arguments, argv, EMBEDDED_RECIPE, "outputs/dialog")
    check_arguments(model_args, training_args, data_args.train_file is not None, DialogCVAEConfig.model_type)
    check_evaluation(model_args, data_args, evaluation_args)
    check_streaming(data_args, training_args)
    output_dir = Path(training_args.output_dir)
    on_grammar = data_args.train_file is None
    state, repository = start_run(model_args, training_args, evaluation_args)

    # 2. Data: one row a pair to train on, one row a context with all its replies to measure on.
    with state.main_process_first():
        train, validation, test = load_data(data_args, evaluation_args.max_test_samples, training_args.seed)
        acts = [source["act"] for source in train["source"]]
        if not model_args.knowledge_guided:
            # q is not to see what the decoder is not told.
            train, validation, test = (split.map(without_act) for split in (train, validation, test))
    values = values_of(train, validation, test, data_args, model_args.knowledge_guided)

    # 3. Model and processor.
    build_this = partial(build, model_args, data_args, evaluation_args.max_new_tokens, train, values)
    model, processor = build_this()
    model.generation_config.latent_temperature = evaluation_args.latent_temperature
    model.generation_config.max_new_tokens = evaluation_args.max_new_tokens
    lengths = {"max_length": data_args.max_source_length, "max_target_length": data_args.max_target_length}
    tokenized = tokenize_pairs(processor, {"train": train, "validation": expand_targets(validation)}, **lengths)
    if data_args.streaming:
        stream = stream_train(data_args, model_args.knowledge_guided)
        tokenized["train"] = tokenize_stream(processor, stream, data_args.shuffle_buffer, training_args.seed, **lengths)

    # 4. Train with the plain Trainer; a callback anneals the KL and logs the loss's parts.
    watched = (list(validation["source"]), [targets[0] for targets in validation["targets"]])
    callbacks = report_callbacks(model_args, evaluation_args, training_args, processor, *watched, **lengths)
    model = train_in_stages(model, processor, model_args, training_args, tokenized, callbacks)

    # 5. Measure on held-out contexts: likelihood bounds on the first reply to each, ten greedy replies that differ by z.
    classify = None
    if not on_grammar and len(set(acts) - {None}) > 1:
        classify = ActClassifier(train["target"], acts, seed=training_args.seed)
    word_vectors = load_word_vectors(evaluation_args.word_vectors) if evaluation_args.word_vectors else None
    held_out = HeldOutPairs(
        processor,
        test,
        partial(
            score,
            test=test,
            on_grammar=on_grammar,
            classify=classify,
            word_vectors=word_vectors,
            tokenize=evaluation_args.metrics_tokenizer,
        ),
        lengths,
        num_outputs=evaluation_args.num_outputs,
        latent_temperature=evaluation_args.latent_temperature,
        max_new_tokens=evaluation_args.max_new_tokens,
        importance_samples=evaluation_args.importance_samples,
        seed=training_args.seed,
        # Who is asked for a reply is not told its act.
        requests=[{**source, "act": None} for source in test["source"]],
        tokenize=evaluation_args.metrics_tokenizer,
    )
    metrics, outputs = held_out.measure(model)
    posterior, prior = held_out.distributions(model)
    metrics.update(conditional_log_likelihoods(metrics))
    if on_grammar and model_args.knowledge_guided:
        predicted = predict_acts(held_out, model)
        metrics["act_match"] = dialogues.judge(outputs, last_turns(test), predicted)["act_match"]

    # 6. The same model trained without z: beams and sampling are then all the diversity there is.
    if state.is_main_process:
        # Before anything else can fail.
        write_metrics(metrics, output_dir / "metrics.json")
    if evaluation_args.with_baseline:
        baseline = train_baseline(build_this, model_args, training_args, tokenized["train"])
        metrics["baseline"] = held_out.measure_without_latent(baseline)
        metrics["baseline"].update(conditional_log_likelihoods(metrics["baseline"]))

    # 7. What a stranger needs: figures, and a card that tells them.
    if state.is_main_process:
        shown = test["source"][:5]
        contexts = [" / ".join(f"{turn['role']}: {turn['content']}" for turn in source["messages"]) for source in shown]
        record = run_record(
            "examples/train_dialog.py",
            argv,
            model_args,
            training_args,
            data_args.train_file,
            embedded_corpus="dialogues made of hf_vae's grammar",
            metrics=metrics,
            baseline=metrics.get("baseline", {}),
            measured_on=(
                f"Measured on {len(test)} held-out contexts: bounds on the first reply to each; other figures on "
                f"{evaluation_args.num_outputs} greedy replies that differ by z, drawn from the prior at a temperature of "
                f"{evaluation_args.latent_temperature:g}; without z, on as many beams."
            ),
            samples=[(context, several[:5]) for context, several in zip(contexts, outputs)],
            example={"messages": shown[0]["messages"], "meta": shown[0]["meta"]} if shown[0]["meta"] else shown[0]["messages"],
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
