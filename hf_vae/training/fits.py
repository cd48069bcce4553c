"""
The stages after a training, each with a Trainer of its own that leaves the decoder as it is: q fitted to the finished decoder, and
p(z|x) fitted to the finished q.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..calls import call_with
from ..compat import ACTIVATION_CHECKPOINTING
from ..objective import kl_divergence, loss_per_token
from ..processing_vae import VAEProcessor
from .collator import VAEDataCollator
from .divergence import StopOnDivergenceCallback
from .learning_rates import two_rates
from .loss_parts import find_model
from .resuming import train_stage
from .stages import held, stage_arguments


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


class _RateAlone(_AsEvaluated):
    """Its loss is KL(q(z|x,y) ‖ p(z|x)) alone, for which nothing is decoded."""

    def forward(self, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None, **inputs):
        vae = cast(Any, self.model)
        source = call_with(vae.read_source, inputs)
        with torch.no_grad():
            posterior = call_with(vae.encode, inputs, source=source).latent_dist
        prior = vae.prior(source, len(labels)).latent_dist
        return {"loss": loss_per_token(kl_divergence(posterior, prior).sum(-1), labels, num_items_in_batch)}


def fit_posterior(
    model: Any,
    processor: VAEProcessor,
    training_args: TrainingArguments,
    max_steps: int,
    train: Dataset,
    callbacks: Sequence[TrainerCallback] = (),
    new_weights_learning_rate: float | None = None,
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
        new_weights_learning_rate (`float`, *optional*): as [`two_rates`] takes it.

    Raises:
        ValueError: the objective is `"gsnn"`, which has no q.
        FloatingPointError: the training diverges.
    """
    vae: Any = find_model(model)
    if not vae.config.has_posterior:
        raise ValueError("A posterior cannot be fitted with `objective='gsnn'`: nothing is drawn from it.")
    run = (processor, training_args, max_steps, train, callbacks, new_weights_learning_rate)
    _fit(_AsEvaluated(model), vae.inference_modules, "posterior_fit", *run)


def fit_conditional_prior(
    model: Any,
    processor: VAEProcessor,
    training_args: TrainingArguments,
    max_steps: int,
    train: Dataset,
    callbacks: Sequence[TrainerCallback] = (),
    new_weights_learning_rate: float | None = None,
) -> None:
    r"""
    Puts p(z|x) in the place of N(0, I) and trains it to minimise \(\mathrm{KL}(q(z|x,y) \,\|\, p(z|x))\), by the run's other
    settings; q and the decoder stay as they are.

    A p(z|x) that is trained with q may come so close to it that z tells nothing of y. With N(0, I) batch norm of q's means can keep
    them apart, but then z is drawn without regard to x, and may ask for words that do not go with it. So z is learned with N(0, I),
    and afterwards the prior learns from q where in z the targets of such an x lie. The KL becomes smaller by what x tells of z, and
    so the bounds become tighter.

    Args:
        model ([`ConditionalVAEModel`]): with `prior_type="standard"`, which becomes `"conditional"`. Left in evaluation mode.
        processor, training_args, max_steps, train, callbacks, new_weights_learning_rate: as in [`fit_posterior`].

    Raises:
        ValueError: the model has another prior, or no x.
        FloatingPointError: the training diverges.
    """
    if not model.config.is_conditional:
        raise ValueError(f"`model` is a {type(model).__name__}, which has no x for p(z|x): fit a mixture with `fit_prior`.")
    if not model.config.has_posterior:
        raise ValueError("A prior cannot be fitted to q with `objective='gsnn'`: there is none.")
    # A resumed run begins with the same weights.
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would leave accelerators with another seed.
        torch.default_generator.manual_seed(training_args.seed)
        model.add_prior_network()
    run = (processor, training_args, max_steps, train, callbacks, new_weights_learning_rate)
    _fit(_RateAlone(model), [model.prior_network], "prior_fit", *run)


def _fit(
    wrapped: _AsEvaluated,
    modules: Sequence[nn.Module],
    name: str,
    processor: VAEProcessor,
    training_args: TrainingArguments,
    max_steps: int,
    train: Dataset,
    callbacks: Sequence[TrainerCallback],
    new_weights_learning_rate: float | None,
) -> None:
    """Trains these `modules` of the model alone, in the stage of this name, and leaves it in evaluation mode."""
    own = {id(parameter) for module in modules for parameter in module.parameters()}
    settings = replace(
        stage_arguments(training_args, name, max_steps),
        # Below 1 they are a share of the steps.
        warmup_steps=min(training_args.get_warmup_steps(max_steps), max_steps // 10),
        # The wrapper's `forward` names no columns, and checkpointing works in training mode only.
        remove_unused_columns=False,
        **cast(Any, {ACTIVATION_CHECKPOINTING: False}),
    )
    with held(parameter for parameter in wrapped.parameters() if id(parameter) not in own):
        trainer = Trainer(
            wrapped,
            settings,
            processing_class=processor,
            train_dataset=train,
            data_collator=cast(Any, VAEDataCollator(processor)),
            optimizers=two_rates(wrapped.model, settings, new_weights_learning_rate),
            callbacks=[StopOnDivergenceCallback(), *callbacks],
        )
        train_stage(trainer, wrapped.model, resume=training_args.resume_from_checkpoint is not None)
    wrapped.model.eval()


__all__ = ["fit_conditional_prior", "fit_posterior"]
