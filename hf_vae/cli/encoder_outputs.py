"""A frozen encoder's outputs in a command's training: encoded by the main process, read by all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import TrainingArguments

from ..options.model import ModelArguments
from ..processing_vae import VAEProcessor
from ..training.encoder_cache import cache_encoder_outputs
from .progress import say


@contextmanager
def encoder_outputs(
    model: Any,
    processor: VAEProcessor,
    model_args: ModelArguments,
    training_args: TrainingArguments,
    tokenized: Mapping[str, Dataset | IterableDataset],
) -> Iterator[None]:
    """
    Inside, `model` reads the outputs of its encoder from the folder that `--cache_encoder` names. Without the option nothing
    changes.

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one. With the option it is moved to the device of
            `training_args`, as the Trainer would.
        processor ([`VAEProcessor`]): its processor.
        model_args, training_args: the run's.
        tokenized (`dict[str, Dataset]`): `train`, and `validation`, which is encoded too if the run evaluates.

    Raises:
        OSError, ValueError: as [`cache_encoder_outputs`].
    """
    folder = model_args.cache_encoder
    if folder is None:
        yield
        return
    if not getattr(model, "hf_device_map", None):
        model.to(training_args.device)
    splits = ("train", "validation") if training_args.do_eval and "validation" in tokenized else ("train",)
    state = PartialState()
    with state.main_process_first():
        # The others find all of it there.
        datasets = [tokenized[split] for split in splits] if state.is_main_process else []
        outputs = cache_encoder_outputs(
            model,
            processor,
            datasets,
            folder,
            batch_size=training_args.per_device_eval_batch_size,
            for_prior_fit=model_args.is_conditional and bool(model_args.prior_fit_steps),
        )
    say(f"The encoder's outputs are read from {folder}: {len(outputs):,} of them, {outputs.num_bytes / 2**20:,.1f} MiB.")
    with outputs:
        yield
    say(f"Of {outputs.hits + outputs.misses:,} texts that were to be encoded, {outputs.hits:,} were read from {folder}.")
