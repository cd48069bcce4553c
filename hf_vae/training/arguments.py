"""The arguments that every training script takes for its model, and reading them from a recipe and a command line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from transformers import HfArgumentParser, TrainingArguments

from .checkpoints import STAGES, check_resume
from .denoising import TokenNoise
from .recipe import read_recipe
from .schedules import make_schedule

# Files that tell what else a directory holds, beside which a model of ours would be loaded wrongly.
_OTHER_MODELS = {
    "adapter_config.json": "an adapter",
    "modules.json": "a sentence-transformers model",
    "model_index.json": "a diffusers pipeline",
}

# Nats per sentence, whatever the batches; the Trainer by itself would choose by a mean over them.
BEST_BY = "elbo"


def parse_json(name: str, options: str | dict | None) -> dict:
    """
    A command line's JSON, or what a file of arguments holds in its place.

    Raises:
        ValueError: the argument `name` is no JSON object.
    """
    try:
        parsed = json.loads(options) if isinstance(options, str) else options or {}
    except ValueError as error:
        raise ValueError(f"`--{name}` is {options!r}, which is no JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"`--{name}` is {options!r}; it is an object of options, such as '{{\"name\": 1}}'.")
    return parsed


def make_token_noise(model_args: ModelArguments) -> TokenNoise:
    """
    Raises:
        ValueError: `--token_noise` names an option that noise does not have, or one out of range.
    """
    options = parse_json("token_noise", model_args.token_noise)
    known = [each.name for each in fields(TokenNoise)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"`--token_noise` has no option {', '.join(unknown)}; its options are {', '.join(known)}.")
    return TokenNoise(**options)


@dataclass
class ModelArguments:
    """Both halves, from somewhere or from nothing; z between them; and what keeps z from being ignored."""

    encoder_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id or path of a pretrained encoder. Without it, both halves start from nothing."}
    )
    decoder_name_or_path: str | None = field(default=None, metadata={"help": "Hub id or path of a pretrained causal LM."})
    encoder_type: str = field(default="bert", metadata={"help": "From nothing: bert or lstm."})
    decoder_type: str = field(default="llama", metadata={"help": "From nothing: llama, gpt2 or lstm."})
    hidden_size: int = field(default=128, metadata={"help": "From nothing: width of both halves."})
    embedding_size: int | None = field(default=None, metadata={"help": "From nothing, LSTMs: width of embeddings, if another."})
    encoder_layers: int = field(default=1, metadata={"help": "From nothing: layers of the encoder."})
    decoder_layers: int = field(default=2, metadata={"help": "From nothing: layers of the decoder."})
    num_attention_heads: int = field(default=4, metadata={"help": "From nothing: heads of both halves."})
    initializer_range: float = field(default=0.1, metadata={"help": "From nothing: scale of the first weights."})
    dropout: float = field(default=0.0, metadata={"help": "From nothing: dropout of both halves."})
    recurrent_dropout: float = field(
        default=0.0, metadata={"help": "From nothing: dropout of an LSTM's weights from state to state."}
    )
    tie_word_embeddings: bool = field(
        default=True, metadata={"help": "From nothing: the decoder predicts with its embeddings' own weights."}
    )
    tokenizer_type: str = field(default="bpe", metadata={"help": "From nothing: bpe, or word for text split at spaces."})
    vocab_size: int = field(default=1024, metadata={"help": "From nothing: most tokens of the vocabulary."})
    latent_size: int = field(default=32, metadata={"help": "Dimensions of z."})
    latent_injection: list[str] = field(
        default_factory=lambda: ["embedding"], metadata={"help": "Ways of z into the decoder: embedding, memory, prefix."}
    )
    prefix_length: int = field(default=4, metadata={"help": "Embeddings that z becomes, with `prefix`."})
    posterior_bias: bool = field(default=True, metadata={"help": "Whether the posterior's head has a bias; Optimus' has none."})
    pooling: str = field(default="mean", metadata={"help": "What the posterior reads of the encoder: mean, first or pooler."})
    free_bits: float = field(default=0.0, metadata={"help": "Nats of KL that the training loss does not charge for."})
    free_bits_per: str = field(default="sentence", metadata={"help": "sentence, dimension or batch."})
    capacity: float | None = field(default=None, metadata={"help": "Charge for the KL's distance from so many nats instead."})
    batch_norm_gamma: float | None = field(default=None, metadata={"help": "Batch norm of posterior means to this spread."})
    bow_loss_weight: float = field(default=0.0, metadata={"help": "Weight of the bag-of-words loss."})
    word_dropout: float = field(default=0.0, metadata={"help": "Share of the target's tokens hidden from the decoder."})
    token_noise: dict | str | None = field(
        default=None, metadata={"help": "Noise on what q reads, TokenNoise's options as JSON, such as '{\"drop\": 0.1}'."}
    )
    kl_schedule: str = field(default="constant", metadata={"help": "constant, linear, sigmoid, tanh or cyclical."})
    kl_schedule_options: dict | str | None = field(
        default="{}", metadata={"help": "The schedule's options as JSON, such as '{\"steps\": 1000}'."}
    )
    minimum_rate: float | None = field(
        default=None, metadata={"help": "Instead of a schedule: keep the KL above so many nats with a Lagrange multiplier."}
    )
    decoder_reset_step: int | None = field(
        default=None, metadata={"help": "Give the decoder new weights at this step, after training an autoencoder up to it."}
    )
    aggressive_encoder: bool = field(
        default=False, metadata={"help": "Train q to its best between the decoder's steps, while z's information grows."}
    )
    latent_free_steps: int = field(
        default=0,
        metadata={
            "help": "Steps to train with z = 0 first: as a language model, or, with a source, until the decoder reads it well."
        },
    )
    encoder_pretraining_steps: int = field(
        default=0, metadata={"help": "Steps to train the encoder as a masked language model first, on the training texts."}
    )
    posterior_fit_steps: int = field(
        default=0, metadata={"help": "Steps at the end that train q alone, on the true ELBO of the finished decoder."}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "Train only what is new around the encoder."})
    freeze_decoder: bool = field(default=False, metadata={"help": "Train only what is new around the decoder."})
    save_trained_only: bool = field(
        default=False,
        metadata={"help": "Leave frozen pretrained halves out of what is saved, and name where they are loaded from."},
    )
    lora: dict | str | None = field(
        default=None,
        metadata={"help": "Arguments of peft's LoraConfig as JSON; the latent's layers are trained whole. Merged at the end."},
    )


@dataclass
class ConditionalArguments(ModelArguments):
    """What conditional models have besides: how x is read, the prior of z given x, and Sohn et al.'s objectives."""

    source_conditioning: str = field(default="prompt", metadata={"help": "prompt, cross_attention or initial_state."})
    tie_encoders: bool = field(
        default=True, metadata={"help": "One encoder for q and for what else reads the source, the prior or the decoder."}
    )
    prior_type: str = field(default="standard", metadata={"help": "standard, N(0, I), or conditional, a network p(z|x)."})
    prior_regularization: float = field(default=0.0, metadata={"help": "Weight of KL(p(z|x) ‖ N(0, I)) in the training loss."})
    source_noise: float = field(
        default=0.0, metadata={"help": "Rate at which tokens of the source are hidden in training from all but q."}
    )
    objective: str = field(default="cvae", metadata={"help": "cvae (the ELBO), gsnn (z from the prior) or hybrid."})
    hybrid_alpha: float = field(default=0.5, metadata={"help": "Share of the ELBO in the hybrid objective."})


