"""What a word is, for all metrics that count words or compare them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from sacrebleu.metrics import BLEU

logger = logging.getLogger(__name__)

TOKENIZERS = tuple(BLEU.TOKENIZERS)
# Scripts that put no spaces between words, and the letters that a word of theirs has on average at most. Texts that were split into
# words already stay below it.
SPACELESS = (
    (re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"), 2.5),
    (re.compile("[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]"), 8.0),
)
KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f]")
# So few of the texts change no figure by much, and are names and quotations.
SPACELESS_SHARE = 0.01


@lru_cache
def _tokenizer(name: str) -> Callable[[str], str]:
    if name not in TOKENIZERS:
        raise ValueError(f"The metrics' tokenizer is {name!r}; choose one of sacrebleu's: {', '.join(TOKENIZERS)}.")
    try:
        return BLEU(tokenize=name).tokenizer
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"The metrics' tokenizer {name!r} cannot be used here: {' '.join(str(error).split())}") from error


def check_tokenizer(name: str | None) -> None:
    """Raises a `ValueError` for a tokenizer that sacrebleu does not have, or whose dependencies are not installed."""
    if name is not None:
        _tokenizer(name)


def split_words(text: str, tokenize: str | None = None) -> list[str]:
    """
    The words of a text.

    Args:
        text (`str`): any text; an empty one has none.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers by its name; white space separates words without.

    Raises:
        ValueError: a tokenizer that there is not, or whose dependencies are not installed.
    """
    return text.split() if tokenize is None else _tokenizer(tokenize)(text).split()


def warn_if_spaceless(texts: Iterable[str], tokenize: str | None) -> None:
    """Warns if no tokenizer was chosen and texts look as if they have no spaces between words."""
    if tokenize is not None:
        return
    texts = list(texts)
    for letters, longest_word in SPACELESS:
        found = [[len(letters.findall(word)) for word in text.split() if letters.search(word)] for text in texts]
        counts = [count for row in found for count in row]
        concerned = sum(map(bool, found))
        if concerned <= SPACELESS_SHARE * len(texts) or sum(counts) <= longest_word * len(counts):
            continue
        is_chinese = letters is SPACELESS[0][0] and not any(map(KANA.search, texts))
        logger.warning(
            "%d of %d texts have no spaces between words, so that metrics of words (BLEU, self-BLEU, distinct-n, perplexity per "
            "word) take a whole sentence for one word. Choose a tokenizer: `tokenize=%r`, or `--metrics_tokenizer %s` of the "
            "scripts; others are %s.",
            concerned, len(texts), *(2 * ["zh" if is_chinese else "char"]), ", ".join(TOKENIZERS),
        )  # fmt: skip
        return
