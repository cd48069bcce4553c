"""The posterior fitted to the finished decoder: a last stage that trains q alone on the true ELBO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..compat import ACTIVATION_CHECKPOINTING
from ..processing_vae import VAEProcessor
from .arguments import stage_arguments
from .collator import VAEDataCollator
from .divergence import StopOnDivergenceCallback
from .loss_parts import find_model
from .stages import train_stage


class _AsEvaluated(nn.Module):
    """
    Holds a model in evaluation mode, whatever the Trainer says: there its loss is the true negative ELBO, without dropout. Its
    checkpoints hold what trains alone.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval()

    def train(self, mode: bool = True) -> _AsEvaluated:
        self.training = mode
        return self

    def state_dict(self, *args, **kwargs) -> dict[str, Any]:
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: tensor.contiguous() for name, tensor in super().state_dict(*args, **kwargs).items() if name in trained}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False):
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        # What does not train is in place.
        result.missing_keys.clear()
        return result

    def forward(self, **inputs):
        # cuDNN's recurrent networks have no backward pass in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            return self.model(**inputs, output_logits=False)


def fit_posterior(
    model: Any,
    processor: VAEProcessor,
    training_args: TrainingArguments,
    max_steps: int,
    train: Dataset,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    r"""
    Trains \(q\) to minimise \(\mathrm{KL}(q(z|x,y) \,\|\, p(z|x,y))\) of the decoder as it stands, by the run's other settings.

    Free bits, a KL weight below one and word dropout leave a q that is not the ELBO's: narrower than what the decoder tells apart,
    for nothing was charged for it. The decoder's p(y|x), and all that is generated from the prior, stay as they are; the bounds on
    it become tight (the inference gap of Cremer et al. 2018).

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one; what is frozen in it stays so. Left in evaluation
            mode.
        processor ([`VAEProcessor`]): its processor.
        training_args (`TrainingArguments`): the run's. A tenth of the steps at most warms up. With `resume_from_checkpoint` the
            stage goes on from its own last checkpoint, if it started from the same weights.
        max_steps (`int`): optimiser steps.
        train (`Dataset`): tokenised by the processor.
        callbacks (`Sequence[TrainerCallback]`): for this Trainer.

    Raises:
        ValueError: the objective is `"gsnn"`, which has no q.
        FloatingPointError: the training diverges.
    """
    vae: Any = find_model(model)
    if not vae.config.has_posterior:
        raise ValueError("A posterior cannot be fitted with `objective='gsnn'`: nothing is drawn from it.")
    own = {id(parameter) for module in vae.inference_modules for parameter in module.parameters()}
    frozen = [parameter for parameter in vae.parameters() if parameter.requires_grad and id(parameter) not in own]
    for parameter in frozen:
        parameter.requires_grad_(False)
    settings = replace(
        stage_arguments(training_args, "posterior_fit", max_steps),
        warmup_steps=min(training_args.warmup_steps, max_steps // 10),
        # The wrapper's `forward` names no columns, and checkpointing works in training mode only.
        remove_unused_columns=False,
        **cast(Any, {ACTIVATION_CHECKPOINTING: False}),
    )
    trainer = Trainer(
        _AsEvaluated(model),
        settings,
        processing_class=processor,
        train_dataset=train,
        data_collator=cast(Any, VAEDataCollator(processor)),
        callbacks=[StopOnDivergenceCallback(), *callbacks],
    )
    train_stage(trainer, model, resume=training_args.resume_from_checkpoint is not None)
    for parameter in frozen:
        parameter.requires_grad_(True)
    model.eval()
