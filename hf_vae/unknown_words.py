"""Words that a vocabulary does not have."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Above it, what is measured or written is noticeably about UNK.
WARN_ABOVE = 0.01


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """Share of the texts' tokens, without special ones, that are the unknown token; 0 for a vocabulary that knows everything."""
    unknown = tokenizer.unk_token_id
    # Vocabularies of bytes name one of these as unknown and never use it so.
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        return 0.0
    texts = list(texts)
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    total = sum(map(len, rows))
    return sum(row.count(unknown) for row in rows) / total if total else 0.0


def warn_of_unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """[`unknown_share`], with a warning above 1 %."""
    share = unknown_share(tokenizer, texts)
    if share > WARN_ABOVE:
        logger.warning(
            "%.1f %% of the texts' tokens are not in the model's vocabulary and are read as %s. The model knows the words of its "
            "training texts: give texts like those, or train with a vocabulary that has these words.",
            100 * share,
            tokenizer.unk_token,
        )
    return share
