"""Texts that are given attributes word by word, where one decoded from z would lose what z does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from transformers.utils import logging

from ..checks import check_count, check_number
from ..evaluation.evaluator import LikelihoodEvaluator
from ..latent_attribute import LatentAttribute
from ..latent_control import AttributeEnergy
from ..modeling_vae import VAEModel
from ..processing_vae import Texts, VAEProcessor, as_list
from .codes import LatentTexts, check_sources, encode_texts, evaluation_mode, posterior_of
from .smallest_move import smallest_move

logger = logging.get_logger(__name__)

# Nats of the decoder that a unit of a margin is worth. With less the likelihood decides more, and more words are changed.
REVISION_WEIGHT = 100.0
# Tokens of a text that may be replaced or written before: those without which its attributes are clearest.
PLACES = 4
# Of the candidates for a text, so many with the clearest attributes are read by the decoder.
SHORTLIST = 32


@dataclass(repr=False)
class RevisedTexts(LatentTexts):
    """
    Args:
        texts (`list[str]`): with the attributes that were asked for.
        latents (`torch.Tensor` of shape `(texts, latent_size)`): the posterior mean of each.
        has_attributes (`list[bool]`): whether each has all of them, as clearly as asked for.
        num_changes (`list[int]`): how many tokens of each were replaced, left out or put in.
    """

    has_attributes: list[bool]
    num_changes: list[int]


def revise(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Texts,
    attributes: Mapping[str, Any],
    strength: float = 0.5,
    max_changes: int = 5,
    num_candidates: int = 10,
    attribute_weight: float = REVISION_WEIGHT,
    held: Mapping[str, LatentAttribute] | None = None,
    sources: Any = None,
    batch_size: int = 64,
) -> RevisedTexts:
    r"""
    Changes what a text is like, a token at a time, and leaves all other words as they are. [`edit`] writes a text anew from a moved
    z, and so keeps only what z holds. Here z only says which words to change.

    \(z\) is the text's own, and \(z^*\) the nearest to it that has the attributes ([`smallest_move`]). Each token may be left out.
    Where that helps the attributes most, and at the end, the decoder proposes tokens, which replace the token there or are put in
    front of it. Of all these texts \(y'\) that which maximises
    \[\log p(y'|x,z^*) + \log\frac{p(y'|x,z^*)}{p(y'|x,z)} + \lambda \sum_i \min(0, m_i(z(y')))\]
    is taken: it is likely under \(z^*\), likelier than under \(z\), and the margins \(m_i\) of the attributes at its own posterior
    mean \(z(y')\) say that it has them. The first two terms decide which tokens are proposed. So it goes on until no margin is
    below 0, or no change makes the attributes clearer.

    Args:
        model ([`VAEModel`]): any model of the family, with attributes of `set_attribute`.
        processor ([`VAEProcessor`]): its processor.
        texts (`str` or `list[str]`): y.
        attributes (`dict`): what they are to be like, by the attribute's name: a value for all, or a list with one for each text.
        strength (`float`, defaults to 0.5): how clearly, as of [`~LatentAttribute.margin`]: at 0 the text ends on the border
            between the labels, at 1 as far behind it as the texts that `fit_attribute` saw lie in the mean.
        max_changes (`int`, defaults to 5): tokens of a text that are changed, at most.
        num_candidates (`int`, defaults to 10): tokens that are tried at each place.
        attribute_weight (`float`, defaults to 100.0): λ, nats that a unit of a margin is worth.
        held (mapping of `str` to [`LatentAttribute`], *optional*): attributes in the place of the model's own.
        sources (*optional*): x of each text, as the processor takes it, for a conditional model.
        batch_size (`int`, defaults to 64): rows at once.

    Returns:
        [`RevisedTexts`]. There is a warning if texts do not have the attributes in the end.

    Raises:
        ValueError: an attribute that the model, or a value that the attribute does not have, an option out of range, a tokenizer
            that gives no offsets, or texts that [`encode_texts`] refuses.
    """
    check_number("strength", strength, least=0)
    check_number("attribute_weight", attribute_weight, above=0)
    for name, value in (("max_changes", max_changes), ("num_candidates", num_candidates), ("batch_size", batch_size)):
        check_count(name, value)
    texts = as_list("texts", texts)
    if not processor.tokenizer.is_fast:
        raise ValueError("The decoder's tokenizer gives no offsets, so a token's place in the text is not known; use a fast one.")
    wanted = AttributeEnergy(model.latent_attributes if held is None else held, attributes, batch_size=len(texts)).wanted
    given = check_sources(model, processor, texts, sources)

    def margins(rows: Sequence[int]) -> list[partial[torch.Tensor]]:
        """Of each attribute, for z of these rows."""
        targets = [(attribute, target if len(target) == 1 else target[list(rows)]) for _, attribute, target in wanted]
        return [partial(attribute.margin, target=target, strength=strength) for attribute, target in targets]

    def missing(latents: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """By how much z of each row lacks the attributes, 0 or below."""
        with torch.no_grad():
            return torch.stack([margin(latents).clamp(max=0).cpu() for margin in margins(rows)]).sum(0)

    def sources_of(rows: Sequence[int], written: list[str]) -> list:
        return written if given is None else [given[row] for row in rows]

    def read(rows: Sequence[int], written: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The z of texts that could stand in these rows, and by how much each lacks the attributes."""
        if not written:
            return latents[:0], lacking[:0]
        codes = posterior_of(model, processor, sources_of(rows, written), written, batch_size).mode()
        return codes, missing(codes, rows)

    own_latents = encode_texts(model, processor, texts, given, batch_size).mode()
    moved, _ = smallest_move(own_latents, margins(range(len(texts))))
    # What is likely under z*, and likelier than under the text's own z.
    compared = torch.stack([moved, own_latents], dim=1)
    latents = own_latents.clone()
    revised, num_changes, lacking = list(texts), [0] * len(texts), missing(latents, range(len(texts)))
    unfinished = lacking.lt(0).nonzero().flatten().tolist()
    for _ in range(max_changes):
        if not unfinished:
            break
        shortened = {row: _without_each_token(processor, revised[row]) for row in unfinished}
        own = [row for row, texts_without in shortened.items() for _ in texts_without]
        candidates = [text for texts_without in shortened.values() for text in texts_without]
        codes, lacks = read(own, candidates)
        # A text of one token cannot do without it.
        by_place = dict(zip(unfinished, lacks.split([len(shortened[row]) for row in unfinished])))
        places = {row: by_place[row].topk(min(PLACES, len(by_place[row]))).indices.tolist() or [0] for row in unfinished}
        added: list[str] = []
        for rows in _in_batches(unfinished, batch_size):
            written = [revised[row] for row in rows]
            evaluator = LikelihoodEvaluator(model, processor, sources_of(rows, written), written, batch_size)
            proposed = _proposals(evaluator, compared[rows], [places[row] for row in rows], num_candidates)
            own += [row for row, texts_with in zip(rows, proposed) for _ in texts_with]
            added += [text for texts_with in proposed for text in texts_with]
        more_codes, more_lacks = read(own[len(candidates) :], added)
        candidates, codes, lacks = candidates + added, torch.cat([codes, more_codes]), torch.cat([lacks, more_lacks])
        # What the decoder reads costs most: of each text only the candidates whose attributes are clearest, and clearer than now.
        better = [number for number in lacks.argsort(descending=True).tolist() if lacks[number] > lacking[own[number]]]
        taken: dict[int, list[int]] = {}
        for number in better:
            if len(taken.setdefault(own[number], [])) < SHORTLIST:
                taken[own[number]].append(number)
        shortlist = [number for numbers in taken.values() for number in numbers]
        if not shortlist:
            break
        rows, written = [own[number] for number in shortlist], [candidates[number] for number in shortlist]
        evaluator = LikelihoodEvaluator(model, processor, sources_of(rows, written), written, batch_size)
        there, here = evaluator.nll(compared[rows]).cpu().unbind(1)
        scores = attribute_weight * lacks[shortlist] - 2 * there + here
        for number, _ in sorted(zip(shortlist, scores.tolist()), key=lambda each: each[1]):
            # The best comes last, and stays.
            row = own[number]
            revised[row], latents[row], lacking[row] = candidates[number], codes[number], lacks[number]
        for row in taken:
            num_changes[row] += 1
        unfinished = [row for row in taken if lacking[row] < 0]
    has_attributes = (lacking >= 0).tolist()
    if not all(has_attributes):
        logger.warning(
            f"{has_attributes.count(False)} of {len(texts)} texts do not have what `attributes` asks for with `strength` "
            f"{strength:g} after `max_changes`={max_changes}: the attributes contradict each other, z does not say them, or it "
            "takes more changes."
        )
    return RevisedTexts(texts=revised, latents=latents, has_attributes=has_attributes, num_changes=num_changes)


def _in_batches(rows: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
    return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def _spans(processor: VAEProcessor, text: str) -> list[tuple[int, int]]:
    """Where each token of the text begins and ends."""
    return processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def _without_each_token(processor: VAEProcessor, text: str) -> list[str]:
    """The text without its first token, without its second and so on; none of one that has no more than one."""
    spans = _spans(processor, text)
    return [(text[:start].rstrip() + text[end:]).strip() for start, end in spans] if len(spans) > 1 else []


def _proposals(
    evaluator: LikelihoodEvaluator, compared: torch.Tensor, places: list[list[int]], num_candidates: int
) -> list[list[str]]:
    """For each example of `evaluator` the texts with another or one more token at these of its `places`, as [`revise`] says."""
    model, processor = evaluator.model, evaluator.processor
    tokenizer = processor.tokenizer
    size = model.config.decoder.get_text_config().vocab_size
    # Decoders often have more rows than their vocabulary has tokens.
    forbidden = [*tokenizer.all_special_ids, *range(len(tokenizer), size)]

    def likely(batch) -> list[list[list[int]]]:
        """Of each example the likeliest tokens at each of its places."""
        labels = cast(torch.LongTensor, batch.inputs["labels"])
        with evaluation_mode(model):
            there, here = (
                model.decode(z[batch.indices].to(model.device), labels, **batch.conditioning).float().log_softmax(-1)
                for z in compared.unbind(1)
            )
        scores = 2 * there - here
        scores[..., forbidden] = -torch.inf
        return scores.topk(num_candidates, dim=-1).indices.tolist()

    found = []
    for written, tokens, chosen in zip(evaluator.targets, evaluator.map(likely, "proposals"), places):
        # At the last place stands EOS, in front of which a token may be put.
        spans = [*_spans(processor, written), (len(written), len(written))]
        variants: list[str] = []
        for place in (*chosen, len(spans) - 1):
            (start, end), proposed = spans[place], tokens[place]
            before = written[:start].rstrip()
            space = written[len(before) : start]
            for piece in map(str.strip, tokenizer.batch_decode([[token] for token in proposed])):
                variants += [before + space + piece + written[end:], f"{before} {piece}{space}{written[start:]}"]
        texts = dict.fromkeys(map(str.strip, variants))
        found.append([text for text in texts if text and text != written])
    return found


__all__ = ["RevisedTexts", "revise"]
