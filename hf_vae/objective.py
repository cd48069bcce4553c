r"""
The negative ELBO and what training does to it. Every term is in nats per sentence, of shape `(batch,)`:

\(-\mathrm{ELBO} = -\log p(y|x,z) + \mathrm{KL}(q(z|x,y) \,\|\, p(z|x)),\quad z \sim q\).

The loss is the sum over the batch, divided once by the number of target tokens of the whole accumulated batch. The KL that is
reported is never changed; free bits, a capacity and the KL's weight change only what training charges for it.
"""

import torch

from .configuration_vae import VAEConfig
from .latent_distribution import LatentDistribution


def kl_divergence(posterior: LatentDistribution, prior: LatentDistribution, latents: torch.Tensor | None = None) -> torch.Tensor:
    """
    KL(q ‖ p) in closed form if there is one, `(batch, latent_size)` by dimension or `(batch, 1)`; else the estimate of one sample,
    log q(z) - log p(z), `(batch, 1)`, which is unbiased and may be negative. The sample is `latents`, or a new one from q; of
    `latents` of shape `(batch, samples, latent_size)` it is the mean.
    """
    closed_form = posterior.kl(prior)
    if closed_form is not None:
        return closed_form
    latents = posterior.sample() if latents is None else latents
    log_ratio = posterior.log_prob(latents) - prior.log_prob(latents)
    return log_ratio.view(len(log_ratio), -1).mean(1, keepdim=True)


def free_bits_total(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """
    max(KL, `nats`) per sentence: below the threshold the KL costs nothing and gets no gradient (Kingma et al. 2016). Of an estimate
    of one sample this is on average more than of the KL itself, the more so the more of the estimates are below the threshold.

    Args:
        kl (`torch.Tensor` of shape `(batch, total_latent_size)`): KL per example and dimension, nats.

    Returns:
        `torch.Tensor` of shape `(batch,)`, nats per sentence, for the loss only; report `kl.sum(-1)`.
    """
    return kl.sum(-1).clamp(min=nats)


def free_bits_per_dimension(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """Sum over dimensions of max(KL_i, `nats`) per sentence (Li et al. 2020, equation 9); shapes as in `free_bits_total`."""
    return kl.clamp(min=nats).sum(-1)


def kl_per_vector(kl: torch.Tensor, num_latents: int) -> torch.Tensor:
    """
    The KL by dimension, `(batch, total_latent_size)`, as that of each of `num_latents` vectors, `(batch, num_latents)`. Free bits
    of each are Li et al.'s with a vector in the place of a dimension: no vector is silent because another one speaks.
    """
    return kl.unflatten(-1, (num_latents, -1)).sum(-1)


def free_bits_per_dimension_of_batch(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """
    Sum over dimensions of max(mean of KL_i over the batch, `nats`), the same for every row (Kingma et al. 2016, appendix C.8). The
    batch is the micro-batch of one process. Shapes as in `free_bits_total`.
    """
    return kl.mean(0).clamp(min=nats).sum().expand(len(kl))


def distance_to_capacity(kl: torch.Tensor, nats: float) -> torch.Tensor:
    """
    |KL - `nats`| of the batch's mean KL, the same for every row (Burgess et al. 2018, equation 8): the rate is pulled to a capacity
    from both sides. The batch is the micro-batch of one process. Of estimates of one sample the distance is on average more than
    that of the KL itself. Shapes as in `free_bits_total`.
    """
    return (kl.sum(-1).mean() - nats).abs().expand(len(kl))


# By `config.free_bits_per`.
FREE_BITS = {
    "sentence": free_bits_total,
    "vector": free_bits_per_dimension,
    "dimension": free_bits_per_dimension,
    "batch": free_bits_per_dimension_of_batch,
}


def charged_kl(kl: torch.Tensor, config: VAEConfig) -> torch.Tensor:
    """
    What training charges for a KL of [`kl_divergence`]: `(batch,)`, nats per sentence.

    Raises:
        ValueError: free bits per dimension for a KL that is not a sum over dimensions.
    """
    if config.capacity is not None:
        return distance_to_capacity(kl, config.capacity)
    if not config.free_bits:
        # An estimate of one sample may be below zero, and only as it is, is it right on average.
        return kl.sum(-1)
    if config.free_bits_per != "sentence" and kl.shape[-1] != config.total_latent_size:
        raise ValueError(
            f"`free_bits_per` is {config.free_bits_per!r}, and this KL is not a sum over dimensions: it has no closed form between "
            "these two families, or only one for all dimensions together. Set `free_bits_per='sentence'`."
        )
    if config.free_bits_per == "vector":
        kl = kl_per_vector(kl, config.num_latents)
    return FREE_BITS[config.free_bits_per](kl, config.free_bits)


def hybrid(elbo_objective: torch.Tensor, gsnn_objective: torch.Tensor, alpha: float) -> torch.Tensor:
    r"""\(\alpha\) times the negative ELBO plus \(1-\alpha\) times \(-\log p(y|x,z)\) with z from the prior (Sohn et al. 2015)."""
    return alpha * elbo_objective + (1 - alpha) * gsnn_objective


def loss_per_token(objective: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor:
    """
    The loss: the sum of `objective` `(batch,)`, divided by the target tokens of the whole accumulated batch, or of `labels` if
    nobody has counted those.
    """
    tokens = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
    return objective.sum() / tokens
