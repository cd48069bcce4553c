"""Likelihood bounds and text metrics."""

from .generation import generate_texts
from .likelihood import LikelihoodEvaluator, importance_weighted_nll, likelihood_metrics
from .text_metrics import bleu, chrf, distinct, paraphrase_metrics, self_bleu

__all__ = [
    "LikelihoodEvaluator",
    "bleu",
    "chrf",
    "distinct",
    "generate_texts",
    "importance_weighted_nll",
    "likelihood_metrics",
    "paraphrase_metrics",
    "self_bleu",
]
