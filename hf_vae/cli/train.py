"""The command that trains: one `main` for all tasks, and its steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from ..data import expand_targets
from ..evaluation.callbacks import CollapseReportCallback
from ..evaluation.compute_metrics import elbo_metrics
from ..evaluation.words import check_tokenizer
from ..hub import Repository, create_repository, run_record, upload_model
from ..options.model import ModelArguments
from ..options.report import ReportArguments
from ..options.techniques import STAGE_STEPS
from ..processing_vae import VAEProcessor
from ..training.checkpoints import begin_or_resume, check_fits, remove_stages
from ..training.collator import VAEDataCollator
from ..training.divergence import StopOnDivergenceCallback, leave_out_cudnn_attention
from ..training.drop_last import EvaluateEveryExampleCallback
from ..training.encoder_cache import check_outputs_stay
from ..training.fits import fit_conditional_prior, fit_decoder, fit_posterior, fit_soft_tokens
from ..training.learning_rates import two_rates
from ..training.loss_parts import find_model
from ..training.resuming import train
from ..training.sharding import in_pieces, prepare_for_sharding
from ..training.stages import check_pretraining, held, on_other_batches, pretrain_encoder, train_without_latent
from ..training.techniques import technique_callbacks
from .arguments import parse_arguments
from .checks import (
    check_arguments,
    check_evaluation,
    check_output_dir,
    check_part_files,
    check_rows,
    check_streaming,
    check_unfinished,
    run_steps,
)
from .encoder_outputs import encoder_outputs
from .outcome import verdict_line
from .processes import check_processes, use_all_cores
from .progress import BASELINE as WITHOUT_LATENT
from .progress import (
    DECODER_FIT,
    LATENT_FREE,
    MEASURING,
    POSTERIOR_FIT,
    PRETRAINING,
    PRIOR_FIT,
    SOFT_TOKEN_FIT,
    WITH_LATENT,
    Progress,
    measuring_shown,
    trainer_s_bar_alone,
)
from .report import report_run
from .saving import BASELINE, finish_saving, save_baseline, save_trained
from .task import Task
from .tokenizing import tokenize_pairs, tokenize_stream


def main(task_class: type[Task], argv: Sequence[str]) -> dict[str, Any]:
    """
    Trains a model, measures it, and leaves it in the run's `output_dir` with its metrics and its card.

    Args:
        task_class (`type`): what is trained, and how it is measured.
        argv (`Sequence[str]`): the command line.

    Returns:
        The metrics, as the main process writes them.
    """
    # 1. Arguments. What cannot work is refused before anything is computed.
    name = task_class.name
    task = task_class(*parse_arguments(task_class.arguments, argv, name, f"outputs/{name}"))
    model_args, data_args, evaluation_args = task.model_args, task.data_args, task.evaluation_args
    training_args = task.training_args
    model_type = cast(Any, task.model_class.config_class).model_type
    check_arguments(model_args, training_args, not task.on_embedded, model_type)
    check_unfinished(training_args, evaluation_args.overwrite_output_dir)
    # One that lies there is replaced or removed.
    check_output_dir(str(Path(cast(str, training_args.output_dir)) / BASELINE), model_type)
    task.check()
    check_streaming(data_args, training_args, model_args)
    check_part_files(model_args)
    state, repository = start_run(model_args, training_args, evaluation_args)
    settle_arguments(training_args, data_args.streaming)

    with trainer_s_bar_alone(bool(training_args.disable_tqdm)):
        # 2. Data: one row a pair to train on, one row a source with all its targets to measure on.
        with state.main_process_first():
            task.load()

        # 3. Model and processor.
        model, processor = task.build()
        if model_args.cache_encoder is not None:
            check_outputs_stay(model)
        model.generation_config.update(**task.generation, allow_custom_entries=True)
        rows = {"train": task.train, "validation": expand_targets(task.validation)}
        tokenized: dict[str, Any] = {**tokenize_pairs(processor, rows, **task.lengths)}
        if data_args.streaming:
            stream = task.stream()
            tokenized["train"] = tokenize_stream(processor, stream, data_args.shuffle_buffer, training_args.seed, **task.lengths)

        # 4. Train with the plain Trainer; a callback sets the KL's weight and logs the loss's parts.
        texts, targets = list(task.validation["source"]), [targets[0] for targets in task.validation["targets"]]
        callbacks = report_callbacks(model_args, evaluation_args, training_args, processor, texts, targets, **task.lengths)
        stages = planned_stages(model_args, training_args, tokenized["train"])
        of_decoder = sum(stages[name] for name in (LATENT_FREE, DECODER_FIT, WITH_LATENT))
        without_latent = of_decoder if evaluation_args.with_baseline else 0
        progress = Progress({**stages, MEASURING: len(task.test), WITHOUT_LATENT: without_latent})
        with encoder_outputs(model, processor, model_args, training_args, tokenized):
            model = train_in_stages(model, processor, model_args, training_args, tokenized, callbacks, progress)

    # 5. Measure on held-out data; beside it, if that is asked for, the same model trained without z.
    def baseline() -> Any:
        callback = progress.begin(WITHOUT_LATENT)
        train = (tokenized["train"], without_latent)
        return train_baseline(task.build, model_args, training_args, *train, task.generation, [callback])

    with measuring_shown(bool(training_args.disable_tqdm)):
        progress.head(MEASURING, "example")
        measured = task.measure(model, processor, baseline if evaluation_args.with_baseline else None)
    metrics = measured.metrics

    # 6. What a stranger needs: metrics, and a card that tells them.
    if state.is_main_process:
        record = run_record(
            f"examples/train_{name}.py",
            argv,
            model_args,
            training_args,
            data_args.train_file,
            embedded_corpus=task.corpus,
            metrics=metrics,
            verdict=verdict_line(metrics),
            baseline=measured.baseline,
            measured_on=measured.measured_on,
            samples=measured.samples,
            example=measured.example,
        )
        output_dir = Path(cast(str, training_args.output_dir))
        record = replace(record, name=repository.name if repository else record.name)
        metrics = report_run(model, record, measured, output_dir)

        # 7. Share it.
        if repository:
            upload_model(repository, output_dir)
        remove_stages(training_args)
    state.wait_for_everyone()
    return metrics


def start_run(
    model_args: ModelArguments, training_args: TrainingArguments, evaluation_args: Any
) -> tuple[PartialState, Repository | None]:
    """
    Processes, cores, seed and, with `--push_to_hub`, the repository: what the Hub refuses is better refused now than after the
    training.

    Args:
        model_args, training_args: the run's.
        evaluation_args ([`ReportArguments`]): a task's own, with `with_baseline`.

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
    options = (*STAGE_STEPS, "lora", "new_weights_learning_rate", "cache_encoder")
    whole = {name: getattr(model_args, name) for name in options}
    whole["collapse_report_samples"] = training_args.do_eval and evaluation_args.collapse_report_samples
    check_processes(training_args, {**whole, "with_baseline": evaluation_args.with_baseline})
    state = PartialState()
    use_all_cores(state)
    leave_out_cudnn_attention()
    set_seed(training_args.seed)
    repository = create_repository(training_args) if training_args.push_to_hub and state.is_main_process else None
    return state, repository


