"""
Metrics of several replies to one dialogue context against several references: precision and recall of BLEU, of word vectors and
of dialogue acts (Zhao et al. 2017, Table 1), DialogWAE's different BLEU, and how far the replies differ.

With d the similarity of a reply h and a reference r to the same context, precision is the mean over replies of the largest d to a
reference, and recall the mean over references of the largest d to a reply. Both are averaged over contexts; F1 is that of the two
averages. Texts are lower-cased and split into words and punctuation by nltk's `WordPunctTokenizer`, or into words by
`tokenize`, one of sacrebleu's tokenizers by its name, which texts without spaces need. Nothing is times 100.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import numpy as np

from .text_lists import check_equally_many, check_lists, check_texts, refuse_rows
from .text_metrics import distinct_share
from .words import check_tokenizer, split_words, warn_if_spaceless

# `method7` smooths each order with the next one, so a BLEU-1 by (1,) differs from one by (1, 0, 0, 0). The only public evaluation
# of kgCVAE with several references passes these four, DialogWAE's its three.
ZHAO_WEIGHTS = ((1.0, 0.0, 0.0, 0.0), (1 / 2, 1 / 2, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3, 0.0), (1 / 4, 1 / 4, 1 / 4, 1 / 4))
DIALOGWAE_WEIGHTS = ((1 / 3, 1 / 3, 1 / 3),)

# What a label is if the act is not known, here as in `act_labels`.
UNKNOWN_ACT = -100


def _check(**arguments: Sequence[Sequence]) -> None:
    """All arguments have as many contexts and something for each; the first one equally many for each."""
    sizes = [len(rows) for rows in arguments.values()]
    if len(set(sizes)) > 1 or not sizes[0]:
        found = " and ".join(f"`{name}` for {size}" for name, size in zip(arguments, sizes))
        raise ValueError(f"{found} contexts: give a list for each context in both, and at least one context.")
    check_lists("context", **arguments)
    check_equally_many("context", *next(iter(arguments.items())))


def _tokenizer(tokenize: str | None) -> Callable[[str], tuple[str, ...]]:
    if tokenize is not None:
        return lambda text: tuple(split_words(text.lower(), tokenize))
    # Here and below: importing nltk takes seconds, which `import hf_vae` should not.
    from nltk.tokenize import WordPunctTokenizer

    tokenizer = WordPunctTokenizer()
    return lambda text: tuple(tokenizer.tokenize(text.lower()))


def _tokens(name: str, rows: Sequence[Sequence[str]], tokenize: str | None) -> list[list[tuple[str, ...]]]:
    check_tokenizer(tokenize)
    check_texts("context", name, rows)
    split = _tokenizer(tokenize)
    return [[split(text) for text in row] for row in rows]


def _checked_tokens(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str | None
) -> tuple[list[list[tuple[str, ...]]], list[list[tuple[str, ...]]]]:
    """Of each text. A reply may be blank, a reference not: it would be one that no reply can reach."""
    _check(hypotheses=hypotheses, references=references)
    replies, wanted = _tokens("hypotheses", hypotheses, tokenize), _tokens("references", references, tokenize)
    blank = [i for i, row in enumerate(wanted) if not all(row)]
    refuse_rows("context", blank, "`references` has blank texts", "leave these references out")
    return replies, wanted


def _with_f1(name: str, precision: float, recall: float) -> dict[str, float]:
    both = precision + recall
    return {f"{name}_precision": precision, f"{name}_recall": recall, f"{name}_f1": 2 * precision * recall / both if both else 0.0}


def _precision_recall(name: str, similarities: Sequence[np.ndarray]) -> dict[str, float]:
    """From one matrix (replies, references) a context."""
    precision = np.mean([matrix.max(axis=1).mean() for matrix in similarities])
    recall = np.mean([matrix.max(axis=0).mean() for matrix in similarities])
    return _with_f1(name, float(precision), float(recall))


def _bleu(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    weights: Sequence[Sequence[float]],
    tokenize: str | None,
) -> Iterator[np.ndarray]:
    """For each context the BLEU of each reply against each single reference, (replies, references, weights)."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method7

    def scores(reply: tuple[str, ...], reference: tuple[str, ...]) -> np.ndarray:
        # nltk divided by log(1) when the papers were written, and their code counts its exceptions as 0; today it gives a figure.
        if len(reply) < 2:
            return np.zeros(len(weights))
        return np.atleast_1d(sentence_bleu([reference], reply, weights, smoothing))

    for replies, wanted in zip(*_checked_tokens(hypotheses, references, tokenize)):
        by_reply = {reply: [scores(reply, reference) for reference in wanted] for reply in dict.fromkeys(replies)}
        yield np.array([by_reply[reply] for reply in replies], dtype=float)


