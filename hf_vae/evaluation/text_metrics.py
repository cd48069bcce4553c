"""
Metrics of generated text: BLEU, chrF, TER and METEOR against references, for the average output and the best of several; how far
the outputs for one source differ. All of it lower-cased; BLEU, chrF and TER by sacrebleu, METEOR by nltk, all four times 100.

`tokenize` is one of sacrebleu's tokenizers by its name (`"zh"`, `"ja-mecab"`, `"ko-mecab"`, `"char"`, `"intl"`, …), and decides
what a word is for all metrics but chrF, which has none. Without it each has its own: BLEU sacrebleu's `13a`, TER and distinct-n
white space, METEOR words and punctuation. Texts of Chinese, Japanese or Thai need one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.ter import TERScore

from ..checks import check_count
from .text_lists import check_equally_many, check_lists, check_texts
from .words import check_tokenizer, split_words, warn_if_spaceless

# Sun & Zhou 2012: the weight of agreeing with the references against that of repeating the source.
IBLEU_ALPHA = 0.8


def _streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """`references[i]`, which may differ in number, as sacrebleu takes them: the first of each row, the second, and so on."""
    most = max(map(len, references))
    return [[row[which] if which < len(row) else None for row in references] for which in range(most)]


def bleu_metric(tokenize: str | None, references: Sequence[Sequence[str]] | None = None) -> BLEU:
    """With `references`, whose n-grams are then counted once, however often [`_score`] asks."""
    streams: Any = None if references is None else _streams(references)
    # `force` only keeps sacrebleu from warning of corpora that are published tokenised.
    return BLEU(lowercase=True, force=True, effective_order=True, tokenize=tokenize, references=streams)


def _chrf(references: Sequence[Sequence[str]]) -> CHRF:
    """As [`bleu_metric`]."""
    streams: Any = _streams(references)
    return CHRF(lowercase=True, references=streams)


def _score(metric: BLEU | CHRF, hypotheses: Sequence[str]) -> float:
    """Of one hypothesis for each row of the references that `metric` was made with."""
    return metric.corpus_score(list(hypotheses), None).score


def _check_list(name: str, texts: Sequence[str]) -> None:
    """Raises a `ValueError` unless it is a list of texts: the letters of a single text would be texts too."""
    if isinstance(texts, str):
        raise ValueError(f"`{name}` is the text {texts!r}: give a list of texts.")
    check_texts("row", name, [[text] for text in texts])


def _check_references(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    _check_list("hypotheses", hypotheses)
    if len(hypotheses) != len(references) or not len(hypotheses):
        raise ValueError(
            f"{len(hypotheses)} `hypotheses` and {len(references)} lists of `references`: they must be as many, and at least one."
        )
    check_lists("row", references=references)
    check_texts("row", "references", references)


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: str | None = None) -> float:
    """
    Corpus BLEU-4 of one hypothesis a row, 0 to 100; if no hypothesis has four words, by the n-grams that they have.

    Raises:
        ValueError: hypotheses and lists of references differ in number, or there is none, or anything but a text among them.
    """
    _check_references(hypotheses, references)
    warn_if_spaceless(_texts(references), tokenize)
    return _score(bleu_metric(tokenize, references), hypotheses)


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF2 of one hypothesis a row, 0 to 100; raises as [`bleu`]."""
    _check_references(hypotheses, references)
    return _score(_chrf(references), hypotheses)


def distinct(texts: Sequence[str], n: int, tokenize: str | None = None) -> float:
    """
    Different n-grams of words among all n-grams of `texts` (Li et al. 2016), 0 to 1; 0 if there are none.

    Raises:
        ValueError: `texts` is no list of texts, or `n` below 1.
    """
    _check_list("texts", texts)
    check_count("n", n)
    warn_if_spaceless(texts, tokenize)
    return distinct_share([split_words(text.lower(), tokenize) for text in texts], n)