def settle_arguments(training_args: TrainingArguments, streaming: bool) -> None:
    """
    All that the commands change of the user's `TrainingArguments`, in place: the Trainer and its stages read the same object.
    (While the Trainer trains, [`EvaluateEveryExampleCallback`] keeps `dataloader_drop_last` to the training.)
    """
    # The Trainer would push whenever it saves: a model without its metrics, and an adapter beside the weights that it is merged
    # into, where it would be applied once more. The command uploads what is finished, in one commit.
    training_args.push_to_hub = False
    # The Trainer pickles its arguments beside every checkpoint, and whoever opens that file would read the token.
    training_args.hub_token = None
    if training_args.label_names is None:
        # A dialogue's `act_labels` are labels too by their name, and without them the Trainer would measure nothing.
        training_args.label_names = ["labels"]
    if training_args.device.type == "cpu":
        # Only an accelerator reads pinned memory, and torch would warn.
        training_args.dataloader_pin_memory = False
    if streaming:
        # Each process reads for itself: rows of unequal length cannot be handed on from one.
        cast(Any, training_args.accelerator_config).dispatch_batches = False


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
    The collapse report on the first validation `texts` and their `targets`, if the run evaluates while it trains a q.

    Raises:
        ValueError: fewer than two of them.
    """
    watched = report_args.collapse_report_samples
    if not training_args.do_eval or not watched or not model_args.has_posterior:
        return []
    if len(texts) < 2:
        raise ValueError(
            f"There is {len(texts)} validation example, and the collapse report tells examples apart: give more, or set "
            "`--collapse_report_samples` to 0."
        )
    return [CollapseReportCallback(processor, texts[:watched], targets[:watched], seed=training_args.seed, **lengths)]


def planned_stages(model_args: ModelArguments, training_args: TrainingArguments, train: Any) -> dict[str, int]:
    """The steps of every training of a run, by what it trains, in order."""
    return {
        PRETRAINING: model_args.encoder_pretraining_steps,
        LATENT_FREE: model_args.latent_free_steps,
        SOFT_TOKEN_FIT: model_args.soft_token_fit_steps,
        DECODER_FIT: model_args.decoder_fit_steps,
        WITH_LATENT: run_steps(training_args, train),
        POSTERIOR_FIT: model_args.posterior_fit_steps,
        PRIOR_FIT: model_args.prior_fit_steps,
    }


def train_in_stages(
    model: Any,
    processor: VAEProcessor,
    model_args: ModelArguments,
    training_args: TrainingArguments,
    tokenized: Mapping[str, Dataset | IterableDataset],
    callbacks: Sequence[TrainerCallback] = (),
    progress: Progress | None = None,
) -> Any:
    """
    The whole training with the plain Trainer: first, if the arguments say so, the encoder as a masked language model and the
    model without z; then the model, where a callback anneals the KL and logs the loss's parts; at last, if they say so, q alone and
    p(z|x) alone. A resumed run goes on in the middle.

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one.
        processor ([`VAEProcessor`]): its processor.
        model_args, training_args: the run's.
        tokenized (`dict[str, Dataset]`): `train`, and `validation`, which is measured with `--eval_strategy`.
        callbacks (`Sequence[TrainerCallback]`): for the training with z, beside those that the arguments ask for.
        progress ([`Progress`], *optional*): of the run, if it has more stages than the trainings.

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
    else:
        check_rows(model_args, training_args, tokenized["train"])
    if model_args.encoder_pretraining_steps:
        check_pretraining(model.encoder, processor.encoder_tokenizer)
    progress = progress or Progress(planned_stages(model_args, training_args, tokenized["train"]))
    own = [*technique_callbacks(model_args, processor), EvaluateEveryExampleCallback(), StopOnDivergenceCallback()]
    if PartialState().is_main_process:
        finish_saving(cast(str, training_args.output_dir))
    checkpoint, stamp = begin_or_resume(training_args)
    if checkpoint is not None:
        check_fits(checkpoint, model)
    if checkpoint is None and model_args.encoder_pretraining_steps:
        steps = model_args.encoder_pretraining_steps
        settings = (training_args, steps, tokenized["train"])
        pretrain_encoder(model.encoder, processor.encoder_tokenizer, *settings, callbacks=[progress.begin(PRETRAINING)])
    rate = model_args.new_weights_learning_rate
    decoder_args, train_set = training_args, tokenized["train"]
    if model_args.freeze_decoder_with_latent:
        decoder_args, train_set = on_other_batches(training_args, train_set, model_args.latent_free_steps)
    if checkpoint is None and model_args.latent_free_steps:
        stage = ("latent_free", model_args.latent_free_steps, tokenized["train"], [progress.begin(LATENT_FREE)])
        train_without_latent(model, processor, decoder_args, *stage, new_weights_learning_rate=rate)

    def fit(*stages: tuple[str, Callable[..., None], int], train: Any) -> None:
        for name, fit_part, steps in stages:
            if steps:
                callback = progress.begin(name)
                fit_part(model, processor, training_args, steps, train, [callback], new_weights_learning_rate=rate)

    if checkpoint is None:
        soft_tokens = (SOFT_TOKEN_FIT, fit_soft_tokens, model_args.soft_token_fit_steps)
        fit(soft_tokens, (DECODER_FIT, fit_decoder, model_args.decoder_fit_steps), train=train_set)
    # Adapters in the decoder are the decoder's.
    lm = cast(Any, find_model(model)).decoder.lm
    with held(lm.parameters() if model_args.freeze_decoder_with_latent else ()):
        trainer = Trainer(
            model,
            training_args,
            processing_class=processor,
            train_dataset=train_set,
            eval_dataset=tokenized["validation"] if training_args.do_eval else None,
            data_collator=cast(Any, VAEDataCollator(processor)),
            compute_metrics=elbo_metrics if training_args.do_eval else None,
            optimizers=two_rates(model, training_args, rate),
            callbacks=[stamp, *own, *callbacks, progress.begin(WITH_LATENT)],
        )
        if in_pieces():
            prepare_for_sharding(model)
        drop_last = training_args.dataloader_drop_last
        try:
            train(trainer, checkpoint)
        finally:
            # A callback that leaves the last batch to evaluations is not told when a training breaks off.
            training_args.dataloader_drop_last = drop_last
    posterior = (POSTERIOR_FIT, fit_posterior, model_args.posterior_fit_steps)
    fit(posterior, (PRIOR_FIT, fit_conditional_prior, model_args.prior_fit_steps), train=tokenized["train"])
    return save_trained(trainer, processor, progress.logs)


def train_baseline(
    build: Callable[[], tuple[Any, VAEProcessor]],
    model_args: ModelArguments,
    training_args: TrainingArguments,
    train: Dataset,
    steps: int,
    generation: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback] = (),
) -> Any:
    """
    Builds the model once more, trains it with z = 0, and saves it in a directory of its own. Its loss is the reconstruction alone:
    the bag of words is there for z's sake.

    Args:
        build (`Callable`): gives the model and its processor.
        model_args, training_args: the run's.
        train (`Dataset`): tokenised by the processor.
        steps (`int`): as many as the model with z has had altogether.
        generation (`dict`): what becomes its default when it generates.
        callbacks (`Sequence[TrainerCallback]`): for its Trainer.

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
    rate = model_args.new_weights_learning_rate
    with encoder_outputs(model, processor, model_args, training_args, {"train": train}):
        train_without_latent(model, processor, training_args, "baseline", steps, train, callbacks, new_weights_learning_rate=rate)
    model = model.merge_and_unload() if model_args.lora else model
    model.generation_config.update(**generation, allow_custom_entries=True)
    save_baseline(model, processor, cast(str, training_args.output_dir))
    return model
