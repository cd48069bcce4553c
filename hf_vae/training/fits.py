"""
The stages beside a training in which a part of the model is fitted to the others as they stand, each with a Trainer of its own.
Before the training z's soft tokens are fitted to the embeddings of words, and the language model to them. After it q is fitted to
the finished decoder, and p(z|x) to the finished q.
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
from ..fused_linear_cross_entropy import fused_linear_cross_entropy
from ..objective import kl_divergence, loss_per_token
from ..processing_vae import VAEProcessor
from ..resampler import places_in_text
from .collator import VAEDataCollator
from .divergence import StopOnDivergenceCallback
from .learning_rates import two_rates
from .loss_parts import find_model
from .resuming import train_stage
from .stages import held, stage_arguments

# The logit by which a soft token that is a word's embedding is ahead of one that has nothing of it.
SOFT_TOKEN_SCALE = 100.0


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


class DecoderAlone(_AsEvaluated):
    """Its loss is the reconstruction's, of a z from q: the KL does not depend on the decoder."""

    def forward(self, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None, **inputs):
        reconstruction = super().forward(labels=labels, **inputs).reconstruction_loss
        return {"loss": loss_per_token(reconstruction, labels, num_items_in_batch)}


class SoftTokensAlone(_AsEvaluated):
    """Its loss is [`soft_token_nll`] of a z from q, for which nothing is decoded."""

    def forward(self, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None, **inputs):
        vae: Any = find_model(self.model)
        source = call_with(vae.read_source, inputs)
        latents = call_with(vae.encode, inputs, source=source).latent_dist.sample()
        latents, _ = vae.decoder_latents(latents, **call_with(vae.condition, inputs, source=source))
        embeddings = vae.decoder.get_input_embeddings()
        nll = soft_token_nll(vae.decoder.soft_tokens(latents), embeddings, labels)
        return {"loss": loss_per_token(nll, labels, num_items_in_batch)}


def soft_token_nll(soft_tokens: torch.Tensor, embeddings: nn.Embedding, labels: torch.Tensor) -> torch.Tensor:
    r"""
    \(\sum_t -\log \mathrm{softmax}(\sigma E s_{i(t)})_{y_t}\), nats per sentence `(rows,)`: how well soft tokens name the words of
    their share of a text. Of \(k\) of them and \(T\) words the one of word \(t\) is \(i(t)\), as [`places_in_text`] has it, so one
    that has several words names them in any order. \(E\) are the embeddings that the decoder reads, and \(\sigma\) is
    `SOFT_TOKEN_SCALE` through their mean squared length. The embedding of a single word that is like no other is the best that a
    soft token can be.

    Args:
        soft_tokens (`torch.Tensor` of shape `(rows, k, size)`).
        embeddings (`nn.Embedding`): of the decoder. They get no gradient.
        labels (`torch.LongTensor` of shape `(rows, target)`): -100 on padding.
    """
    # On padding a place may be any number.
    places = places_in_text(soft_tokens.shape[1], labels != -100).long().clamp(0, soft_tokens.shape[1] - 1)
    named_by = soft_tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, soft_tokens.shape[-1]))
    with torch.no_grad():
        # As the decoder reads them: some scale what the table holds.
        words = embeddings(torch.arange(embeddings.num_embeddings, device=labels.device))
        scale = SOFT_TOKEN_SCALE / words.float().square().sum(-1).mean()
    head = nn.Linear(words.shape[1], words.shape[0], bias=False, device="meta")
    head.weight = nn.Parameter(words, requires_grad=False)
    return fused_linear_cross_entropy(head, scale * named_by, labels)


def fit_soft_tokens(
    model: Any,
    processor: VAEProcessor,
    training_args: TrainingArguments,
    max_steps: int,
    train: Dataset,
    callbacks: Sequence[TrainerCallback] = (),
    new_weights_learning_rate: float | None = None,
) -> None:
    """
    Trains q and z's soft tokens, without the decoder's layers, until each soft token names the words of its share of the text
    ([`soft_token_nll`]); the decoder stays as it is.

    A pretrained decoder can repeat what stands in front of it, but it has to see words there. Soft tokens that come to resemble
    words by the decoder's loss alone take long, because it hardly looks at them before. Here each learns of its words directly, in
    steps that leave the decoder out.

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one, with `prefix` among its `latent_injection`.
        processor, training_args, max_steps, train, callbacks, new_weights_learning_rate: as in [`fit_posterior`].

    Raises:
        ValueError: the objective is `"gsnn"`, which has no q, or z is no soft tokens.
        FloatingPointError: the training diverges.
    """
    vae = _with_posterior(model, "A soft token")
    if not vae.decoder.prefix_length:
        raise ValueError(
            f"`latent_injection` is {vae.config.latent_injection}, so z has no soft tokens that could be fitted: add 'prefix'."
        )
    trained = [*vae.inference_modules, *(way for way in vae.decoder.injections if way.prefix_length)]
    run = (processor, training_args, max_steps, train, callbacks, new_weights_learning_rate)
    _fit(SoftTokensAlone(model), trained, "soft_token_fit", *run)


def fit_decoder(
    model: Any,
    processor: VAEProcessor,
    training_args: TrainingArguments,
    max_steps: int,
    train: Dataset,
    callbacks: Sequence[TrainerCallback] = (),
    new_weights_learning_rate: float | None = None,
) -> None:
    r"""
    Trains the language model alone on \(E_q[-\log p(y|x,z)]\), with q and z's ways into the decoder as they stand.

    Where q has been fitted by [`fit_soft_tokens`], and all were trained at once from there, a pretrained decoder would change what
    z says before it has learned to read it: its loss is worse with words in front that it does not look for. So it learns to read
    them first.

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one; what is frozen in it stays so, and of adapters in
            the decoder these are what trains.
        processor, training_args, max_steps, train, callbacks, new_weights_learning_rate: as in [`fit_posterior`].

    Raises:
        ValueError: the objective is `"gsnn"`, which has no q.
        FloatingPointError: the training diverges.
    """
    vae = _with_posterior(model, "A decoder")
    run = (processor, training_args, max_steps, train, callbacks, new_weights_learning_rate)
    _fit(DecoderAlone(model), [vae.decoder.lm], "decoder_fit", *run)


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
    vae = _with_posterior(model, "A posterior")
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
    _with_posterior(model, "A prior")
    # A resumed run begins with the same weights.
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would leave accelerators with another seed.
        torch.default_generator.manual_seed(training_args.seed)
        model.add_prior_network()
    run = (processor, training_args, max_steps, train, callbacks, new_weights_learning_rate)
    _fit(_RateAlone(model), [model.prior_network], "prior_fit", *run)


def _with_posterior(model: Any, what: str) -> Any:
    """The model of the family in `model`, which has a q to fit, or to fit to."""
    vae: Any = find_model(model)
    if not vae.config.has_posterior:
        raise ValueError(f"{what} cannot be fitted with `objective='gsnn'`, which has no q that reads y: choose 'cvae'.")
    return vae


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