@dataclass
class ReportArguments:
    """Whether z is used, looked at while training."""

    collapse_report_samples: int = field(
        default=200,
        metadata={"help": "With --eval_strategy: validation examples of the collapse report at every evaluation; 0: none."},
    )
    metrics_tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "sacrebleu's tokenizer for metrics of words: 13a, intl, zh, ja-mecab, ko-mecab, char, ... Texts without spaces "
            "between words need one."
        },
    )


@dataclass
class FileArguments:
    """How files of texts are to be read."""

    encoding: str | None = field(
        default=None, metadata={"help": "Encoding of files, such as latin-1. Default: what a byte order mark says, else UTF-8."}
    )
    quoting: str | None = field(
        default=None,
        metadata={
            "help": "Of .csv and .tsv files. minimal, the default of .csv: cells may stand in quotation marks; none, the default "
            "of .tsv: quotation marks are text."
        },
    )

    @property
    def file_options(self) -> dict[str, str | None]:
        """Arguments of the functions that read files."""
        return {"encoding": self.encoding, "quoting": self.quoting}


@dataclass
class StreamingArguments(FileArguments):
    """Training data that is read while it is trained on."""

    streaming: bool = field(
        default=False, metadata={"help": "Read the train_file while training, tokenised on the fly; needs --max_steps."}
    )
    shuffle_buffer: int = field(
        default=10_000, metadata={"help": "With streaming: pairs that are held to draw the next one from; 1 keeps their order."}
    )
    first_rows: int = field(
        default=10_000,
        metadata={"help": "With streaming: first pairs that a vocabulary is learnt from, and what else is known of the data."},
    )


