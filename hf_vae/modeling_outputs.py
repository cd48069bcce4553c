"""What the models return."""

from dataclasses import dataclass, fields

import torch
from transformers.utils import ModelOutput

from .latent_distribution import LatentDistribution


@dataclass
class LatentOutput(ModelOutput):
    """What `encode` and `prior` return: a distribution over z, one row per example."""

    latent_dist: LatentDistribution


@dataclass
class VAEOutput(ModelOutput):
    """
    Args:
        loss (`torch.Tensor` of shape `()`): the objective, nats per target token (see [`VAEModel.forward`]).
        reconstruction_loss (`torch.Tensor` of shape `(batch,)`): -log p(y|x,z), nats per sentence.
        kl (`torch.Tensor` of shape `(batch,)`): KL(q ‖ p), nats per sentence, never weighted or clamped. Absent if `latents` were
            given.
        bow_loss (`torch.Tensor` of shape `(batch,)`): the bag-of-words loss, nats per sentence, not weighted; with
            `config.bow_loss_weight`.
        posterior_mean, posterior_logvar, prior_mean, prior_logvar (`torch.Tensor` of shape `(batch, latent_size)`): of q and p, if
            they are Gaussians.
        logits (`torch.Tensor` of shape `(batch, target, vocab)`): `logits[:, t]` predicts `labels[:, t]`.
    """

    loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    kl: torch.Tensor | None = None
    bow_loss: torch.Tensor | None = None
    posterior_mean: torch.Tensor | None = None
    posterior_logvar: torch.Tensor | None = None
    prior_mean: torch.Tensor | None = None
    prior_logvar: torch.Tensor | None = None
    logits: torch.Tensor | None = None

    def keep_parameters(self, name: str, distribution: LatentDistribution) -> None:
        """Notes those parameters of `distribution` that have a field here, such as `posterior_mean`."""
        known = {field.name for field in fields(self)}
        for parameter, value in distribution.parameters().items():
            if f"{name}_{parameter}" in known:
                self[f"{name}_{parameter}"] = value


@dataclass
class ConditionalVAEOutput(VAEOutput):
    """
    What conditional models return besides what [`VAEOutput`] has.

    Args:
        prior_reconstruction_loss (`torch.Tensor` of shape `(batch,)`): -log p(y|x,z) with z from the prior, nats per sentence; in
            training with the hybrid objective.
        prior_kl (`torch.Tensor` of shape `(batch,)`): KL(p(z|x) ‖ N(0, I)), nats per sentence, not weighted; in training with
            `config.prior_regularization`.
    """

    prior_reconstruction_loss: torch.Tensor | None = None
    prior_kl: torch.Tensor | None = None


@dataclass
class DialogCVAEOutput(ConditionalVAEOutput):
    """
    What dialogue models with acts return besides what [`ConditionalVAEOutput`] has.

    Args:
        act_loss (`torch.Tensor` of shape `(batch,)`): -log p(a|x,z) of the reply's act, nats per sentence, a part of
            `reconstruction_loss`.
        act_log_probs (`torch.Tensor` of shape `(batch, num_acts)`): log p(·|x,z) of the acts.
    """

    act_loss: torch.Tensor | None = None
    act_log_probs: torch.Tensor | None = None


__all__ = ["ConditionalVAEOutput", "DialogCVAEOutput", "LatentOutput", "VAEOutput"]
