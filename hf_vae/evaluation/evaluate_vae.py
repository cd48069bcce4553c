"""Everything that is measured of a VAE, at once."""

from __future__ import annotations

from typing import Any

from ..checks import check_count
from .collapse_report import collapse_report
from .evaluator import LikelihoodEvaluator, check_several
from .information import information_metrics
from .likelihood import likelihood_metrics
from .perplexity import count_tokens_and_words, perplexities
from .reconstruction import reconstruction_at_mean
from .refinement import refine
from .words import check_tokenizer


def evaluate_vae(
    evaluator: LikelihoodEvaluator,
    importance_samples: int = 100,
    seed: int = 0,
    refine_steps: int = 0,
    language_model_nll: float | None = None,
    tokenize: str | None = None,
) -> dict[str, Any]:
    """
    All metrics of a model on a fixed set of examples. q reads each example once, and x is encoded once, within the evaluator's
    `source_memory`.

    Args:
        evaluator ([`LikelihoodEvaluator`]): model, processor and examples; for the VAE the texts are their own targets.
        importance_samples (`int`, defaults to 100): K of the importance-weighted bound.
        seed (`int`, defaults to 0): of all noise.
        refine_steps (`int`, defaults to 0): gradient steps of [`refine`]; 0 leaves it out.
        language_model_nll (`float`, *optional*): nats per sentence of a language model of the same size on the same texts.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, for words and BLEU of texts without spaces between words.

    Returns:
        The metrics of [`likelihood_metrics`], [`perplexities`] with `tokens` and `words`, [`information_metrics`],
        [`reconstruction_at_mean`] and, if asked for, [`refine`] under their own names; `importance_samples`; `unknown_tokens`, the
        share of tokens that are not in the vocabulary; `language_model_nll`, if given; `collapse_report`, of [`collapse_report`] as
        a dictionary, but not with `objective="gsnn"`, which has no q to judge.

    Raises:
        ValueError: fewer than two examples, examples of more tokens than the model holds, no importance samples, or a negative
            number of steps.
    """
    check_count("importance_samples", importance_samples)
    check_count("refine_steps", refine_steps, least=0)
    check_several(len(evaluator))
    check_tokenizer(tokenize)
    evaluator.check_lengths()
    with evaluator.reading_once():
        posterior, prior = evaluator.posterior(), evaluator.prior()
        metrics: dict[str, Any] = likelihood_metrics(evaluator, importance_samples, seed, posterior, prior)
        metrics["importance_samples"] = importance_samples
        metrics["unknown_tokens"] = evaluator.unknown_tokens()
        counts = count_tokens_and_words(evaluator, tokenize)
        metrics.update(counts, **perplexities(metrics, len(evaluator), **counts))
        metrics.update(information_metrics(posterior, prior, seed=seed, examples=evaluator.examples()))
        metrics.update(reconstruction_at_mean(evaluator, posterior).metrics(tokenize))
        if refine_steps:
            metrics.update(refine(evaluator, refine_steps, seed=seed, posterior=posterior, prior=prior).metrics())
    if language_model_nll is not None:
        metrics["language_model_nll"] = language_model_nll
    if evaluator.model.config.has_posterior:
        metrics["collapse_report"] = collapse_report(metrics, language_model_nll).to_dict()
    return metrics