def distinct_share(words: Sequence[Sequence[str]], n: int) -> float:
    """[`distinct`] of texts that are split into words."""
    grams = [gram for row in words for gram in zip(*(row[start:] for start in range(n)))]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(outputs: Sequence[Sequence[str]], tokenize: str | None = None) -> float:
    """
    Mean sentence BLEU of each output for a source against the other outputs for it (Zhu et al. 2018), 0 to 100; lower is more
    diverse.

    Raises:
        ValueError: no sources, fewer than two outputs for one, or anything but a text among them.
    """
    if not len(outputs) or any(isinstance(texts, str) or len(texts) < 2 for texts in outputs):
        raise ValueError("`outputs` must be lists of two or more texts, one list for each source: they are compared to each other.")
    check_texts("source", "outputs", outputs)
    warn_if_spaceless(_texts(outputs), tokenize)
    return mean_self_bleu(outputs, tokenize)


def mean_self_bleu(outputs: Sequence[Sequence[str]], tokenize: str | None) -> float:
    """[`self_bleu`] of outputs that were checked."""
    metric = bleu_metric(tokenize)
    scores = [
        metric.sentence_score(text, [other for j, other in enumerate(texts) if j != i]).score
        for texts in outputs
        for i, text in enumerate(texts)
    ]
    return sum(scores) / len(scores)


def _texts(rows: Sequence[Sequence[str]]) -> list[str]:
    return [text for row in rows for text in row]


