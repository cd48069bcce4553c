"""Texts that are given attributes word by word, where one decoded from z would lose what z does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from transformers.utils import logging

from ..checks import check_count, check_number
from ..evaluation.evaluator import ExampleBatch, LikelihoodEvaluator
from ..latent_attribute import LatentAttribute
from ..latent_control import AttributeEnergy
from ..modeling_vae import VAEModel
from ..processing_vae import Texts, VAEProcessor, as_list
from .codes import LatentTexts, check_encoded, evaluation_mode, posterior_of
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
        model ([`VAEModel`]): any model of the family, with attributes of `set_attribute`; its mode stays as it is.
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
    given = check_encoded(model, processor, texts, sources)

    num_changes = [0] * len(texts)
    with evaluation_mode(model):
        reviser = _Reviser(model, processor, texts, given, wanted, strength, attribute_weight, num_candidates, batch_size)
        drafts = list(reviser.own)
        unfinished = [draft for draft in drafts if draft.lacking < 0]
        for _ in range(max_changes):
            if not unfinished:
                break
            changed = reviser.change(unfinished)
            for draft in changed:
                drafts[draft.row] = draft
                num_changes[draft.row] += 1
            unfinished = [draft for draft in changed if draft.lacking < 0]
    has_attributes = [draft.lacking >= 0 for draft in drafts]
    if not all(has_attributes):
        logger.warning(
            f"{has_attributes.count(False)} of {len(texts)} texts do not have what `attributes` asks for with `strength` "
            f"{strength:g} after `max_changes`={max_changes}: the attributes contradict each other, z does not say them, or it "
            "takes more changes."
        )
    latents = torch.stack([draft.latents for draft in drafts])
    written = [draft.text for draft in drafts]
    return RevisedTexts(texts=written, latents=latents, has_attributes=has_attributes, num_changes=num_changes)


@dataclass(frozen=True, eq=False)
class _Draft:
    """A text for a row, its posterior mean `(latent_size,)`, and by how much that lacks the attributes: 0, or below."""

    row: int
    text: str
    latents: torch.Tensor
    lacking: float


def _by_row(drafts: Sequence[_Draft]) -> dict[int, list[_Draft]]:
    found: dict[int, list[_Draft]] = {}
    for draft in drafts:
        found.setdefault(draft.row, []).append(draft)
    return found


def _lacking(drafts: Sequence[_Draft]) -> torch.Tensor:
    return torch.tensor([draft.lacking for draft in drafts])


class _Reviser:
    """
    Brings texts nearer to attributes, a token at a time, as [`revise`] says.

    Args:
        model, processor, texts, strength, attribute_weight, num_candidates, batch_size: as there.
        sources (`list`): x of each text, or `None` if it is the text.
        wanted (`list`): each attribute's name, itself and its target, as [`AttributeEnergy`] holds them.
    """

    def __init__(
        self,
        model: VAEModel,
        processor: VAEProcessor,
        texts: list[str],
        sources: list | None,
        wanted: Sequence[tuple[str, LatentAttribute, torch.Tensor]],
        strength: float,
        attribute_weight: float,
        num_candidates: int,
        batch_size: int,
    ):
        self.model, self.processor, self.sources, self.batch_size = model, processor, sources, batch_size
        self.wanted, self.strength = wanted, strength
        self.attribute_weight, self.num_candidates = attribute_weight, num_candidates
        self.own = self.read(list(enumerate(texts)))
        latents = torch.stack([draft.latents for draft in self.own])
        moved, _ = smallest_move(latents, self.margins(range(len(texts))))
        # A change is to be likely under z*, and likelier than under the text's own z.
        self.compared = torch.stack([moved, latents], dim=1)

    def margins(self, rows: Sequence[int]) -> list[partial[torch.Tensor]]:
        """Of each attribute, for z of these rows."""
        targets = [(attribute, target if len(target) == 1 else target[list(rows)]) for _, attribute, target in self.wanted]
        return [partial(attribute.margin, target=target, strength=self.strength) for attribute, target in targets]

    def sources_of(self, rows: list[int], texts: list[str]) -> list:
        return texts if self.sources is None else [self.sources[row] for row in rows]

    def read(self, written: Sequence[tuple[int, str]]) -> list[_Draft]:
        """Rows and what their texts could be, as drafts."""
        if not written:
            return []
        rows, texts = [row for row, _ in written], [text for _, text in written]
        latents = posterior_of(self.model, self.processor, self.sources_of(rows, texts), texts, self.batch_size).mode()
        lacking = torch.stack([margin(latents).clamp(max=0).cpu() for margin in self.margins(rows)]).sum(0)
        return list(map(_Draft, rows, texts, latents, lacking.tolist()))

    def evaluator(self, drafts: Sequence[_Draft]) -> LikelihoodEvaluator:
        texts = [draft.text for draft in drafts]
        sources = self.sources_of([draft.row for draft in drafts], texts)
        return LikelihoodEvaluator(self.model, self.processor, sources, texts, self.batch_size)

    def change(self, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Each draft with its best change, if there is one that makes the attributes clearer."""
        shorter = self.read([(draft.row, text) for draft in drafts for text in _without_each_token(self.processor, draft.text)])
        candidates = [*shorter, *self.read(self.proposals(drafts, _by_row(shorter)))]
        lacking = {draft.row: draft.lacking for draft in drafts}
        clearest_first = [candidates[number] for number in _lacking(candidates).argsort(descending=True).tolist()]
        clearer = _by_row([each for each in clearest_first if each.lacking > lacking[each.row]])
        # What the decoder reads costs most.
        shortlist = [each for of_row in clearer.values() for each in of_row[:SHORTLIST]]
        if not shortlist:
            return []
        there, here = self.evaluator(shortlist).nll(self.compared[[each.row for each in shortlist]]).cpu().unbind(1)
        scores = self.attribute_weight * _lacking(shortlist) - 2 * there + here
        ranked = sorted(zip(shortlist, scores.tolist()), key=lambda pair: pair[1])
        # The best of a row comes last, and stays.
        best = {each.row: each for each, _ in ranked}.values()
        # Each z is a view of all candidates', which would stay in memory.
        return [replace(each, latents=each.latents.clone()) for each in best]

    def proposals(self, drafts: Sequence[_Draft], shorter: Mapping[int, list[_Draft]]) -> list[tuple[int, str]]:
        """
        Rows and texts: each draft with one token more at the end, and with another or one more where leaving one out helps the
        attributes most.
        """
        tokenizer = self.processor.tokenizer
        proposed = self.evaluator(drafts).map(partial(self.likely, drafts), "proposals")
        found = []
        for draft, tokens in zip(drafts, proposed):
            # At the last place stands EOS, in front of which a token may be put.
            spans = [*_spans(self.processor, draft.text), (len(draft.text), len(draft.text))]
            without = shorter.get(draft.row, [])
            places = _lacking(without).topk(min(PLACES, len(without))).indices.tolist()
            variants: list[str] = []
            # A text of one token has no shorter one, and that token may be another.
            for place in (*(places or [0]), len(spans) - 1):
                start, end = spans[place]
                before = draft.text[:start].rstrip()
                space = draft.text[len(before) : start]
                for piece in map(str.strip, tokenizer.batch_decode([[token] for token in tokens[place]])):
                    variants += [before + space + piece + draft.text[end:], f"{before} {piece}{space}{draft.text[start:]}"]
            texts = dict.fromkeys(map(str.strip, variants))
            found += [(draft.row, text) for text in texts if text and text != draft.text]
        return found

    def likely(self, drafts: Sequence[_Draft], batch: ExampleBatch) -> list[list[list[int]]]:
        """Of each draft of a batch the likeliest tokens at each of its places: under z*, and more than under the text's own z."""
        tokenizer = self.processor.tokenizer
        size = self.model.config.decoder.get_text_config().vocab_size
        # Decoders often have more rows than their vocabulary has tokens.
        forbidden = [*tokenizer.all_special_ids, *range(len(tokenizer), size)]
        labels = cast(torch.LongTensor, batch.inputs["labels"])
        compared = self.compared[[drafts[index].row for index in batch.indices]].to(self.model.device)
        there, here = (self.model.decode(z, labels, **batch.conditioning).float().log_softmax(-1) for z in compared.unbind(1))
        scores = 2 * there - here
        scores[..., forbidden] = -torch.inf
        return scores.topk(self.num_candidates, dim=-1).indices.tolist()


def _spans(processor: VAEProcessor, text: str) -> list[tuple[int, int]]:
    """Where each token of the text begins and ends."""
    return processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def _without_each_token(processor: VAEProcessor, text: str) -> list[str]:
    """The text without its first token, without its second and so on; none of one that has no more than one."""
    spans = _spans(processor, text)
    return [(text[:start].rstrip() + text[end:]).strip() for start, end in spans] if len(spans) > 1 else []


__all__ = ["RevisedTexts", "revise"]
