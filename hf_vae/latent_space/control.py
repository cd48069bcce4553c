"""Texts that are given attributes by the smallest change that suffices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.utils import logging

from ..checks import check_number
from ..encoders import longest_text, reserved_positions
from ..latent_attribute import LatentAttribute
from ..latent_control import AttributeEnergy
from ..modeling_vae import VAEModel
from ..processing_vae import Texts, VAEProcessor, as_list
from .codes import LatentTexts, check_sources, decode_latents, encode_texts, posterior_of
from .smallest_move import smallest_move

logger = logging.get_logger(__name__)


@dataclass(repr=False)
class EditedTexts(LatentTexts):
    """
    Args:
        texts (`list[str]`): with the attributes that were asked for.
        latents (`torch.Tensor` of shape `(texts, latent_size)`): the z that each was decoded from.
        strengths (`list[float]`): what each was moved with.
        has_attributes (`list[bool]`): whether each, encoded again, has all of them.
        distances (`torch.Tensor` of shape `(texts,)`): how far each z was moved, in standard deviations of N(0, I).
    """

    strengths: list[float]
    has_attributes: list[bool]
    distances: torch.Tensor


def edit(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Texts,
    attributes: Mapping[str, Any],
    strength: float | Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    held: Mapping[str, LatentAttribute] | None = None,
    sources: Any = None,
    batch_size: int = 64,
    **generation_options,
) -> EditedTexts:
    """
    Changes what a text is like and leaves the rest (the task of Liu et al. 2022): the posterior mean is moved as
    little as suffices ([`smallest_move`]) for each attribute to be clear, and decoded.

    How clear it must be is the `strength`: at 0 z moves to the border between the labels, at 1 as far behind it as the texts that
    `fit_attribute` saw lie in the mean. Of several strengths a text gets the first with which it has the attributes when it is
    encoded again, and the last if it never has.

    Args:
        model ([`VAEModel`]): any model of the family, with attributes of `set_attribute`.
        processor ([`VAEProcessor`]): its processor.
        texts (`str` or `list[str]`): y.
        attributes (`dict`): what they are to be like, by the attribute's name: a value for all, or a list with one for each text.
        strength (`float` or a list of them, defaults to 0.5, 1, 1.5 and 2): how clearly. Less changes less.
        held (mapping of `str` to [`LatentAttribute`], *optional*): attributes in the place of the model's own.
        sources (*optional*): x of each text, as the processor takes it, for a conditional model: q reads the pair, the decoder
            sees x.
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`; greedy if they do not say otherwise.

    Returns:
        [`EditedTexts`]. There is a warning if texts do not have the attributes in the end.

    Raises:
        ValueError: an attribute that the model, or a value that the attribute does not have, a negative strength, or texts that
            [`encode_texts`] refuses.
    """
    strengths = list(strength) if isinstance(strength, Sequence) else [strength]
    if not strengths:
        raise ValueError("`strength` is empty; give a number, or several to be tried one after the other.")
    for each in strengths:
        check_number("strength", each, least=0)
    texts = as_list("texts", texts)
    wanted = AttributeEnergy(model.latent_attributes if held is None else held, attributes, batch_size=len(texts)).wanted
    given = check_sources(model, processor, texts, sources)
    # What the decoder writes may be longer than what the encoder holds.
    longest = None if given else longest_text(model.encoder.config, reserved_positions(model.encoder))
    lengths = {} if longest is None else {"max_length": longest, "max_target_length": longest}
    start = encode_texts(model, processor, texts, given, batch_size).mode()
    latents, edited, used = start.clone(), list(texts), [0.0] * len(texts)
    unfinished = list(range(len(texts)))
    for each in strengths:
        targets = [(attribute, (target if len(target) == 1 else target[unfinished])) for _, attribute, target in wanted]
        margins = [partial(attribute.margin, target=target, strength=each) for attribute, target in targets]
        moved, _ = smallest_move(start[unfinished], margins)
        pairs = None if given is None else [given[row] for row in unfinished]
        conditioning = {} if pairs is None else dict(processor(pairs))
        decoded = decode_latents(model, processor, moved, batch_size, **conditioning, **generation_options)
        # Nothing can be encoded of an empty text, which has nothing that was asked for.
        readable = [text if text.strip() else texts[row] for row, text in zip(unfinished, decoded)]
        again = posterior_of(model, processor, pairs or readable, readable, batch_size, **lengths).mode()
        has = torch.stack([attribute.margin(again, target, 0.0) >= 0 for attribute, target in targets]).all(0).tolist()
        missing = []
        for row, z, text, is_right in zip(unfinished, moved, decoded, has):
            latents[row], edited[row], used[row] = z, text, each
            if not (is_right and text.strip()):
                missing.append(row)
        unfinished = missing
        if not unfinished:
            break
    if unfinished:
        logger.warning(
            f"{len(unfinished)} of {len(texts)} texts do not have what `attributes` asks for with `strength` {strengths[-1]:g}: "
            "the attributes contradict each other, z does not say them, or it takes more strength."
        )
    return EditedTexts(
        texts=edited,
        latents=latents,
        strengths=used,
        has_attributes=[row not in unfinished for row in range(len(texts))],
        distances=(latents - start).norm(dim=-1),
    )


__all__ = ["EditedTexts", "edit"]
