"""Perplexities, each with its denominator in its name."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .evaluator import LikelihoodEvaluator
from .words import check_tokenizer, split_words, warn_if_spaceless


def count_tokens_and_words(evaluator: LikelihoodEvaluator, tokenize: str | None = None) -> dict[str, int]:
    """
    What the targets' likelihood is spread over.

    Args:
        evaluator ([`LikelihoodEvaluator`]): the examples.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, whose words are counted; between white space without.

    Returns:
        `tokens`: of the decoder's vocabulary, EOS counted, the start token not. `words`, and one more for the end of
        each sentence. A target that was cut to a length counts as what is left of it.
    """
    check_tokenizer(tokenize)
    warn_if_spaceless(evaluator.targets, tokenize)
    processor = evaluator.processor
    whole = processor.label_ids(evaluator.targets, {"truncation": False})
    tokens = words = 0
    for target, labels, all_labels in zip(evaluator.targets, evaluator.label_ids(), whole):
        text = target if len(labels) == len(all_labels) else processor.batch_decode([labels[:-1]])[0]
        tokens += len(labels)
        words += len(split_words(text, tokenize)) + 1
    return {"tokens": tokens, "words": words}


def perplexities(metrics: Mapping[str, float], num_examples: int, tokens: int, words: int) -> dict[str, float]:
    """
    exp(nats of the corpus / number of tokens or words) from `elbo` and `iw_nll`, means in nats per sentence. Both are upper bounds
    on the model's perplexity. Metrics per token compare models of one vocabulary only; those per word compare any.

    Returns:
        `ppl_per_token_elbo`, `ppl_per_token_iw`, `ppl_per_word_elbo`, `ppl_per_word_iw`; infinite if a float cannot hold it.
    """
    nats = {"elbo": -metrics["elbo"] * num_examples, "iw": metrics["iw_nll"] * num_examples}
    counts = {"token": tokens, "word": words}
    return {f"ppl_per_{unit}_{bound}": perplexity(total / count) for unit, count in counts.items() for bound, total in nats.items()}


def perplexity(nats_per_unit: float) -> float:
    try:
        return math.exp(nats_per_unit)
    except OverflowError:
        return math.inf
