"""The command that measures a trained VAE on a file of texts; examples/evaluate.py shows how it is called."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from ..checks import check_choice
from ..configuration_conditional_vae import ConditionalVAEConfig
from ..data import load_dialogs, load_pairs, load_texts
from ..evaluation import (
    FrontierPoint,
    LikelihoodEvaluator,
    collapse_report,
    evaluate_vae,
    language_model_nll,
    rate_distortion_points,
    rate_distortion_table,
)
from ..evaluation.metrics import metrics_table
from ..evaluation.rate_distortion import load_metrics
from ..evaluation.words import check_tokenizer
from ..hub import write_metrics
from ..hub.saved_model import saved_config_of_texts
from ..modeling_vae import VAEModel
from ..options.evaluate import DataArguments, EvaluationArguments, FrontierArguments, ModelArguments
from ..processing_conditional_vae import ConditionalVAEProcessor
from ..processing_dialog import DialogCVAEProcessor
from ..processing_vae import VAEProcessor, check_text_length, load_tokenizer
from ..training.divergence import leave_out_cudnn_attention
from .checks import DTYPES, check_draws, check_least, check_model_name, check_writable
from .frontier import check_frontier, plan_frontier, point_metrics, report_frontier, z_above
from .parsing import parse_plain
from .plots import check_picture, plot_rate_distortion
from .processes import use_all_cores

logger = logging.getLogger(__name__)


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, EvaluationArguments, FrontierArguments]:
    """Dataclasses from a command line that may begin with the model."""
    classes = (ModelArguments, DataArguments, EvaluationArguments, FrontierArguments)
    return cast(Any, parse_plain(classes, argv, "model_name_or_path"))


def check_arguments(
    model_args: ModelArguments, data_args: DataArguments, evaluation_args: EvaluationArguments, is_conditional: bool
) -> None:
    """Everything that can be refused before the model's weights are loaded."""
    check_choice("--dtype", model_args.dtype, DTYPES)
    given = {**vars(data_args), **vars(evaluation_args)}
    least = {"importance_samples": 1, "refine_steps": 0, "batch_size": 1, "chunk": 1, "max_samples": 2, "max_target_length": 2}
    check_least(given, least)
    check_draws(given)
    check_tokenizer(evaluation_args.metrics_tokenizer)
    if model_args.language_model and model_args.language_model_nll is not None:
        raise ValueError("Give `--language_model` or `--language_model_nll`, not both.")
    if model_args.language_model_nll is not None and not math.isfinite(model_args.language_model_nll):
        raise ValueError(f"`--language_model_nll` is {model_args.language_model_nll}; it is a number of nats per sentence.")
    if model_args.language_model and is_conditional:
        raise ValueError(
            "`--language_model` measures p(y), which does not see the source: for a conditional model give the figure of a model "
            "that does, as `--language_model_nll`."
        )
    for name in ("output_file", "plot_file"):
        check_writable(name, given[name])
    if evaluation_args.plot_file and not evaluation_args.compare_with:
        raise ValueError("`--plot_file` needs `--compare_with`: one model is one point.")
    check_picture("plot_file", evaluation_args.plot_file)


def load_data(data_args: DataArguments, processor: VAEProcessor) -> tuple[list, list[list[str]]]:
    """
    What the processor takes as texts, and the targets of each: the same sentence for the VAE, those of pairs or dialogues for
    conditional models.
    """
    if isinstance(processor, DialogCVAEProcessor):
        meta = [*processor.meta_categories, *processor.meta_values]
        pairs = load_dialogs(
            data_args.file, data_args.split, processor.max_turns, meta, data_args.max_samples, **data_args.file_options
        )
        texts, targets = list(pairs["source"]), list(pairs["targets"])
        if processor.acts is None:
            # The file may know of acts that the model was not told.
            texts = [{**dialogue, "act": None} for dialogue in texts]
    elif isinstance(processor, ConditionalVAEProcessor):
        pairs = load_pairs(
            data_args.file,
            data_args.split,
            source_column=data_args.source_column,
            target_column=data_args.target_column,
            max_rows=data_args.max_samples,
            **data_args.file_options,
        )
        texts, targets = list(pairs["source"]), list(pairs["targets"])
    else:
        columns = (data_args.text_column, data_args.max_samples)
        texts = load_texts(data_args.file, data_args.split, *columns, **data_args.file_options)
        targets = [[text] for text in texts]
    if len(texts) < 2:
        raise ValueError(f"{data_args.file} has {len(texts)} sentence(s); what z tells apart needs at least two.")
    return texts, targets


