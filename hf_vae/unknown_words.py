"""Words that are not in a vocabulary."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Above this share, unknown tokens change metrics and texts noticeably.
WARN_ABOVE = 0.01


def texts_in(items: Iterable[Any]) -> Iterator[str]:
    """The texts of a processor's inputs: of a text itself, of a dialogue those of its messages."""
    for item in items:
        if isinstance(item, str):
            yield item
        else:
            messages = item["messages"] if isinstance(item, Mapping) else item
            yield from (message["content"] for message in messages)


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """
    The share of the texts' tokens, without special ones, that are the unknown token; 0 if the vocabulary covers everything. If the
    tokenizer has no unknown token and skips what it does not know, each word without a token counts as an unknown token.
    """
    texts = list(texts)
    if not texts:
        return 0.0
    unknown = _unknown_token_id(tokenizer)
    skips_unknown = unknown is None and tokenizer.is_fast
    read = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=skips_unknown)
    if skips_unknown:
        count = missed = sum(map(_words_without_token, texts, read["offset_mapping"]))
    else:
        count, missed = sum(row.count(unknown) for row in read["input_ids"]), 0
    total = sum(map(len, read["input_ids"])) + missed
    return count / total if total else 0.0


def _unknown_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token for words that are not in the vocabulary, even if only the backend of the tokenizer names it."""
    unknown = tokenizer.unk_token_id
    if unknown is None and tokenizer.is_fast:
        token = getattr(tokenizer.backend_tokenizer.model, "unk_token", None)
        unknown = None if token is None else tokenizer.backend_tokenizer.token_to_id(token)
    # Byte-level vocabularies name one of these as the unknown token and never use it as that.
    return None if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) else unknown


def _words_without_token(text: str, offsets: list[tuple[int, int]]) -> int:
    """The number of words, separated by white space, that no token comes from; `offsets` has each token's beginning and end."""
    covered = {place for start, end in offsets for place in range(start, end)}
    return sum(covered.isdisjoint(range(*word.span())) for word in re.finditer(r"\S+", text))


def warn_of_unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """[`unknown_share`], with a warning if it is above 1 %."""
    share = unknown_share(tokenizer, texts)
    if share > WARN_ABOVE:
        logger.warning(
            "%.1f %% of the texts' tokens are not in the model's vocabulary and are read as %s. The model knows the words of its "
            "training texts: give texts like those, or train with a vocabulary that has these words.",
            100 * share,
            tokenizer.unk_token or "nothing",
        )
    return share
