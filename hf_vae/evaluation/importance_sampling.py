"""The importance-weighted bound as a function of the weights alone."""

from __future__ import annotations

import math

import torch


def importance_weighted_nll(log_weights: torch.Tensor) -> torch.Tensor:
    """
    -log 1/K Σ_k w_k, an upper bound on -log p(y|x) that falls with K towards it (Burda et al. 2016, equation 8; with x, Sohn et
    al. 2015, equation 7).

    Args:
        log_weights (`torch.Tensor` of shape `(examples, K)`): log p(y|x,z_k) + log p(z_k|x) - log q(z_k|x,y), z_k from q.

    Returns:
        `torch.Tensor` of shape `(examples,)`, nats per sentence.
    """
    return math.log(log_weights.shape[1]) - torch.logsumexp(log_weights, dim=1)


def standard_error(log_weights: torch.Tensor) -> torch.Tensor:
    """
    Standard error of `importance_weighted_nll` over draws of z, on the very same examples, to first order (delta method): the
    standard deviation of the weights over their mean and √K. It says nothing of the bound's distance from -log p(y|x), and nothing
    if a few weights are all there is.

    Args:
        log_weights (`torch.Tensor` of shape `(examples, K)`).

    Returns:
        `torch.Tensor` of shape `(examples,)`, nats per sentence; infinite for K = 1, which shows no spread.
    """
    if log_weights.shape[1] == 1:
        return torch.full_like(log_weights[:, 0], math.inf)
    shares = log_weights.softmax(dim=1)
    return shares.std(dim=1) * math.sqrt(log_weights.shape[1])


def error_of_mean(errors: torch.Tensor) -> float:
    """Standard error of the mean of independent estimates with these standard errors."""
    return (errors.square().sum().sqrt() / len(errors)).item()
