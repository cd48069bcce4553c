"""The same model trained without a latent: a baseline of equal size, or a start in which the decoder learns to read its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..processing_vae import VAEProcessor
from .arguments import stage_arguments
from .collator import VAEDataCollator
from .divergence import StopOnDivergenceCallback
from .loss_parts import find_model
from .stages import train_stage

# Columns that a model reads that is given its z. `input_ids` are not read by all, but the Trainer groups rows by their length.
_READ = (
    "input_ids", "attention_mask", "prompt_input_ids", "prompt_attention_mask", "labels", "same_speaker", "meta_categories",
    "meta_values", "act_labels",
)  # fmt: skip


@dataclass
class LatentFreeCollator(VAEDataCollator):
    """Gives every row z = 0, so that the very same model trains without a latent."""

    latent_size: int = 1

    def __call__(self, features):
        batch = super().__call__(features)
        batch["latents"] = torch.zeros(len(features), self.latent_size)
        return batch


def train_without_latent(
    model: Any,
    processor: VAEProcessor,
    training_args: TrainingArguments,
    name: str,
    max_steps: int,
    train: Dataset,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """
    Trains p(y|x, z = 0) by the run's other settings, and the bag of words where the model has one: it then knows how frequent words
    are when z comes. Nothing else.

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one.
        processor ([`VAEProcessor`]): its processor.
        training_args (`TrainingArguments`): the run's. With `resume_from_checkpoint` the stage goes on from its own last
            checkpoint, if it has one.
        name (`str`): of a directory below `stages/` in the run's `output_dir`, for what the Trainer writes.
        max_steps (`int`): optimiser steps; -1 for the run's epochs.
        train (`Dataset`): tokenised by the processor.
        callbacks (`Sequence[TrainerCallback]`): for this Trainer.

    Raises:
        FloatingPointError: the training diverges.
    """
    settings = stage_arguments(training_args, name, max_steps)
    data = train.select_columns([column for column in train.column_names if column in _READ])
    # What only q and the prior use gets no gradient, which distributed training would stumble over.
    vae: Any = find_model(model)
    idle = [parameter for module in vae.latent_modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in idle:
        parameter.requires_grad_(False)
    trainer = Trainer(
        model,
        settings,
        processing_class=processor,
        train_dataset=data,
        data_collator=LatentFreeCollator(processor, latent_size=model.config.latent_size),
        callbacks=[StopOnDivergenceCallback(), *callbacks],
    )
    train_stage(trainer, model, resume=training_args.resume_from_checkpoint is not None)
    for parameter in idle:
        parameter.requires_grad_(True)