@dataclass
class PairArguments(StreamingArguments):
    """Where sources and targets come from, and how long they may be."""

    train_file: str | None = field(
        default=None, metadata={"help": "JSON lines, CSV or a dataset's name. Without it: the embedded corpus."}
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "As train_file; measured while training with --eval_strategy, and at the end without a test_file."},
    )
    test_file: str | None = field(default=None, metadata={"help": "As train_file; measured at the end. Default: validation_file."})
    source_column: str = field(default="source", metadata={"help": "Column of the sources."})
    target_column: str = field(default="targets", metadata={"help": "Column of the targets: one text or a list."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only so many training rows."})
    max_source_length: int = field(default=64, metadata={"help": "Sources are cut to so many tokens."})
    max_target_length: int = field(default=64, metadata={"help": "Targets are cut to so many tokens, EOS included."})


def parse_arguments(argument_classes: Sequence[type], argv: list[str], embedded_recipe: Path, output_dir: str) -> tuple[Any, ...]:
    """
    Dataclasses, `TrainingArguments` last, from a command line that may begin with a YAML or JSON file of arguments; what follows
    the file overrides it. Without a file and without `--train_file` the `embedded_recipe` is the file.

    Raises:
        ValueError: the file holds no arguments, or one that does not exist or has a value that cannot be meant.
    """
    parser = HfArgumentParser(cast(Any, (*argument_classes, TrainingArguments)))
    recipe: str | Path | None = None
    if argv and argv[0].lower().endswith((".yaml", ".yml", ".json")):
        recipe, *argv = argv
    elif not any(word.partition("=")[0] == "--train_file" for word in argv):
        recipe = embedded_recipe
    # The first step is logged so that a run shorter than `logging_steps` has its plot too.
    parser.set_defaults(output_dir=output_dir, logging_first_step=True, metric_for_best_model=BEST_BY)
    if recipe is not None:
        parser.set_defaults(**read_recipe(recipe, parser))
    *parsed, training_args, unknown = parser.parse_args_into_dataclasses(args=argv, return_remaining_strings=True)
    if unknown:
        raise ValueError(f"The command line has no such argument(s): {' '.join(unknown)}; a file of arguments comes first.")
    looks_for_best = training_args.load_best_model_at_end or training_args.save_strategy == "best"
    needs_metric = looks_for_best or training_args.lr_scheduler_type == "reduce_lr_on_plateau"
    if training_args.metric_for_best_model == BEST_BY and not needs_metric:
        # The Trainer would keep a best checkpoint besides those that it is told to keep.
        training_args.metric_for_best_model = training_args.greater_is_better = None
    return (*parsed, training_args)


def run_steps(training_args: TrainingArguments, train: Any) -> int:
    """The optimiser steps of a run over the rows of `train`, whose number matters only where the run counts epochs."""
    if training_args.max_steps > 0:
        return training_args.max_steps
    batches = len(train) / (training_args.train_batch_size * training_args.world_size)
    batches = math.floor(batches) if training_args.dataloader_drop_last else math.ceil(batches)
    in_an_epoch = max(math.ceil(batches / training_args.gradient_accumulation_steps), 1)
    return math.ceil(training_args.num_train_epochs * in_an_epoch)


def check_rows(model_args: ModelArguments, training_args: TrainingArguments, train: Sized) -> None:
    """
    Refuses what the training set is too small for, before anything is trained.

    Raises:
        ValueError: names the argument.
    """
    batch = training_args.train_batch_size * training_args.world_size
    if training_args.dataloader_drop_last and len(train) < batch:
        raise ValueError(
            f"The training set has {len(train)} row(s), a batch {batch}, and `--dataloader_drop_last` drops what makes no batch: "
            "lower `--per_device_train_batch_size`."
        )
    reset, steps = model_args.decoder_reset_step, run_steps(training_args, train)
    if reset is not None and steps <= reset:
        raise ValueError(f"`--decoder_reset_step` is {reset}, and training ends at step {steps}.")


def check_arguments(model_args: ModelArguments, training_args: TrainingArguments, has_data: bool, model_type: str) -> None:
    """
    Refuses what no training script can do, before anything is computed or written.

    Args:
        has_data (`bool`): whether the user brought data, as pretrained parts need.
        model_type (`str`): of the model that is to be trained, which may overwrite another of its type.

    Raises:
        ValueError: names the argument.
    """
    if bool(model_args.encoder_name_or_path) != bool(model_args.decoder_name_or_path):
        raise ValueError("Give both `--encoder_name_or_path` and `--decoder_name_or_path`, or neither to train from nothing.")
    if model_args.encoder_name_or_path and not has_data:
        raise ValueError("Pretrained parts need `--train_file`; the embedded grammar is for models trained from nothing.")
    if model_args.save_trained_only:
        if not (model_args.freeze_encoder or model_args.freeze_decoder) or not model_args.encoder_name_or_path:
            raise ValueError("`--save_trained_only` needs a pretrained half that is frozen: add `--freeze_decoder`, for instance.")
        if model_args.lora:
            raise ValueError("`--save_trained_only` cannot leave out a half that adapters are merged into; leave `--lora` out.")
    if "task_type" in parse_json("lora", model_args.lora):
        raise ValueError("`--lora` names a `task_type`; leave it out: peft's task types expect arguments of other models.")
    check_resume(training_args)
    if model_args.batch_norm_gamma is not None and not training_args.dataloader_drop_last:
        raise ValueError("`--batch_norm_gamma` needs `--dataloader_drop_last`: a last batch of one row has no spread to normalise.")
    if model_args.batch_norm_gamma is not None and training_args.per_device_train_batch_size < 2:
        raise ValueError("`--batch_norm_gamma` needs a `--per_device_train_batch_size` of at least 2: one row has no spread.")
    of_nothing = not model_args.encoder_name_or_path and "lstm" in (model_args.encoder_type, model_args.decoder_type)
    if model_args.recurrent_dropout and not of_nothing:
        raise ValueError(
            f"`--recurrent_dropout` is {model_args.recurrent_dropout}, and no half is an LSTM that starts from nothing: leave it "
            "out, or set `recurrent_dropout` in the configuration of the LSTM that you load."
        )
    scheduled = parse_json("kl_schedule_options", model_args.kl_schedule_options)
    schedule = make_schedule(model_args.kl_schedule, **scheduled)
    if model_args.token_noise:
        make_token_noise(model_args)
    stages = {"latent_free_steps": 0, "encoder_pretraining_steps": 0, "posterior_fit_steps": 0, "decoder_reset_step": 1}
    check_least(vars(model_args), stages)
    if model_args.encoder_pretraining_steps and model_args.freeze_encoder:
        raise ValueError("`--encoder_pretraining_steps` trains the encoder, which `--freeze_encoder` keeps as it is.")
    trains_nothing = model_args.freeze_decoder and not model_args.lora and not isinstance(model_args, ConditionalArguments)
    if model_args.latent_free_steps and trains_nothing:
        raise ValueError("`--latent_free_steps` trains the decoder, which `--freeze_decoder` keeps as it is.")
    if training_args.label_smoothing_factor:
        raise ValueError("`--label_smoothing_factor` must be 0: an ELBO has no label smoothing.")
    if model_args.minimum_rate is not None and model_args.kl_schedule == "constant" and scheduled:
        raise ValueError("`--minimum_rate` sets the KL's weight by itself; leave `--kl_schedule_options` out beside it.")
    if model_args.minimum_rate is not None and (model_args.free_bits or model_args.capacity is not None):
        raise ValueError(
            f"`--minimum_rate` weighs the KL itself, which `--free_bits` ({model_args.free_bits}) and `--capacity` "
            f"({model_args.capacity}) replace in the loss; set `--free_bits` to 0 and leave `--capacity` out beside it."
        )
    if model_args.aggressive_encoder and training_args.eval_strategy == "no":
        raise ValueError("`--aggressive_encoder` ends when evaluations say so; set `--eval_strategy` to steps or epoch.")
    if model_args.posterior_fit_steps and getattr(model_args, "objective", "cvae") == "gsnn":
        raise ValueError("`--posterior_fit_steps` trains q, which `--objective gsnn` does without; leave one of them out.")
    reset = model_args.decoder_reset_step
    if reset is not None and 0 < training_args.max_steps <= reset:
        raise ValueError(f"`--decoder_reset_step` is {reset}, and training ends at `--max_steps` {training_args.max_steps}.")
    is_free = model_args.free_bits or model_args.capacity is not None or model_args.minimum_rate is not None
    if reset is not None and not is_free and min(schedule(step) for step in range(reset)) >= 1:
        raise ValueError(
            f"`--decoder_reset_step` is {reset}, and up to there the KL has its full weight: what trains is no autoencoder. "
            "Begin with a weight of 0, for instance `--kl_schedule cyclical --kl_schedule_options "
            f'\'{{"period": {2 * reset}, "cycles": 1}}\'`, or grant free bits.'
        )
    for name in ("lora", "freeze_decoder", "latent_free_steps"):
        if reset is not None and getattr(model_args, name):
            raise ValueError(f"`--decoder_reset_step` gives the whole decoder new weights; leave `--{name}` out beside it.")
    check_output_dir(cast(str, training_args.output_dir), model_type)


def check_least(given: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """
    Raises a `ValueError` that names the first of the arguments `given`, by name, that is smaller than its least value; `None`
    passes.
    """
    for name, smallest in least.items():
        if given[name] is not None and given[name] < smallest:
            raise ValueError(f"`--{name}` is {given[name]}; it must be at least {smallest}.")


def check_report(report_args: ReportArguments) -> None:
    """Raises a `ValueError` for a report on nothing to tell apart."""
    check_least(vars(report_args), {"collapse_report_samples": 0})
    if report_args.collapse_report_samples == 1:
        raise ValueError("`--collapse_report_samples` is 1; what z tells apart needs at least two, and 0 leaves the report out.")


def check_streaming(data_args: Any, training_args: TrainingArguments) -> None:
    """Raises a `ValueError` for what [`StreamingArguments`] cannot do."""
    if not data_args.streaming:
        return
    if data_args.train_file is None:
        raise ValueError("`--streaming` reads data of your own: add a `--train_file`.")
    if training_args.max_steps < 1:
        raise ValueError("`--streaming` does not know how many rows there are: say how long to train with `--max_steps`.")
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if getattr(training_args, name) == "epoch":
            raise ValueError(f"`--{name}` is epoch, and a stream has no end: choose steps.")
    if data_args.max_train_samples is not None:
        raise ValueError("`--max_train_samples` counts rows that were read before; with `--streaming`, `--max_steps` ends it.")
    check_least(vars(data_args), {"shuffle_buffer": 1, "first_rows": 2})


def check_held_out(data_args: Any) -> None:
    """Raises a `ValueError` for training data that is none, or without any to measure on."""
    check_least(vars(data_args), {"max_train_samples": 1})
    if data_args.train_file and not (data_args.validation_file or data_args.test_file):
        raise ValueError("`--train_file` needs a `--validation_file` or a `--test_file`: figures are measured on held-out text.")


def check_output_dir(output_dir: str, model_type: str) -> None:
    """
    Refuses to write a model of `model_type` where something else lives.

    Raises:
        ValueError: names what was found.
    """
    directory = Path(output_dir)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"`--output_dir` {output_dir} is a file; choose a directory.")
    for name, what in _OTHER_MODELS.items():
        if (directory / name).exists():
            raise ValueError(f"`--output_dir` {output_dir} holds {what} ({name}); choose another directory.")
    config_file = directory / "config.json"
    if config_file.exists():
        try:
            found = json.loads(config_file.read_text(encoding="utf-8"))["model_type"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"`--output_dir` {output_dir} holds a config.json that is no transformers model's; choose another directory."
            ) from error
        if found != model_type:
            raise ValueError(f"`--output_dir` {output_dir} holds a model of type {found!r}; choose another directory.")


def stage_arguments(training_args: TrainingArguments, name: str, max_steps: int) -> TrainingArguments:
    """
    The run's settings for a training before, after or beside it, which writes into `stages/<name>` of the run's directory: if the
    run keeps checkpoints, its last one.
    """
    # The best of what nobody evaluates is not known.
    strategy = "steps" if training_args.save_strategy == "best" else training_args.save_strategy
    return replace(
        training_args,
        output_dir=str(Path(cast(str, training_args.output_dir)) / STAGES / name),
        max_steps=max_steps,
        eval_strategy="no",
        save_strategy=strategy,
        save_total_limit=1,
        load_best_model_at_end=False,
        push_to_hub=False,
        resume_from_checkpoint=None,
    )


def use_all_cores(state: PartialState) -> None:
    """`accelerate launch` gives its only process on a machine without an accelerator one thread; give it the others back."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and state.num_processes == 1 and state.device.type == "cpu":
        # As many as this process may use, where the system says so.
        affinity = getattr(os, "sched_getaffinity", None)
        torch.set_num_threads(len(affinity(0)) if affinity else os.cpu_count() or 1)