def multi_reference_bleu(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str | None = None
) -> dict[str, float]:
    """
    Precision and recall of BLEU-1 to BLEU-4 (Zhao et al. 2017, Table 1): d is nltk's sentence BLEU of one reply against one
    reference, with equal weights up to the order and the smoothing `method7` (Chen & Cherry 2014); 0 for a reply of less than two
    tokens.

    `method7` gives up to 4/3 to a reply that equals its reference. It also changed with nltk's releases: 3.2.5 and 3.4.5, of the
    papers' time, smooth an order n without a match to 1 / (n - 1 + 5 / ln length), the present one to much less. So metrics compare
    with those of the same release, and not with the papers' tables.

    Args:
        hypotheses (`list[list[str]]`): equally many replies to each context.
        references (`list[list[str]]`): one or more references for each context.

    Returns:
        `bleu_1_precision`, `bleu_1_recall`, `bleu_1_f1` and so on to 4.

    Raises:
        ValueError: the arguments differ in their number of contexts, a context has no reply or no reference or a blank reference,
            or contexts differ in their number of replies.
    """
    scores = list(_bleu(hypotheses, references, ZHAO_WEIGHTS, tokenize))
    metrics: dict[str, float] = {}
    for order in range(len(ZHAO_WEIGHTS)):
        metrics |= _precision_recall(f"bleu_{order + 1}", [matrix[:, :, order] for matrix in scores])
    return metrics


def dialogwae_bleu(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str | None = None
) -> dict[str, float]:
    """
    BLEU-3 by the definition of DialogWAE (Gu et al. 2019), which Optimus' Table 4 (Li et al. 2020) uses too: against one reference,
    recall is the largest and precision the mean BLEU of the replies; both are averaged over a context's references and then over
    contexts. Its precision is not that of [`multi_reference_bleu`]: there a reply need match one reference, here each reply counts
    against every reference. Its BLEU differs from that BLEU-3 too, by weights of three orders and not four.

    Arguments, errors and what is said of `method7` are those of [`multi_reference_bleu`].

    Returns:
        `dialogwae_bleu_precision`, `dialogwae_bleu_recall`, `dialogwae_bleu_f1`.
    """
    scores = list(_bleu(hypotheses, references, DIALOGWAE_WEIGHTS, tokenize))
    precision, recall = np.mean([matrix.mean() for matrix in scores]), np.mean([matrix.max(axis=0).mean() for matrix in scores])
    return _with_f1("dialogwae_bleu", float(precision), float(recall))


