"""The steps that the training scripts share: the start of a run, tokenising pairs, all stages of a training, and the baseline."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from ..evaluation.callbacks import CollapseReportCallback
from ..evaluation.compute_metrics import elbo_metrics
from ..evaluation.words import check_tokenizer
from ..hub import Repository, create_repository
from ..processing_vae import VAEProcessor
from .arguments import ModelArguments, ReportArguments, check_rows, run_steps, use_all_cores
from .building import latent_callbacks
from .callbacks import EvaluateEveryExampleCallback
from .checkpoints import begin_or_resume, check_fits
from .collator import VAEDataCollator
from .divergence import StopOnDivergenceCallback
from .latent_free import train_without_latent
from .loss_parts import find_model
from .posterior_fit import fit_posterior
from .pretraining import check_pretraining, pretrain_encoder
from .saving import finish_saving, save_trained
from .sharding import check_processes, in_pieces, prepare_for_sharding
from .stages import train


def start_run(
    model_args: ModelArguments, training_args: TrainingArguments, evaluation_args: Any
) -> tuple[PartialState, Repository | None]:
    """
    Processes, cores, seed and, with `--push_to_hub`, the repository: what the Hub refuses is better refused now than after the
    training.

    Args:
        model_args, training_args: the run's.
        evaluation_args ([`ReportArguments`]): a script's own, with `with_baseline`.

    Returns:
        The processes' state, and on the main process the repository, if the run is to be shared.

    Raises:
        ValueError: processes that do not know of each other, what FSDP and DeepSpeed cannot do, or a tokenizer for metrics that
            there is not.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # A sample that the terminal cannot show must not end a finished run.
        cast(Any, sys.stdout).reconfigure(errors="replace")
    check_tokenizer(evaluation_args.metrics_tokenizer)
    stages = ("encoder_pretraining_steps", "latent_free_steps", "posterior_fit_steps", "lora")
    whole = {name: getattr(model_args, name) for name in stages}
    whole["collapse_report_samples"] = training_args.do_eval and evaluation_args.collapse_report_samples
    check_processes(training_args, {**whole, "with_baseline": evaluation_args.with_baseline})
    push_to_hub = training_args.push_to_hub
    # The Trainer would push whenever it saves: a model without its figures, and an adapter beside the weights that it is merged
    # into, where it would be applied once more. The script uploads what is finished, in one commit.
    training_args.push_to_hub = False
    state = PartialState()
    use_all_cores(state)
    set_seed(training_args.seed)
    repository = create_repository(training_args) if push_to_hub and state.is_main_process else None
    # The Trainer pickles its arguments beside every checkpoint, and whoever opens that file would read the token.
    training_args.hub_token = None
    return state, repository


def tokenize_pairs(processor: VAEProcessor, pairs: Mapping[str, Dataset], **lengths: int) -> dict[str, Dataset]:
    """Splits with the columns `source` and `target` as the processor's features, cut to its `lengths`."""

    def tokenize(rows):
        return dict(processor(rows["source"], rows["target"], return_tensors=None, **lengths))

    with PartialState().main_process_first():
        return {
            name: split.map(tokenize, batched=True, remove_columns=split.column_names, desc=f"tokenising {name}")
            for name, split in pairs.items()
        }


def tokenize_stream(
    processor: VAEProcessor, pairs: IterableDataset, shuffle_buffer: int, seed: int, **lengths: int
) -> IterableDataset:
    """
    As [`tokenize_pairs`], while it is read: pass after pass, without an end. Each next pair is drawn from `shuffle_buffer` of them,
    anew in each pass. The Trainer does not know how many rows a stream has, and would take a later pass for the first when it
    resumes a run. So to the Trainer there is one pass alone.
    """

    def tokenize(rows):
        return dict(processor(rows["source"], rows["target"], return_tensors=None, **lengths))

    # Whoever reads a stream does not know its columns otherwise.
    features = Dataset.from_dict(tokenize(Dataset.from_list(list(pairs.take(2)))[:])).features
    if shuffle_buffer > 1:
        pairs = pairs.shuffle(seed=seed, buffer_size=shuffle_buffer)
    stream = pairs.map(tokenize, batched=True, batch_size=100, remove_columns=["source", "target"], features=features)
    return IterableDataset.from_generator(_passes, features=features, gen_kwargs={"stream": stream})


