"""Masked-language-model training of an encoder that starts from nothing."""

from __future__ import annotations

from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from .arguments import stage_arguments


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
        training_args (`TrainingArguments`): the run's.
        max_steps (`int`): optimiser steps.
        train (`Dataset`): with a column `input_ids` in the encoder's vocabulary.
        mlm_probability (`float`, defaults to 0.15): share of the tokens to predict.

    Raises:
        ValueError: no masked-language model exists for the encoder, its tokenizer has no mask token, or it is frozen.
    """
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(
            "The encoder is frozen, so nothing of it would be pre-trained: adapters (`--lora`) keep it as it is. Leave "
            "`--encoder_pretraining_steps` out."
        )
    if tokenizer.mask_token is None:
        raise ValueError("The encoder's tokenizer has no mask token, so there is nothing to hide words with.")
    try:
        masked_lm = AutoModelForMaskedLM.from_config(encoder.config)
    except ValueError as error:
        raise ValueError(f"The encoder {type(encoder).__name__} has no masked-language model to pre-train it as.") from error
    # Around the very encoder, so that it is what is trained; the head on top is thrown away.
    setattr(masked_lm, masked_lm.base_model_prefix, encoder)
    masked_lm.tie_weights()
    settings = stage_arguments(training_args, "encoder_pretraining", max_steps)
    Trainer(
        masked_lm,
        settings,
        processing_class=tokenizer,
        train_dataset=train.select_columns(["input_ids"]),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=mlm_probability),
    ).train()