def _best(
    metric_of: Callable[[list[Sequence[str]]], BLEU | CHRF], outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> list[str]:
    """For each source the output whose score by the metric of its references is highest."""
    best = []
    for texts, refs in zip(outputs, references):
        metric = metric_of([refs])
        best.append(max(texts, key=lambda text: _score(metric, [text])))
    return best


def _ter_scores(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str | None
) -> list[list[TERScore]]:
    """Of each output for each source, its edits and the references' mean length. Equal outputs for a source are scored once."""
    metric = TER()
    scores = []
    for texts, refs in zip(outputs, references):
        spaced = [" ".join(split_words(ref, tokenize)) for ref in refs]
        by_text = {text: metric.sentence_score(" ".join(split_words(text, tokenize)), spaced) for text in dict.fromkeys(texts)}
        scores.append([by_text[text] for text in texts])
    return scores


def _corpus_ter(scores: Sequence[TERScore]) -> float:
    """Of one output a row, from the scores of each: all edits by all words of the references."""
    edits, words = sum(score.num_edits for score in scores), sum(score.ref_length for score in scores)
    return 100 * edits / words if words else 100.0 * bool(edits)


def _meteor(outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str | None) -> dict[str, float]:
    """Of each source's outputs the mean and the best METEOR, averaged over sources. Empty if nltk's WordNet is not at hand."""
    # Here, because importing nltk takes seconds.
    from nltk.corpus import wordnet
    from nltk.tokenize import WordPunctTokenizer
    from nltk.translate.meteor_score import meteor_score

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return {}
    words = WordPunctTokenizer().tokenize if tokenize is None else partial(split_words, tokenize=tokenize)
    average, best = 0.0, 0.0
    for texts, refs in zip(outputs, references):
        wanted = [words(ref) for ref in refs]
        by_text = {text: meteor_score(wanted, words(text), wordnet=wordnet) for text in dict.fromkeys(texts)}
        average += sum(by_text[text] for text in texts) / len(texts)
        best += max(by_text.values())
    return {"meteor": 100 * average / len(outputs), "best_meteor": 100 * best / len(outputs)}


def check_outputs(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str | None, name: str = "outputs"
) -> None:
    """Raises what [`reference_metrics`] raises, of outputs that the caller calls `name`, and warns of texts without spaces."""
    if len(outputs) != len(references) or not len(outputs):
        raise ValueError(
            f"{len(outputs)} lists of {name} and {len(references)} lists of references: they must be as many, and at least one."
        )
    check_lists("source", **{name: outputs, "references": references})
    check_equally_many("source", name, outputs)
    check_texts("source", name, outputs)
    check_texts("source", "references", references)
    check_tokenizer(tokenize)
    warn_if_spaceless(_texts(references), tokenize)


def reference_metrics(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str | None = None
) -> dict[str, float]:
    """
    Quality of several outputs for each source against references, and their diversity.

    Args:
        outputs (`list[list[str]]`): equally many outputs for each source.
        references (`list[list[str]]`): one or more references for each source.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, for texts without spaces between words.

    Returns:
        `bleu`, `chrf`, `ter`: means over the k-th outputs' corpus scores; `best_bleu`, `best_chrf`, `best_ter`: corpus scores of,
        for each source, the output that a sentence's score against the references ranks first; `self_bleu`; `distinct_1`,
        `distinct_2`: mean over sources of the distinct n-grams among a source's outputs. TER counts edits, so lower is better; it
        is the slow one: some milliseconds for an output of a dozen words and four references, and half a second for 60 words that
        come in another order. Where nltk's WordNet data is on the machine, also `meteor` and `best_meteor` (Lavie & Agarwal 2007,
        α 0.9, β 3, γ 0.5): means over sources of the mean and of the largest score of their outputs, each against the reference
        that suits it best. Nothing is downloaded; `python -m nltk.downloader wordnet` does.

    Raises:
        ValueError: outputs and references differ in number, or sources in their number of outputs; a source without outputs or
            references; anything but a text among them; or a tokenizer that there is not.
    """
    check_outputs(outputs, references, tokenize)
    columns = list(zip(*outputs))
    bleu_of = partial(bleu_metric, tokenize)
    all_bleu, all_chrf = bleu_of(references), _chrf(references)
    ter_scores = _ter_scores(outputs, references, tokenize)
    words = [[split_words(text.lower(), tokenize) for text in texts] for texts in outputs]
    return {
        "bleu": fmean(_score(all_bleu, column) for column in columns),
        "best_bleu": _score(all_bleu, _best(bleu_of, outputs, references)),
        "chrf": fmean(_score(all_chrf, column) for column in columns),
        "best_chrf": _score(all_chrf, _best(_chrf, outputs, references)),
        "ter": fmean(_corpus_ter(column) for column in zip(*ter_scores)),
        "best_ter": _corpus_ter([min(scores, key=lambda score: score.num_edits) for scores in ter_scores]),
        "self_bleu": mean_self_bleu(outputs, tokenize) if len(columns) > 1 else 100.0,
        "distinct_1": fmean(distinct_share(texts, 1) for texts in words),
        "distinct_2": fmean(distinct_share(texts, 2) for texts in words),
        **_meteor(outputs, references, tokenize),
    }


def paraphrase_metrics(
    sources: Sequence[str],
    outputs: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    tokenize: str | None = None,
) -> dict[str, float]:
    """
    Quality and diversity of several paraphrases of each source.

    Args:
        sources (`list[str]`): the originals.
        outputs (`list[list[str]]`): equally many outputs for each source.
        references (`list[list[str]]`): one or more references for each source.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, for texts without spaces between words.

    Returns:
        What [`reference_metrics`] does, and `ibleu`: α·`bleu` - (1-α)·BLEU against the source, α = 0.8; `copy_bleu`,
        `copy_ibleu`: those of repeating the source.

    Raises:
        ValueError: as [`reference_metrics`], and if the sources are no list of as many texts.
    """
    _check_list("sources", sources)
    if len(sources) != len(outputs):
        raise ValueError(f"{len(sources)} sources, {len(outputs)} lists of outputs: they must be as many.")
    metrics = reference_metrics(outputs, references, tokenize)
    against_source = bleu_metric(tokenize, [[source] for source in sources])

    def ibleu(against_references: float, texts: Sequence[Sequence[str]]) -> float:
        of_source = fmean(_score(against_source, column) for column in texts)
        return IBLEU_ALPHA * against_references - (1 - IBLEU_ALPHA) * of_source

    copy = _score(bleu_metric(tokenize, references), sources)
    return {
        **metrics,
        "ibleu": ibleu(metrics["bleu"], list(zip(*outputs))),
        "copy_bleu": copy,
        "copy_ibleu": ibleu(copy, [sources]),
    }
