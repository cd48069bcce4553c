"""
Metrics of generated text: BLEU, chrF, TER and METEOR against references, for the average output and the best of several; how far
the outputs for one source differ. All of it lower-cased; BLEU, chrF and TER by sacrebleu, METEOR by nltk, all four times 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.ter import TERScore

# Sun & Zhou 2012: the weight of agreeing with the references against that of repeating the source.
IBLEU_ALPHA = 0.8


def _corpus_score(metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """`references[i]` are those of `hypotheses[i]`; they may differ in number."""
    most = max(map(len, references))
    streams: list = [[row[which] if which < len(row) else None for row in references] for which in range(most)]
    return metric.corpus_score(list(hypotheses), streams).score


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4 of one hypothesis a row, 0 to 100; where no hypothesis has four words, by the n-grams that they have."""
    # `force` only keeps sacrebleu from warning of corpora that are published tokenised.
    return _corpus_score(BLEU(lowercase=True, force=True, effective_order=True), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF2 of one hypothesis a row, 0 to 100."""
    return _corpus_score(CHRF(lowercase=True), hypotheses, references)


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words among all n-grams of `texts` (Li et al. 2016), 0 to 1; 0 where there is none."""
    grams = [gram for text in texts for gram in zip(*(text.lower().split()[start:] for start in range(n)))]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(outputs: Sequence[Sequence[str]]) -> float:
    """
    Mean sentence BLEU of each output for a source against the other outputs for it (Zhu et al. 2018), 0 to 100; lower is more
    diverse. Needs two outputs a source.
    """
    metric = BLEU(lowercase=True, effective_order=True)
    scores = [
        metric.sentence_score(text, [other for j, other in enumerate(texts) if j != i]).score
        for texts in outputs
        for i, text in enumerate(texts)
    ]
    return sum(scores) / len(scores)


def _best(metric: BLEU | CHRF, outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[str]:
    """For each source the output whose sentence score is highest."""
    best = []
    for texts, refs in zip(outputs, references):
        scores = [metric.sentence_score(text, list(refs)).score for text in texts]
        best.append(texts[scores.index(max(scores))])
    return best


def _ter_scores(outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[list[TERScore]]:
    """Of each output for each source, its edits and the references' mean length. Equal outputs for a source are scored once."""
    metric = TER()
    scores = []
    for texts, refs in zip(outputs, references):
        by_text = {text: metric.sentence_score(text, list(refs)) for text in dict.fromkeys(texts)}
        scores.append([by_text[text] for text in texts])
    return scores


def _corpus_ter(scores: Sequence[TERScore]) -> float:
    """Of one output a row, from the scores of each: all edits by all words of the references."""
    edits, words = sum(score.num_edits for score in scores), sum(score.ref_length for score in scores)
    return 100 * edits / words if words else 100.0 * bool(edits)


def _meteor(outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Of each source's outputs the mean and the best METEOR, averaged over sources. Empty where nltk's WordNet is not at hand."""
    # Here, because importing nltk takes seconds.
    from nltk.corpus import wordnet
    from nltk.tokenize import WordPunctTokenizer
    from nltk.translate.meteor_score import meteor_score

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return {}
    tokenize = WordPunctTokenizer().tokenize
    average, best = 0.0, 0.0
    for texts, refs in zip(outputs, references):
        wanted = [tokenize(ref) for ref in refs]
        by_text = {text: meteor_score(wanted, tokenize(text), wordnet=wordnet) for text in dict.fromkeys(texts)}
        average += sum(by_text[text] for text in texts) / len(texts)
        best += max(by_text.values())
    return {"meteor": 100 * average / len(outputs), "best_meteor": 100 * best / len(outputs)}


def reference_metrics(outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """
    Quality of several outputs for each source against references, and their diversity.

    Args:
        outputs (`list[list[str]]`): equally many outputs for each source.
        references (`list[list[str]]`): one or more references for each source.

    Returns:
        `bleu`, `chrf`, `ter`: means over the k-th outputs' corpus scores; `best_bleu`, `best_chrf`, `best_ter`: corpus scores of,
        for each source, the output that a sentence's score against the references ranks first; `self_bleu`; `distinct_1`,
        `distinct_2`: mean over sources of the distinct n-grams among a source's outputs. TER counts edits, so lower is better; it
        is the slow one: some milliseconds for an output of a dozen words and four references, and half a second for 60 words that
        come in another order. Where nltk's WordNet data is on the machine, also `meteor` and `best_meteor` (Lavie & Agarwal 2007,
        α 0.9, β 3, γ 0.5): means over sources of the mean and of the largest score of their outputs, each against the reference
        that suits it best. Nothing is downloaded; `python -m nltk.downloader wordnet` does.

    Raises:
        ValueError: outputs and references differ in number, or sources in their number of outputs.
    """
    if len(outputs) != len(references) or not outputs:
        raise ValueError(
            f"{len(outputs)} lists of outputs and {len(references)} lists of references: they must be as many, and at least one."
        )
    if len({len(texts) for texts in outputs}) != 1:
        raise ValueError("`outputs` has lists of different lengths; generate equally many for each source.")
    columns = list(zip(*outputs))
    sentence_bleu = BLEU(lowercase=True, effective_order=True)
    sentence_chrf = CHRF(lowercase=True)
    ter_scores = _ter_scores(outputs, references)
    return {
        "bleu": fmean(bleu(column, references) for column in columns),
        "best_bleu": bleu(_best(sentence_bleu, outputs, references), references),
        "chrf": fmean(chrf(column, references) for column in columns),
        "best_chrf": chrf(_best(sentence_chrf, outputs, references), references),
        "ter": fmean(_corpus_ter(column) for column in zip(*ter_scores)),
        "best_ter": _corpus_ter([min(scores, key=lambda score: score.num_edits) for scores in ter_scores]),
        "self_bleu": self_bleu(outputs) if len(columns) > 1 else 100.0,
        "distinct_1": fmean(distinct(texts, 1) for texts in outputs),
        "distinct_2": fmean(distinct(texts, 2) for texts in outputs),
        **_meteor(outputs, references),
    }


def paraphrase_metrics(
    sources: Sequence[str], outputs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """
    Quality and diversity of several paraphrases of each source.

    Args:
        sources (`list[str]`): the originals.
        outputs (`list[list[str]]`): equally many outputs for each source.
        references (`list[list[str]]`): one or more references for each source.

    Returns:
        What [`reference_metrics`] does, and `ibleu`: α·`bleu` - (1-α)·BLEU against the source, α = 0.8; `copy_bleu`,
        `copy_ibleu`: those of repeating the source.

    Raises:
        ValueError: sources, outputs and references differ in number, or sources in their number of outputs.
    """
    if len(sources) != len(outputs):
        raise ValueError(f"{len(sources)} sources, {len(outputs)} lists of outputs: they must be as many.")
    metrics = reference_metrics(outputs, references)
    originals = [[source] for source in sources]

    def ibleu(against_references, against_source):
        return IBLEU_ALPHA * against_references - (1 - IBLEU_ALPHA) * against_source

    copy = bleu(sources, references)
    return {
        **metrics,
        "ibleu": ibleu(metrics["bleu"], fmean(bleu(column, originals) for column in zip(*outputs))),
        "copy_bleu": copy,
        "copy_ibleu": ibleu(copy, bleu(sources, originals)),
    }
