"""
Quality and diversity of several outputs for each source, each metric with its 95 % interval over sources.

A corpus score is made of sums over the sources: of n-grams found, wanted and shared. These are counted once for each output, and a
resample of the sources adds them up anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.helpers import extract_all_char_ngrams

from ..checks import check_count
from .text_metrics import bleu_metric, check_outputs, distinct_share, mean_self_bleu
from .words import split_words

# Those of chrF2, as sacrebleu has them.
CHRF_ORDER, CHRF_BETA = 6, 2


class Estimate(NamedTuple):
    """
    Args:
        value (`float`): the metric of all sources.
        low, high (`float`): the bounds of its 95 % interval.
    """

    value: float
    low: float
    high: float


def bootstrapped_metrics(
    outputs: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    tokenize: str | None = None,
    of_sources: Mapping[str, Sequence[float]] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """
    Those of [`reference_metrics`] that a picture of quality against diversity needs, with intervals: the 2.5th and the 97.5th
    percentile over resamples of the sources. For the same number of sources the same seed draws the same resamples.

    Args:
        outputs (`list[list[str]]`): equally many outputs for each source, two at least.
        references (`list[list[str]]`): one or more references for each source.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, for texts without spaces between words.
        of_sources (`dict[str, list[float]]`, *optional*): further metrics that are means over sources, by name their value for
            each source.
        num_resamples (`int`, defaults to 1000): how often the sources are drawn anew, with replacement.
        seed (`int`, defaults to 0): of these draws.

    Returns:
        By name an [`Estimate`]: `bleu`, `best_bleu`, `chrf`, `best_chrf`, `self_bleu`, `distinct_2`, and what `of_sources` names.

    Raises:
        ValueError: as [`reference_metrics`]; or fewer than two outputs for a source.
    """
    scores = _resampled(outputs, references, tokenize, of_sources or {}, num_resamples, seed)
    return {name: _estimate(each) for name, each in scores.items()}


def bootstrapped_differences(
    outputs: Sequence[Sequence[str]],
    baseline: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    tokenize: str | None = None,
    of_sources: Mapping[str, Sequence[float]] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """
    By how much each metric of `outputs` is above that of `baseline`, for the same sources. Both are taken of the same resamples, so
    that an easy source makes no difference: the interval is much narrower than the two metrics' own.

    Args:
        outputs, baseline (`list[list[str]]`): of each source, two outputs at least and equally many for each.
        references (`list[list[str]]`): one or more references for each source.
        of_sources (`dict[str, list[float]]`, *optional*): further metrics that are means over sources, by name the difference for
            each source.
        tokenize, num_resamples, seed: as of [`bootstrapped_metrics`].

    Returns:
        By name an [`Estimate`] of the difference, of the metrics that [`bootstrapped_metrics`] has.

    Raises:
        ValueError: as [`bootstrapped_metrics`], for either of the two.
    """
    ours = _resampled(outputs, references, tokenize, of_sources or {}, num_resamples, seed)
    theirs = _resampled(baseline, references, tokenize, {}, num_resamples, seed, "baseline")
    return {name: _estimate(each - theirs[name] if name in theirs else each) for name, each in ours.items()}


def _estimate(scores: np.ndarray) -> Estimate:
    """Of the metric of all sources, and behind it those of the resamples."""
    return Estimate(*map(float, (scores[0], *np.quantile(scores[1:], (0.025, 0.975)))))


def _resampled(
    outputs: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    tokenize: str | None,
    of_sources: Mapping[str, Sequence[float]],
    num_resamples: int,
    seed: int,
    name: str = "outputs",
) -> dict[str, np.ndarray]:
    """
    By name the metric of all sources, and behind it those of the resamples, `(1 + num_resamples,)`. The caller calls these outputs
    `name`.
    """
    check_outputs(outputs, references, tokenize, name)
    check_count("num_resamples", num_resamples)
    if len(outputs[0]) < 2:
        raise ValueError(f"`{name}` has one text for each source, and how much they differ takes two: give more for each.")
    size = len(outputs)
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=num_resamples)
    # How often each source counts: in the first row once, in the others as often as it was drawn.
    counts = np.concatenate([np.ones((1, size)), drawn])
    bleu = _bleu_scores(_sums(counts, [_bleu_counts(*each, tokenize) for each in zip(outputs, references)]))
    chrf = _chrf_scores(_sums(counts, [_chrf_counts(*each) for each in zip(outputs, references)]))
    means = {
        "self_bleu": [mean_self_bleu([texts], tokenize) for texts in outputs],
        "distinct_2": [distinct_share([split_words(text.lower(), tokenize) for text in texts], 2) for texts in outputs],
        **of_sources,
    }
    return {
        "bleu": bleu[:, 1:].mean(1),
        "best_bleu": bleu[:, 0],
        "chrf": chrf[:, 1:].mean(1),
        "best_chrf": chrf[:, 0],
        **{name: counts @ np.asarray(values) / size for name, values in means.items()},
    }


def _sums(counts: np.ndarray, of_sources: Sequence[np.ndarray]) -> np.ndarray:
    """`(resamples, …)`: what there is of each source, `(sources, …)`, as often as the source counts."""
    return np.tensordot(counts, np.stack(of_sources), axes=1)


def _best_first(counts: np.ndarray, scores: Sequence[float]) -> np.ndarray:
    """`counts` of a source's outputs, and in front of them once more those of the output whose score is highest."""
    return np.concatenate([counts[[int(np.argmax(scores))]], counts])


