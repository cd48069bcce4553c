"""Words that a vocabulary does not have."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Above it, what is measured or written is noticeably about UNK.
WARN_ABOVE = 0.01


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """
    Share of the texts' tokens, without special ones, that are the unknown token; 0 for a vocabulary that knows everything. Of one
    that has no unknown token and passes over what it does not know, each word without a token counts as one.
    """
    texts = list(texts)
    if not texts:
        return 0.0
    unknown = _unknown_token_id(tokenizer)
    passes_over = unknown is None and tokenizer.is_fast
    read = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=passes_over)
    if passes_over:
        count = missed = sum(map(_words_without_token, texts, read["offset_mapping"]))
    else:
        count, missed = sum(row.count(unknown) for row in read["input_ids"]), 0
    total = sum(map(len, read["input_ids"])) + missed
    return count / total if total else 0.0


def _unknown_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that stands for what is not in the vocabulary, also if the tokenizer does not call it so."""
    unknown = tokenizer.unk_token_id
    if unknown is None and tokenizer.is_fast:
        token = getattr(tokenizer.backend_tokenizer.model, "unk_token", None)
        unknown = None if token is None else tokenizer.backend_tokenizer.token_to_id(token)
    # Vocabularies of bytes name one of these as unknown and never use it so.
    return None if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) else unknown


def _words_without_token(text: str, offsets: list[tuple[int, int]]) -> int:
    """How many words between white space no token comes from; `offsets` are where each token begins and ends."""
    covered = {place for start, end in offsets for place in range(start, end)}
    return sum(covered.isdisjoint(range(*word.span())) for word in re.finditer(r"\S+", text))


def warn_of_unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """[`unknown_share`], with a warning above 1 %."""
    share = unknown_share(tokenizer, texts)
    if share > WARN_ABOVE:
        logger.warning(
            "%.1f %% of the texts' tokens are not in the model's vocabulary and are read as %s. The model knows the words of its "
            "training texts: give texts like those, or train with a vocabulary that has these words.",
            100 * share,
            tokenizer.unk_token or "nothing",
        )
    return share