def _passes(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    for number in itertools.count():
        stream.set_epoch(number)
        row = None
        for row in stream:
            yield row
        if row is None:
            return


def report_callbacks(
    model_args: ModelArguments,
    report_args: ReportArguments,
    training_args: TrainingArguments,
    processor: VAEProcessor,
    texts: Sequence[Any],
    targets: Sequence[str],
    **lengths: int,
) -> list[TrainerCallback]:
    """
    The collapse report on the first validation `texts` and their `targets`, where the run evaluates while it trains a q.

    Raises:
        ValueError: fewer than two of them.
    """
    watched = report_args.collapse_report_samples
    if not training_args.do_eval or not watched or getattr(model_args, "objective", None) == "gsnn":
        return []
    if len(texts) < 2:
        raise ValueError(
            f"There is {len(texts)} validation example, and the collapse report tells examples apart: give more, or set "
            "`--collapse_report_samples` to 0."
        )
    return [CollapseReportCallback(processor, texts[:watched], targets[:watched], seed=training_args.seed, **lengths)]


def train_in_stages(
    model: Any,
    processor: VAEProcessor,
    model_args: ModelArguments,
    training_args: TrainingArguments,
    tokenized: Mapping[str, Dataset | IterableDataset],
    callbacks: Sequence[TrainerCallback] = (),
) -> Any:
    """
    The whole training with the plain Trainer: first, where the arguments say so, the encoder as a masked language model and the
    model without z; then the model, where a callback anneals the KL and logs the loss's parts; q alone at last, where they say so.
    A resumed run goes on in the middle.

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one.
        processor ([`VAEProcessor`]): its processor.
        model_args, training_args: the run's.
        tokenized (`dict[str, Dataset]`): `train`, and `validation`, which is measured with `--eval_strategy`.
        callbacks (`Sequence[TrainerCallback]`): for the training with z, beside those that the arguments ask for.

    Returns:
        The model as it is saved in the run's `output_dir`, adapters merged.

    Raises:
        ValueError: a training set that is too small for the arguments, or a stream that cannot serve them.
    """
    # What cannot work is refused before a stage trains or a Trainer makes its directory.
    if training_args.do_eval:
        check_evaluation(training_args)
    if isinstance(tokenized["train"], IterableDataset):
        if model_args.aggressive_encoder:
            raise ValueError("`--aggressive_encoder` draws further examples from the training set, and a stream has no others.")
        # Each process reads for itself: rows of unequal length cannot be handed on from one.
        cast(Any, training_args.accelerator_config).dispatch_batches = False
    else:
        check_rows(model_args, training_args, tokenized["train"])
    if model_args.encoder_pretraining_steps:
        check_pretraining(model.encoder, processor.encoder_tokenizer)
    own = [*latent_callbacks(model_args, processor), EvaluateEveryExampleCallback(), StopOnDivergenceCallback()]
    if training_args.label_names is None:
        # A dialogue's `act_labels` are labels too by their name, and where there are none the Trainer would measure nothing.
        training_args.label_names = ["labels"]
    if PartialState().is_main_process:
        finish_saving(cast(str, training_args.output_dir))
    checkpoint, stamp = begin_or_resume(training_args)
    if checkpoint is not None:
        check_fits(checkpoint, model)
    if checkpoint is None and model_args.encoder_pretraining_steps:
        steps = model_args.encoder_pretraining_steps
        pretrain_encoder(model.encoder, processor.encoder_tokenizer, training_args, steps, tokenized["train"])
    if checkpoint is None and model_args.latent_free_steps:
        train_without_latent(model, processor, training_args, "latent_free", model_args.latent_free_steps, tokenized["train"])
    trainer = Trainer(
        model,
        training_args,
        processing_class=processor,
        train_dataset=tokenized["train"],
        eval_dataset=tokenized["validation"] if training_args.do_eval else None,
        data_collator=cast(Any, VAEDataCollator(processor)),
        compute_metrics=elbo_metrics if training_args.do_eval else None,
        callbacks=[stamp, *own, *callbacks],
    )
    if in_pieces():
        prepare_for_sharding(model)
    drop_last = training_args.dataloader_drop_last
    try:
        train(trainer, checkpoint)
    finally:
        # A callback that leaves the last batch to evaluations is not told when a training breaks off.
        training_args.dataloader_drop_last = drop_last
    if model_args.posterior_fit_steps:
        fit_posterior(model, processor, training_args, model_args.posterior_fit_steps, tokenized["train"])
    return save_trained(trainer, processor)


def check_evaluation(training_args: TrainingArguments) -> None:
    """Raises a `ValueError` for arguments with which the Trainer does not hand the model's outputs to `compute_metrics`."""
    for name in ("prediction_loss_only", "eval_use_gather_object"):
        if getattr(training_args, name):
            raise ValueError(
                f"`--{name}` keeps the model's outputs from the metrics of an evaluation: leave it out, or turn evaluation off "
                "(`--eval_strategy no`)."
            )


def train_baseline(
    build: Callable[[], tuple[Any, VAEProcessor]], model_args: ModelArguments, training_args: TrainingArguments, train: Dataset
) -> Any:
    """
    Builds the model once more and trains it with z = 0, for as many steps as the model with z has had altogether, in a directory
    of its own. Its loss is the reconstruction's alone: the bag of words is there for z's sake.

    Returns:
        The model, adapters merged.
    """
    set_seed(training_args.seed)
    model, processor = build()
    vae: Any = find_model(model)
    if vae.config.bow_loss_weight:
        vae.config.bow_loss_weight = 0.0
        # Distributed training would stumble over weights that get no gradient.
        vae.bow_head.requires_grad_(False)
    steps = model_args.latent_free_steps + run_steps(training_args, train)
    train_without_latent(model, processor, training_args, "baseline", steps, train)
    return model.merge_and_unload() if model_args.lora else model
