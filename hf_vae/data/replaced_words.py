"""Texts some of whose words are others: what cannot be guessed from the words around it has to come through z."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ..checks import check_count, check_number

# So many words are drawn by their weights once, and each replacement is one of them: to draw with weights each time takes longer.
STOCK = 2_000_000


def replace_words(
    texts: Iterable[str],
    words_of: Iterable[str],
    shares: Sequence[float] = (0.0, 0.2, 0.5),
    num_words: int | None = None,
    rng: random.Random | None = None,
) -> Iterator[str]:
    r"""
    Texts to train a sentence VAE on that is to give any text back. A word that is put in the place of another one at random says
    nothing about its neighbours, so a decoder cannot guess it and learns to read it in z. That teaches it to read all words there.

    Each word of a text is replaced with a probability that is drawn for the text from `shares`. The word in its place is drawn with
    a probability proportional to \(\sqrt{n}\), if it occurs \(n\) times: rare words come more often than in the texts.

    Args:
        texts (iterable of `str`): may be without end, and is read as the result is.
        words_of (iterable of `str`): texts that other words are drawn from, read at once. Words are separated by white space.
        shares (`list[float]`, defaults to `(0.0, 0.2, 0.5)`): between 0 and 1; at 0 the text stays as it is.
        num_words (`int`, *optional*): only so many words are drawn, the most frequent ones: for a tokenizer that knows no others.
        rng (`random.Random`, *optional*): by default one with the seed 0.

    Returns:
        an iterator over as many texts. Their words are separated by one space.

    Raises:
        ValueError: `texts` or `words_of` is a single text, `words_of` has no words, `shares` is no list of shares or has none, or a
            share or `num_words` is out of range.
    """
    for name, given in (("texts", texts), ("words_of", words_of)):
        if isinstance(given, str):
            raise ValueError(f"`{name}` is a single text: give several, such as a list.")
    if not isinstance(shares, Sequence) or not shares:
        raise ValueError(f"`shares` is {shares!r}; give a list of numbers between 0 and 1.")
    for share in shares:
        check_number("shares", share, least=0, most=1)
    if num_words is not None:
        check_count("num_words", num_words)
    rng = rng or random.Random(0)
    counts = Counter(word for text in words_of for word in text.split()).most_common(num_words)
    if not counts:
        raise ValueError("`words_of` has no words; give texts to draw other words from.")
    stock = rng.choices([word for word, _ in counts], [count**0.5 for _, count in counts], k=STOCK)

    def replaced() -> Iterator[str]:
        for text in texts:
            share = rng.choice(shares)
            yield " ".join(rng.choice(stock) if rng.random() < share else word for word in text.split())

    return replaced()
