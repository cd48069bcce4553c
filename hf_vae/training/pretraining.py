"""Masked-language-model training of an encoder that starts from nothing."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from datasets import Dataset
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from .arguments import stage_arguments
from .divergence import StopOnDivergenceCallback
from .stages import train_stage


@dataclass
class _MaskedWords(DataCollatorForLanguageModeling):
    """
    Hides words by the seed and the batch, whatever was drawn before: batches are made ahead of the step that reads them, so a
    resumed run would hide others.
    """

    # Not the collator's own `seed`, whose generator goes on from batch to batch.
    run_seed: int = 0

    def __call__(self, features, return_tensors=None):
        drawn_from = zlib.crc32(str([list(row["input_ids"]) for row in features]).encode(), self.run_seed)
        self.generator = torch.Generator().manual_seed(drawn_from)
        return super().__call__(features, return_tensors)


def pretrain_encoder(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training_args: TrainingArguments,
    max_steps: int,
    train: Dataset,
    mlm_probability: float = 0.15,
) -> None:
    """
    Trains an encoder in place to predict masked words (Devlin et al. 2019), by the run's other settings.

    Args:
        encoder (`PreTrainedModel`): the encoder inside a model of ours.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer, with a mask token.
        training_args (`TrainingArguments`): the run's. With `resume_from_checkpoint` the stage goes on from its own last
            checkpoint, if it has one.
        max_steps (`int`): optimiser steps.
        train (`Dataset`): with a column `input_ids` in the encoder's vocabulary.
        mlm_probability (`float`, defaults to 0.15): share of the tokens to predict.

    Raises:
        ValueError: no masked-language model exists for the encoder, its tokenizer has no mask token, or it is frozen.
        FloatingPointError: the training diverges.
    """
    check_pretraining(encoder, tokenizer)
    masked_lm = AutoModelForMaskedLM.from_config(encoder.config)
    # Around the very encoder, so that it is what is trained; the head on top is thrown away.
    setattr(masked_lm, masked_lm.base_model_prefix, encoder)
    masked_lm.tie_weights()
    settings = stage_arguments(training_args, "encoder_pretraining", max_steps)
    trainer = Trainer(
        masked_lm,
        settings,
        processing_class=tokenizer,
        train_dataset=train.select_columns(["input_ids"]),
        data_collator=_MaskedWords(tokenizer, mlm_probability=mlm_probability, run_seed=settings.seed),
        callbacks=[StopOnDivergenceCallback()],
    )
    train_stage(trainer, masked_lm, resume=training_args.resume_from_checkpoint is not None)


def check_pretraining(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        ValueError: as [`pretrain_encoder`].
    """
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(
            "The encoder is frozen, so nothing of it would be pre-trained: adapters (`--lora`) keep it as it is. Leave "
            "`--encoder_pretraining_steps` out."
        )
    if tokenizer.mask_token is None:
        raise ValueError("The encoder's tokenizer has no mask token, so there is nothing to hide words with.")
    if type(encoder.config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(f"The encoder {type(encoder).__name__} has no masked-language model to pre-train it as.")