def _bleu_counts(texts: Sequence[str], references: Sequence[str], tokenize: str | None) -> np.ndarray:
    """Of a source's best output and of each, `(1 + outputs, 10)`: its words, the reference's, n-grams shared, its n-grams."""
    metric = bleu_metric(tokenize, [references])
    by_text = {text: metric.corpus_score([text], None) for text in dict.fromkeys(texts)}
    scores = [by_text[text] for text in texts]
    counts = np.array([[each.sys_len, each.ref_len, *each.counts, *each.totals] for each in scores], dtype=float)
    return _best_first(counts, [each.score for each in scores])


def _bleu_scores(sums: np.ndarray) -> np.ndarray:
    """BLEU of sums of `_bleu_counts`, of shape `(…, 10)`."""
    metric = bleu_metric(None)
    how = {name: getattr(metric, name) for name in ("smooth_method", "smooth_value", "effective_order")}

    def score(words: int, wanted: int, *grams: int) -> float:
        return metric.compute_bleu(list(grams[:4]), list(grams[4:]), words, wanted, **how).score

    rows = sums.reshape(-1, sums.shape[-1]).astype(int).tolist()
    return np.array([score(*row) for row in rows]).reshape(sums.shape[:-1])


def _chrf_counts(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """
    Of a source's best output and of each, `(1 + outputs, orders, 3)`: its n-grams of letters, those of the reference that suits it
    best, and those that both have.
    """
    wanted = [extract_all_char_ngrams(text.lower(), CHRF_ORDER) for text in references]
    by_text = {}
    for text in dict.fromkeys(texts):
        own = extract_all_char_ngrams(text.lower(), CHRF_ORDER)
        # An output's n-grams do not count if the reference is too short to have any.
        pairs = [[(its.total() if ref else 0, ref.total(), (its & ref).total()) for its, ref in zip(own, each)] for each in wanted]
        counts = np.array(pairs, dtype=float)
        by_text[text] = counts[np.argmax(_chrf_scores(counts))]
    of_texts = np.stack([by_text[text] for text in texts])
    return _best_first(of_texts, _chrf_scores(of_texts).tolist())


def _chrf_scores(sums: np.ndarray) -> np.ndarray:
    """chrF2 of sums of `_chrf_counts`, of shape `(…, orders, 3)`: the orders that occur on both sides count."""
    own, wanted, shared = np.moveaxis(sums, -1, 0)
    occurs = (own > 0) & (wanted > 0)
    orders = np.maximum(occurs.sum(-1), 1)
    precision, recall = (np.divide(shared, of, out=np.zeros_like(shared), where=occurs).sum(-1) / orders for of in (own, wanted))
    weighted = CHRF_BETA**2 * precision + recall
    return 100 * (1 + CHRF_BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1)