def load_language_model(name_or_path: str, dtype: str, model: VAEModel, evaluator: LikelihoodEvaluator):
    """
    A causal language model, the tokens that it is scored on, and its start token: the VAE's if both have one vocabulary.

    Raises:
        ValueError: a tokenizer of its own without EOS, or texts cut to a length in another vocabulary.
    """
    language_model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype).to(PartialState().device)
    labels, start = evaluator.label_ids(), model.config.decoder_start_token_id
    try:
        tokenizer = load_tokenizer(name_or_path)
    except (OSError, ValueError):
        logger.warning("%s has no tokenizer of its own; the tokens of the VAE's decoder are taken to be its.", name_or_path)
        return language_model, labels, start
    ours = evaluator.processor.tokenizer
    if tokenizer.get_vocab() == ours.get_vocab():
        return language_model, labels, start
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer of {name_or_path} has no EOS token, so the end of a sentence cannot be scored.")
    if evaluator.processor_options["max_target_length"] is not None:
        raise ValueError(
            f"`--max_target_length` cuts texts in the VAE's vocabulary, and {name_or_path} has another one: leave it out, or give "
            "`--language_model_nll`."
        )
    rows = tokenizer(evaluator.targets, add_special_tokens=False)["input_ids"]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return language_model, [[*row, tokenizer.eos_token_id] for row in rows], start


def save_metrics(metrics: dict, file: str) -> None:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_metrics(metrics, path)


def main(argv: Sequence[str]) -> dict:
    # 1. Arguments, refused before any compute if they cannot work.
    model_args, data_args, evaluation_args, frontier_args = parse_arguments(argv)
    check_model_name(model_args.model_name_or_path, reads_file=True)
    config = saved_config_of_texts(model_args.model_name_or_path)
    is_conditional = isinstance(config, ConditionalVAEConfig)
    check_arguments(model_args, data_args, evaluation_args, is_conditional)
    check_frontier(frontier_args, model_args.model_name_or_path, config)
    compared = {name: load_metrics(name) for name in evaluation_args.compare_with}
    # Without an accelerator several processes find each other only if they are told that there is none.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    use_all_cores(state)
    # `--refine_steps` follows gradients too.
    leave_out_cudnn_attention()

    # 2. Processor, texts and model.
    processor = AutoProcessor.from_pretrained(model_args.model_name_or_path)
    check_text_length("--max_length", data_args.max_length, processor.encoder_tokenizer)
    with state.main_process_first():
        texts, targets = load_data(data_args, processor)
    model = AutoModel.from_pretrained(model_args.model_name_or_path, dtype=model_args.dtype).to(state.device)
    evaluator = LikelihoodEvaluator(
        model,
        processor,
        texts,
        [several[0] for several in targets],
        evaluation_args.batch_size,
        evaluation_args.chunk,
        max_length=data_args.max_length,
        max_target_length=data_args.max_target_length,
    )
    evaluator.check_lengths()
    if frontier_args.frontier:
        options = {"batch_size": evaluation_args.batch_size, "seed": evaluation_args.seed, "max_length": data_args.max_length}
        tokenize = evaluation_args.metrics_tokenizer
        frontier_points = plan_frontier(frontier_args, model, processor, texts, targets, tokenize, **options)

    # 3. The language model that it must beat.
    language_model_figure = model_args.language_model_nll
    if model_args.language_model:
        language_model, labels, start = load_language_model(model_args.language_model, model_args.dtype, model, evaluator)
        nll = language_model_nll(language_model, labels, start, evaluation_args.batch_size)
        language_model_figure = nll.mean().item()

    # 4. Everything else.
    metrics = evaluate_vae(
        evaluator,
        importance_samples=evaluation_args.importance_samples,
        seed=evaluation_args.seed,
        refine_steps=evaluation_args.refine_steps,
        language_model_nll=language_model_figure,
        tokenize=evaluation_args.metrics_tokenizer,
    )

    # 5. What it comes to.
    if state.is_main_process:
        # First: nothing below can lose what took so long.
        if evaluation_args.output_file:
            save_metrics(metrics, evaluation_args.output_file)
            print(f"\nSaved to {evaluation_args.output_file}")
        print(f"\n{metrics_table(metrics)}")
        if "collapse_report" in metrics:
            print(f"\n{collapse_report(metrics, language_model_figure)}")

    # 6. Several outputs of each source, how good and how different.
    if frontier_args.frontier:
        output_file = evaluation_args.output_file if state.is_main_process else None
        points: list[FrontierPoint] = []
        measured: dict[str, Any] = {"num_outputs": frontier_args.frontier_outputs, "points": []}
        metrics["frontier"] = measured
        for point in frontier_points:
            points.append(point)
            measured["points"].append(point_metrics(point))
            # All of them may take an hour: what is measured is kept, whatever becomes of the rest.
            if output_file:
                save_metrics(metrics, output_file)
        measured["z_above"] = z_above(points)
        if output_file:
            save_metrics(metrics, output_file)
        if state.is_main_process:
            report_frontier(points, frontier_args)

    # 7. Beside other models.
    if state.is_main_process and compared:
        ranked = rate_distortion_points({model_args.model_name_or_path: metrics, **compared})
        print(f"\n{rate_distortion_table(ranked)}")
        if evaluation_args.plot_file:
            Path(evaluation_args.plot_file).parent.mkdir(parents=True, exist_ok=True)
            plot_rate_distortion(ranked, evaluation_args.plot_file)
    state.wait_for_everyone()
    return metrics
