"""
Likelihood bounds, what z says and whether the decoder listens, and text metrics. Metrics in nats are per sentence, and depend
neither on batches nor on the number of processes.
"""

from .bootstrap import Estimate, bootstrapped_differences, bootstrapped_metrics
from .callbacks import CollapseReportCallback
from .collapse_report import CollapseReport, collapse_report
from .compute_metrics import elbo_metrics
from .dialog_acts import ActClassifier
from .dialog_metrics import (
    act_match,
    bow_similarities,
    dialog_metrics,
    dialogwae_bleu,
    multi_reference_bleu,
    reply_distinct,
)
from .embedder import TextEmbedder
from .evaluate_vae import evaluate_vae
from .evaluator import LikelihoodEvaluator
from .frontier import LATENT_CURVES, FrontierPoint, above, baseline_curves, copying, frontier, frontier_table
from .generation import generate_texts
from .importance_sampling import importance_weighted_nll
from .information import active_units, aggregate_log_prob, information_metrics
from .inversion import cosines, inversion_metrics, token_f1
from .language_model import language_model_nll
from .likelihood import conditional_log_likelihoods, likelihood_metrics
from .metrics import METRICS, Metric, known_metrics, metrics_table
from .perplexity import count_tokens_and_words, perplexities
from .rate_distortion import RateDistortionPoint, rate_distortion_points, rate_distortion_table
from .reconstruction import Reconstruction, reconstruction_at_mean, token_accuracy
from .refinement import Refinement, refine
from .text_metrics import bleu, chrf, distinct, paraphrase_metrics, reference_metrics, self_bleu
from .word_vectors import load_word_vectors

__all__ = [
    "LATENT_CURVES",
    "METRICS",
    "ActClassifier",
    "CollapseReport",
    "CollapseReportCallback",
    "Estimate",
    "FrontierPoint",
    "LikelihoodEvaluator",
    "Metric",
    "RateDistortionPoint",
    "Reconstruction",
    "Refinement",
    "TextEmbedder",
    "above",
    "act_match",
    "active_units",
    "aggregate_log_prob",
    "baseline_curves",
    "bleu",
    "bootstrapped_differences",
    "bootstrapped_metrics",
    "bow_similarities",
    "chrf",
    "collapse_report",
    "conditional_log_likelihoods",
    "copying",
    "cosines",
    "count_tokens_and_words",
    "dialog_metrics",
    "dialogwae_bleu",
    "distinct",
    "elbo_metrics",
    "evaluate_vae",
    "frontier",
    "frontier_table",
    "generate_texts",
    "importance_weighted_nll",
    "information_metrics",
    "inversion_metrics",
    "known_metrics",
    "language_model_nll",
    "likelihood_metrics",
    "load_word_vectors",
    "metrics_table",
    "multi_reference_bleu",
    "paraphrase_metrics",
    "perplexities",
    "rate_distortion_points",
    "rate_distortion_table",
    "reconstruction_at_mean",
    "reference_metrics",
    "refine",
    "reply_distinct",
    "self_bleu",
    "token_accuracy",
    "token_f1",
]
