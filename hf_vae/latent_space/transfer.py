"""The form of one pair, given to other sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor, is_text
from .codes import LatentTexts, decode_latents, encode_texts, reads_pairs, source_rows


def transfer(
    model: VAEModel,
    processor: VAEProcessor,
    pair: tuple[Any, str] | Sequence[tuple[Any, str]],
    sources: Any,
    batch_size: int = 64,
    **generation_options,
) -> LatentTexts:
    r"""
    Says each source as the pair says its own: z of a pair (x, y) holds what y adds to x, its form, and \(p(y'|x',z)\) writes
    another x' with the same z. z is the mode of \(q(z|x,y)\).

    Args:
        model ([`ParaphraseVAEModel`] or another with a source): its training flags come back as they were.
        processor ([`ParaphraseVAEProcessor`] or the model's own): its processor.
        pair (`tuple` of a source and a `str`, or a list of such tuples): x and y; of a list, one pair for each source.
        sources: x', as the processor takes them: one, or several in a list.
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        [`LatentTexts`], a row for each of `sources`.

    Raises:
        ValueError: the model has no source or no posterior, `pair` is no pair, or there are not as many pairs as sources.
    """
    if not reads_pairs(model):
        raise ValueError(f"{type(model).__name__} has no source, so there is no pair whose form could be given to another.")
    pairs = [pair] if isinstance(pair, tuple) else list(pair)
    for each in pairs:
        if not isinstance(each, tuple) or len(each) != 2 or not is_text(each[1]):
            raise ValueError(f"`pair` holds {each!r}; give a tuple of a source and the text that follows from it.")
    rows = source_rows(model, processor, sources)
    if len(pairs) not in (1, len(rows)):
        raise ValueError(f"`pair` holds {len(pairs)} pairs for {len(rows)} sources: give one for all, or one for each.")
    latents = encode_texts(model, processor, [y for _, y in pairs], [x for x, _ in pairs], batch_size).mode()
    latents = latents.expand(len(rows), -1)
    texts = decode_latents(model, processor, latents, batch_size, **processor(rows), **generation_options)
    return LatentTexts(texts=texts, latents=latents)


__all__ = ["transfer"]
