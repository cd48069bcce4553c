"""
The stages before and beside a training, each with a Trainer of its own: the model without a latent, and the encoder as a masked
language model. What follows a training is in `fits`.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..checks import next_seed
from ..options.techniques import STAGE_STEPS, StageArguments
from ..processing_vae import VAEProcessor
from .checkpoints import STAGES
from .collator import VAEDataCollator
from .divergence import StopOnDivergenceCallback
from .learning_rates import two_rates
from .loss_parts import find_model
from .resuming import train_stage
from .techniques import register_technique


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


@contextmanager
def held(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """While it is open, these `parameters` get no gradient. Those that got none before get none afterwards either."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


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
    new_weights_learning_rate: float | None = None,
) -> None:
    """
    Trains p(y|x, z = 0) by the run's other settings, and the bag of words if the model has one: it then knows how frequent words
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
        new_weights_learning_rate (`float`, *optional*): as [`two_rates`] takes it.

    Raises:
        FloatingPointError: the training diverges.
    """
    settings = stage_arguments(training_args, name, max_steps)
    vae: Any = find_model(model)
    # What only q reads stays out. `input_ids` stay in: not all models read them, but the Trainer groups rows by their length.
    read = [name for name in inspect.signature(vae.forward).parameters if not name.startswith("posterior_")]
    data = train.select_columns([column for column in train.column_names if column in read])
    # What only q and the prior use gets no gradient, which distributed training would stumble over.
    with held(parameter for module in vae.latent_modules for parameter in module.parameters()):
        trainer = Trainer(
            model,
            settings,
            processing_class=processor,
            train_dataset=data,
            data_collator=LatentFreeCollator(processor, latent_size=model.config.total_latent_size),
            optimizers=two_rates(model, settings, new_weights_learning_rate),
            callbacks=[StopOnDivergenceCallback(), *callbacks],
        )
        train_stage(trainer, model, resume=training_args.resume_from_checkpoint is not None)


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
    callbacks: Sequence[TrainerCallback] = (),
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
        callbacks (`Sequence[TrainerCallback]`): for this Trainer.

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
        callbacks=[StopOnDivergenceCallback(), *callbacks],
    )
    train_stage(trainer, masked_lm, resume=training_args.resume_from_checkpoint is not None)


def on_other_batches(
    training_args: TrainingArguments, train: Dataset | IterableDataset, steps: int
) -> tuple[TrainingArguments, Dataset | IterableDataset]:
    """
    The settings for training a decoder that is held afterwards, and the data on which z is then learned around it. With one seed
    for both, z would meet the decoder on the very batches that it has just learned, where it needs z least.

    Args:
        training_args (`TrainingArguments`): the run's.
        train: tokenised. No seed changes the order of a stream, or of rows that are read as they come, so there z gets the rows
            after the decoder's. If the decoder has read all rows, z begins where the decoder ended.
        steps (`int`): the decoder's.
    """
    rows = steps * training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size
    if isinstance(train, IterableDataset):
        return training_args, train.skip(rows)
    if training_args.train_sampling_strategy == "sequential":
        first = rows % len(train)
        return training_args, train.select([*range(first, len(train)), *range(first)])
    # The order of the rows has a seed of its own, if one is given.
    data_seed = None if training_args.data_seed is None else next_seed(training_args.data_seed)
    return replace(training_args, seed=next_seed(training_args.seed), data_seed=data_seed), train


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


def check_stages(args: Any, training_args: TrainingArguments) -> None:
    for name in STAGE_STEPS:
        if getattr(args, name) < 0:
            raise ValueError(f"`--{name}` is {getattr(args, name)}; it must be at least 0.")
    if args.encoder_pretraining_steps and args.freeze_encoder:
        raise ValueError("`--encoder_pretraining_steps` trains the encoder, which `--freeze_encoder` keeps as it is.")
    # What reads a source that is no prompt is new, and learns beside a decoder that is held.
    learns_to_read = args.is_conditional and args.source_conditioning != "prompt"
    if args.latent_free_steps and args.freeze_decoder and not args.lora and not learns_to_read:
        raise ValueError(
            "`--latent_free_steps` trains the decoder, which `--freeze_decoder` keeps as it is: set `--latent_free_steps 0`, or "
            "leave `--freeze_decoder` out."
        )
    if args.freeze_decoder_with_latent and not args.latent_free_steps:
        raise ValueError(
            "`--freeze_decoder_with_latent` keeps the decoder that the steps without z have trained: add `--latent_free_steps`, or "
            "keep the decoder as you load it with `--freeze_decoder`."
        )
    if args.decoder_fit_steps and ((args.freeze_decoder and not args.lora) or args.freeze_decoder_with_latent):
        frozen = "--freeze_decoder" if args.freeze_decoder else "--freeze_decoder_with_latent"
        raise ValueError(f"`--decoder_fit_steps` trains the decoder, which `{frozen}` keeps as it is: leave one of them out.")
    if args.soft_token_fit_steps and "prefix" not in args.latent_injection:
        raise ValueError(
            f"`--soft_token_fit_steps` trains the soft tokens of prefix, and `--latent_injection` is "
            f"{' '.join(args.latent_injection)}: add prefix to it, or leave the steps out."
        )
    of_q = (("soft_token_fit_steps", "q and soft tokens"), ("decoder_fit_steps", "on z of q"), ("posterior_fit_steps", "q"))
    for name, fitted in (*of_q, ("prior_fit_steps", "p(z|x) on what q says")):
        if getattr(args, name) and not args.has_posterior:
            raise ValueError(f"`--{name}` trains {fitted}, and `--objective gsnn` does without q; leave one of them out.")
    if not args.prior_fit_steps:
        return
    if not args.is_conditional:
        raise ValueError("`--prior_fit_steps` trains p(z|x), and a VAE of sentences has no x: leave it out.")
    if args.prior_type != "standard":
        raise ValueError(
            f"`--prior_fit_steps` puts p(z|x) in the place of N(0, I), and `--prior_type` is {args.prior_type!r}: set that to "
            "standard, or leave the steps out."
        )
    if args.lora:
        raise ValueError(
            "`--prior_fit_steps` adds p(z|x) to the model after the training, and a saved adapter would lack it: leave `--lora` or "
            "`--prior_fit_steps` out."
        )
    if args.pooling == "pooler" and not args.tie_encoders:
        raise ValueError(
            "`--prior_fit_steps` reads the source with an encoder that nobody has used before, and `--pooling pooler` needs its "
            "pooler: choose `--pooling mean`, or `--tie_encoders true`."
        )


register_technique(StageArguments, check=check_stages)
