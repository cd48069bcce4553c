"""How much of a text its vector gives back: texts written from vectors, beside the texts that were embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch

from .text_lists import check_equally_many, check_lists, check_texts
from .text_metrics import bleu
from .words import check_tokenizer, split_words

Embedder = Callable[[Sequence[str]], Any]


def token_f1(text: str, target: str, tokenize: str | None = None) -> float:
    """
    F1 of the words of `text` and of `target` as multisets, lower-cased: the harmonic mean of the share of the words of `text` that
    `target` has, and of those of `target` that `text` has. 1 if both are empty.
    """
    written, wanted = (Counter(split_words(each.lower(), tokenize)) for each in (text, target))
    if not written and not wanted:
        return 1.0
    return 2 * (written & wanted).total() / (written.total() + wanted.total())


@torch.no_grad()
def cosines(embedder: Embedder, candidates: Sequence[Sequence[str]], embeddings: torch.Tensor) -> torch.Tensor:
    """
    The cosine of each candidate's vector and the one that was given, `(inputs, candidates)`. Equal texts are embedded once.

    Args:
        embedder (callable): what made `embeddings`; gives a tensor or array `(texts, size)` for texts.
        candidates (`list[list[str]]`): equally many for each input.
        embeddings (`torch.Tensor` of shape `(inputs, size)`): the given vectors.

    Raises:
        ValueError: candidates and vectors differ in number, or inputs in their number of candidates; or vectors of another size.
    """
    check_lists("input", candidates=candidates)
    check_equally_many("input", "candidates", candidates)
    check_texts("input", "candidates", candidates)
    given = torch.as_tensor(embeddings).float().cpu()
    if len(given) != len(candidates):
        raise ValueError(
            f"`candidates` has {len(candidates)} lists and `embeddings` {len(given)} rows: give a list for each vector."
        )
    unique = list(dict.fromkeys(text for texts in candidates for text in texts))
    vectors = torch.as_tensor(embedder(unique)).float().cpu()
    if vectors.shape != (len(unique), given.shape[1]):
        raise ValueError(
            f"`embedder` gives {tuple(vectors.shape)} for {len(unique)} texts, and `embeddings` has {given.shape[1]} columns: give "
            "the embedder that made them."
        )
    place = {text: index for index, text in enumerate(unique)}
    index = torch.tensor([[place[text] for text in texts] for texts in candidates])
    return torch.cosine_similarity(vectors[index], given[:, None], dim=-1)


def inversion_metrics(
    candidates: Sequence[Sequence[str]],
    targets: Sequence[str],
    embeddings: torch.Tensor,
    embedder: Embedder,
    tokenize: str | None = None,
) -> dict[str, float]:
    """
    How near texts that were written from vectors are to the texts that the vectors are of, and to the vectors (Morris et al. 2023).

    Args:
        candidates (`list[list[str]]`): equally many texts for each vector. The first is what is written without a choice.
        targets (`list[str]`): the texts that were embedded.
        embeddings (`torch.Tensor` of shape `(targets, size)`): the given vectors.
        embedder (callable): what made them.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, for texts without spaces between words.

    Returns:
        Of the first candidates `exact_match`, the share that are their targets, letter by letter; `bleu`, of the corpus, 0 to 100;
        `token_f1` and `cosine`, means. If there are K > 1 candidates, the same of the one whose vector is nearest to the given one,
        as `best_of_K_exact_match` and so on: no target is needed to choose it.

    Raises:
        ValueError: anything differs in number, is no text, or the embedder gives vectors of another size.
    """
    check_tokenizer(tokenize)
    check_texts("input", "targets", [list(targets)])
    if len(targets) != len(candidates):
        raise ValueError(f"`candidates` has {len(candidates)} lists and `targets` {len(targets)} texts: give a list for each text.")
    near = cosines(embedder, candidates, embeddings)
    metrics = _metrics([texts[0] for texts in candidates], targets, near[:, 0], tokenize)
    count = near.shape[1]
    if count > 1:
        best = near.argmax(-1).tolist()
        chosen = [texts[which] for texts, which in zip(candidates, best)]
        of_best = _metrics(chosen, targets, near.amax(-1), tokenize)
        metrics |= {f"best_of_{count}_{name}": value for name, value in of_best.items()}
    return metrics


def _metrics(texts: Sequence[str], targets: Sequence[str], near: torch.Tensor, tokenize: str | None) -> dict[str, float]:
    return {
        "exact_match": fmean(text == target for text, target in zip(texts, targets)),
        "bleu": bleu(texts, [[target] for target in targets], tokenize),
        "token_f1": fmean(token_f1(text, target, tokenize) for text, target in zip(texts, targets)),
        "cosine": near.mean().item(),
    }


__all__ = ["cosines", "inversion_metrics", "token_f1"]