def _mean_and_extrema(tokens: Sequence[str], word_vectors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The two vectors of a text, (2, dimension); None if no word has a vector."""
    known = [word_vectors[token] for token in tokens if token in word_vectors]
    if not known:
        return None
    vectors = np.asarray(known, dtype=float)
    largest, smallest = vectors.max(axis=0), vectors.min(axis=0)
    return np.stack([vectors.mean(axis=0), np.where(np.abs(smallest) <= largest, largest, smallest)])


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(left, right), of vectors in rows; 0 beside a vector of zeros."""
    norms = np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    return np.divide(left @ right.T, norms, out=np.zeros_like(norms), where=norms > 0)


def bow_similarities(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    word_vectors: Mapping[str, np.ndarray],
    tokenize: str | None = None,
) -> dict[str, float]:
    """
    Precision and recall of two similarities of word vectors (Zhao et al. 2017, Table 1). A-bow is the cosine of the texts' mean
    vectors, E-bow that of their extrema: of each dimension the largest value, or the smallest if that is further from 0. As in
    the only public code the cosine is mapped to (cos + 1) / 2, so that 0.5 means unrelated.

    Words without a vector are left out, and texts without a word that has one, as in that code. Contexts of which no reply or no
    reference is left are not averaged; `bow_contexts` tells how many were.

    Args:
        hypotheses (`list[list[str]]`): equally many replies to each context.
        references (`list[list[str]]`): one or more references for each context.
        word_vectors: by lower-cased word an array (dimension,), as of [`load_word_vectors`].
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers by its name.

    Returns:
        `a_bow_precision`, `a_bow_recall`, `a_bow_f1`, the same of `e_bow`, and `bow_contexts`.

    Raises:
        ValueError: as [`multi_reference_bleu`]; or the vectors differ in dimension, or no context is left.
    """
    shapes = {np.shape(vector) for vector in word_vectors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"`word_vectors` has vectors of the shapes {sorted(shapes)}: give vectors (dimension,) of one dimension.")
    similarities: list[tuple[np.ndarray, np.ndarray]] = []
    for replies, wanted in zip(*_checked_tokens(hypotheses, references, tokenize)):
        left, right = (
            [pair for text in texts if (pair := _mean_and_extrema(text, word_vectors)) is not None] for texts in (replies, wanted)
        )
        if left and right:
            pairs = zip(np.stack(left, axis=1), np.stack(right, axis=1))
            mean, extrema = ((_cosines(*vectors) + 1) / 2 for vectors in pairs)
            similarities.append((mean, extrema))
    if not similarities:
        raise ValueError(
            "`word_vectors` has no word of the replies, or none of the references, to any context: give vectors of their language, "
            "in lower case."
        )
    means, extremas = zip(*similarities)
    return {**_precision_recall("a_bow", means), **_precision_recall("e_bow", extremas), "bow_contexts": len(similarities)}


def act_match(hypothesis_acts: Sequence[Sequence[Hashable]], reference_acts: Sequence[Sequence[Hashable]]) -> dict[str, float]:
    """
    Precision and recall of dialogue acts (Zhao et al. 2017, Table 1): d is 1 if the acts are equal, else 0.

    Args:
        hypothesis_acts (`list[list]`): the act of each reply, as a classifier labels it; equally many for each context. None or
            -100, if it finds none, matches nothing.
        reference_acts (`list[list]`): the act of each reference.

    Returns:
        `act_precision`, `act_recall`, `act_f1`.

    Raises:
        ValueError: the arguments differ in their number of contexts, a context has no act or an unknown one (None or -100) among
            its references', or contexts differ in their number of replies.
    """
    _check(hypothesis_acts=hypothesis_acts, reference_acts=reference_acts)
    unknown = [i for i, row in enumerate(reference_acts) if any(act is None or act == UNKNOWN_ACT for act in row)]
    refuse_rows("context", unknown, "`reference_acts` has unknown acts", "leave these references out")
    return _precision_recall(
        "act",
        [
            np.array([[float(act == reference) for reference in wanted] for act in acts])
            for acts, wanted in zip(hypothesis_acts, reference_acts)
        ],
    )


def reply_distinct(hypotheses: Sequence[Sequence[str]], tokenize: str | None = None) -> dict[str, float]:
    """
    Different n-grams among all n-grams (Li et al. 2016), 0 to 1: `intra` within each reply, `inter` within all replies to a context
    together (Gu et al. 2019). 0 for a text without n-grams. Averaged over replies and contexts.

    Returns:
        `distinct_1_intra`, `distinct_1_inter`, `distinct_2_intra`, `distinct_2_inter`.

    Raises:
        ValueError: a context has no reply, or contexts differ in their number of replies.
    """
    _check(hypotheses=hypotheses)
    words = _tokens("hypotheses", hypotheses, tokenize)
    metrics = {}
    for n in (1, 2):
        metrics[f"distinct_{n}_intra"] = float(np.mean([distinct_share([text], n) for replies in words for text in replies]))
        metrics[f"distinct_{n}_inter"] = float(np.mean([distinct_share(replies, n) for replies in words]))
    return metrics


def _check_one_each(name: str, acts: Sequence[Sequence[Hashable]], texts: Sequence[Sequence[str]]) -> None:
    if len(acts) != len(texts):
        raise ValueError(f"`{name}` has {len(acts)} contexts and the texts have {len(texts)}: give one act for each text.")
    different = [i for i, (labels, row) in enumerate(zip(acts, texts)) if labels is None or len(labels) != len(row)]
    refuse_rows("context", different, f"`{name}` has more or fewer acts than there are texts", "give one act for each text")


def dialog_metrics(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    hypothesis_acts: Sequence[Sequence[Hashable]] | None = None,
    reference_acts: Sequence[Sequence[Hashable]] | None = None,
    tokenize: str | None = None,
) -> dict[str, float]:
    """
    All that needs no word vectors: [`multi_reference_bleu`], [`dialogwae_bleu`], [`reply_distinct`] and, with the acts of both,
    [`act_match`]. `tokenize` is one of sacrebleu's tokenizers by its name, for texts without spaces between words.

    Raises:
        ValueError: as those; or a tokenizer that there is not; or the acts of one side only are given, or not one for each text.
    """
    if (hypothesis_acts is None) != (reference_acts is None):
        missing = "hypothesis_acts" if hypothesis_acts is None else "reference_acts"
        raise ValueError(f"`{missing}` is missing: give the acts of both the replies and the references, or of neither.")
    _check(hypotheses=hypotheses, references=references)
    metrics: dict[str, float] = {}
    if hypothesis_acts is not None and reference_acts is not None:
        _check_one_each("hypothesis_acts", hypothesis_acts, hypotheses)
        _check_one_each("reference_acts", reference_acts, references)
        metrics = act_match(hypothesis_acts, reference_acts)
    metrics |= multi_reference_bleu(hypotheses, references, tokenize)
    metrics |= dialogwae_bleu(hypotheses, references, tokenize)
    warn_if_spaceless([text for row in references for text in row], tokenize)
    return metrics | reply_distinct(hypotheses, tokenize)
