"""A prior fitted to where the encoder puts its codes."""

from __future__ import annotations

from numbers import Integral

import torch

from ..gaussian import DiagonalGaussian
from ..modeling_vae import VAEModel
from ..prior import GaussianMixturePrior
from ..processing_vae import VAEProcessor, as_list
from .codes import TextsOrLatents, as_latents


def fit_prior(
    model: VAEModel,
    processor: VAEProcessor,
    texts: TextsOrLatents,
    num_components: int = 10,
    seed: int = 0,
    batch_size: int = 64,
) -> GaussianMixturePrior:
    """
    A mixture of diagonal Gaussians fitted by EM (scikit-learn's `GaussianMixture`) to the posterior means of `texts`: ex-post
    density estimation (Ghosh et al. 2020, section 4). The model does not change.

    It is fitted to the means alone, as in the paper: its draws are where the decoder has the sharpest codes, and it is narrower
    than the aggregate posterior q(z), which adds every posterior's own variance.

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        texts (`list[str]` or `torch.Tensor` of shape `(texts, latent_size)`): the training texts, or their posterior means; a
            conditional model takes those (from [`encode_texts`]).
        num_components (`int`, defaults to 10): Gaussians in the mixture.
        seed (`int`, defaults to 0): of EM's start.
        batch_size (`int`, defaults to 64): texts at once.

    Returns:
        [`GaussianMixturePrior`], on the CPU.

    Raises:
        ValueError: fewer than two texts, `num_components` below 1 or above their number, or texts or means that [`encode_texts`]
            refuses or that are not finite.
    """
    # A text, or a mean, may come alone: one row, whatever its length.
    rows = torch.atleast_2d(texts) if isinstance(texts, torch.Tensor) else as_list("texts", texts)
    if len(rows) < 2:
        raise ValueError(f"`texts` holds {len(rows)}; a mixture is fitted to two or more texts, or their posterior means.")
    if not isinstance(num_components, Integral) or not 1 <= num_components <= len(rows):
        raise ValueError(f"`num_components` is {num_components!r}; it must be from 1 to the number of texts, {len(rows)}.")
    means = as_latents(model, processor, "texts", rows, batch_size)
    # Here, because importing scikit-learn takes long.
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(num_components, covariance_type="diag", random_state=seed).fit(means.double().numpy())
    return GaussianMixturePrior.from_components(
        torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_), torch.from_numpy(mixture.covariances_).log()
    )


def prior_log_densities(
    model: VAEModel,
    processor: VAEProcessor,
    prior: GaussianMixturePrior,
    texts: TextsOrLatents,
    batch_size: int = 64,
) -> dict[str, float]:
    """
    How well a fitted prior covers the codes of texts that it was not fitted to, against N(0, I).

    Args:
        prior ([`GaussianMixturePrior`]): from [`fit_prior`].
        texts (`list[str]` or `torch.Tensor` of shape `(texts, latent_size)`): held-out texts or their posterior means.

    Returns:
        `fitted` and `standard`: mean log density of the posterior means under the mixture and under N(0, I), nats per text. Means
        are narrower than the aggregate posterior, which has each posterior's own spread besides: `fitted` above `standard` does not
        by itself say that z has left N(0, I).

    Raises:
        ValueError: a prior of another latent size, or texts that [`encode_texts`] refuses.
    """
    means = as_latents(model, processor, "texts", texts, batch_size).to(prior.means.device)
    standard = DiagonalGaussian.standard(len(means), means.shape[1], means.device).log_prob(means)
    return {"fitted": prior.log_prob(means).mean().item(), "standard": standard.mean().item()}


__all__ = ["fit_prior", "prior_log_densities"]
