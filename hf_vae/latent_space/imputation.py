"""Missing words, filled in by turns with the code of the text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from transformers import BatchEncoding, LogitsProcessor, LogitsProcessorList

from ..calls import call_with
from ..checks import check_count
from ..encoders import check_length
from ..evaluation.generation import decode_tokens
from ..fused_linear_cross_entropy import sequence_nll
from ..modeling_vae import VAEModel
from ..processing_vae import Texts, VAEProcessor, as_list
from ..unknown_words import warn_of_unknown_words
from .codes import LatentTexts, check_sources, evaluation_mode, posterior_of

# In a template: any token but a special one.
UNKNOWN = -1
# Stands in for a blank while the text around it is cut into tokens: a letter, which punctuation does not stick to.
FILLER = "x"


@dataclass(repr=False)
class Imputation(LatentTexts):
    """
    Args:
        texts (`list[str]`): filled in, as the decoder's tokenizer writes them.
        latents (`torch.Tensor` of shape `(texts, latent_size)`): the z of each text's last round.
        rounds (`list[list[str]]`): for each text, what it was after each of its rounds; a text that stopped changing has fewer.
        log_likelihoods (`list[list[float]]`): log p(y|z) of those, EOS included, nats per sentence, under their round's z.
    """

    rounds: list[list[str]]
    log_likelihoods: list[list[float]]


def impute(
    model: VAEModel,
    processor: VAEProcessor,
    texts_with_blanks: Texts,
    blank: str = "____",
    tokens_per_blank: int = 1,
    max_rounds: int = 3,
    num_beams: int = 5,
    sources: Any = None,
    batch_size: int = 32,
) -> Imputation:
    r"""
    Fills in blanks by iterated conditional modes (Bowman et al. 2015, table 4): z becomes the posterior mean of the text as it
    stands, at first with every unknown token read as UNK; then beam search under that z finds the unknown tokens, all others being
    forced. A text is done when a round leaves it as it was, or after `max_rounds`.

    The number of tokens is fixed: each blank is `tokens_per_blank` tokens of the decoder's vocabulary (several blanks in a row are
    so many times that), which may be pieces of words, but no special token. The search keeps the known words behind a blank in
    view: what it maximises is log p(y|z) of the whole text. Within a round log p(y|z) does not fall, because the text so far is
    kept if the beam ends lower; from round to round it may, if q(z|y) moves z elsewhere.

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor, with a decoder's tokenizer that gives offsets (a "fast" one).
        texts_with_blanks (`str` or `list[str]`): each with at least one blank and one known token.
        blank (`str`, defaults to `"____"`): the marker of a blank; a word of its own, punctuation may touch it.
        tokens_per_blank (`int`, defaults to 1): tokens behind each marker.
        max_rounds (`int`, defaults to 3): rounds at most; 3 in the paper.
        num_beams (`int`, defaults to 5): beams; 5 in the paper.
        sources (`str` or `list[str]`, *optional*): x of each text, for a conditional model: q reads the pair, the decoder sees x.
        batch_size (`int`, defaults to 32): texts at once.

    Returns:
        [`Imputation`].

    Raises:
        ValueError: an option below 1, a text without a blank or with nothing else, a blank that is part of a word, a text longer
            than the decoder holds, a tokenizer that cannot serve, or sources that the model needs or does not read.
    """
    templates, opened = open_blanks(processor, texts_with_blanks, blank, tokens_per_blank)
    for name, value in (("max_rounds", max_rounds), ("num_beams", num_beams)):
        check_count(name, value)
    check_count("batch_size", batch_size)
    given = check_sources(model, processor, opened, sources)
    # A blank is read as the unknown word, and is none.
    known = [text.replace(blank, " ") for text in as_list("texts_with_blanks", texts_with_blanks)]
    warn_of_unknown_words(processor.encoder_tokenizer, known)
    conditioning = {} if given is None else dict(processor(given))
    mask = (~_after_eos(templates, processor)).long()
    if "prompt_attention_mask" in conditioning:
        mask = torch.cat([conditioning["prompt_attention_mask"], mask], dim=1)
    # The start token counts, EOS does not: the same number.
    check_length("The longest of `texts_with_blanks`", mask, model.config.decoder)
    texts, best = opened, torch.full_like(templates, UNKNOWN)
    latents = torch.zeros(len(texts), model.config.total_latent_size)
    rounds: list[list[str]] = [[] for _ in texts]
    log_likelihoods: list[list[float]] = [[] for _ in texts]
    unfinished = list(range(len(texts)))
    for number in range(max_rounds):
        pairs = None if given is None else [given[i] for i in unfinished]
        as_they_stand = [texts[i] for i in unfinished]
        latents[unfinished] = posterior_of(model, processor, pairs or as_they_stand, as_they_stand, batch_size).mode()
        changed = []
        for start in range(0, len(unfinished), batch_size):
            rows = unfinished[start : start + batch_size]
            z, x = latents[rows].to(model.device), {name: tensor[rows].to(model.device) for name, tensor in conditioning.items()}
            with evaluation_mode(model):
                found = _fill(model, processor, templates[rows], z, x, num_beams)
                scores = _log_likelihoods(model, processor, found, z, x)
                if number:
                    before = _log_likelihoods(model, processor, best[rows], z, x)
                    found = torch.where((scores > before).unsqueeze(-1), found, best[rows])
                    scores = torch.maximum(scores, before)
            for row, tokens, score in zip(rows, found, scores.tolist()):
                best[row], texts[row] = tokens, decode_tokens(processor, tokens)
                # The same text has the same z, and would be found again.
                if rounds[row][-1:] != [texts[row]]:
                    changed.append(row)
                rounds[row].append(texts[row])
                log_likelihoods[row].append(score)
        unfinished = changed
        if not unfinished:
            break
    return Imputation(texts=texts, latents=latents, rounds=rounds, log_likelihoods=log_likelihoods)


def open_blanks(
    processor: VAEProcessor, texts_with_blanks: Texts, blank: str, tokens_per_blank: int
) -> tuple[torch.Tensor, list[str]]:
    """
    What is known of each text.

    Returns:
        Templates `(texts, length)` in the decoder's vocabulary: `UNKNOWN` in the blanks, EOS after the last token, padding after
        that; and the texts with the encoder's UNK in the blanks, which is what q reads first.
    """
    texts = as_list("texts_with_blanks", texts_with_blanks)
    check_count("tokens_per_blank", tokens_per_blank)
    if not blank or blank.isspace():
        raise ValueError("`blank` is empty; it is the marker that stands for missing words.")
    without = [row for row, text in enumerate(texts) if blank not in text]
    if without:
        raise ValueError(f"`texts_with_blanks` has no blank {blank!r} at position(s) {without[:10]}.")
    if not processor.tokenizer.is_fast:
        raise ValueError("The decoder's tokenizer gives no offsets, so blanks cannot be told from words; use a fast one.")
    # Bowman's UNK; an encoder without one has been trained to guess at its mask.
    unknown = processor.encoder_tokenizer.unk_token or processor.encoder_tokenizer.mask_token
    if unknown is None:
        raise ValueError("The encoder's tokenizer has neither an UNK nor a mask token to read a blank as.")
    rows = [_template(processor, row, text, blank, tokens_per_blank) for row, text in enumerate(texts)]
    eos, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    longest = max(map(len, rows)) + 1
    templates = torch.tensor([[*row, eos, *[pad] * (longest - len(row) - 1)] for row in rows])
    return templates, [text.replace(blank, " ".join([unknown] * tokens_per_blank)) for text in texts]


def _template(processor: VAEProcessor, row: int, text: str, blank: str, tokens_per_blank: int) -> list[int]:
    """Token ids of `text`, with `tokens_per_blank` times `UNKNOWN` in place of each blank."""
    pieces = text.split(blank)
    filled, blanks = pieces[0], []
    for piece in pieces[1:]:
        blanks.append((len(filled), len(filled) + len(FILLER)))
        filled += FILLER + piece
    if any(before[-1:].isalnum() or after[:1].isalnum() for before, after in pairwise(pieces)):
        raise ValueError(f"`texts_with_blanks` at position {row}: a blank is part of a word; put spaces around it.")
    encoding = processor.tokenizer(filled, add_special_tokens=False, return_offsets_mapping=True)
    template: list[int] = []
    pending = list(blanks)
    for token, (start, end) in zip(encoding["input_ids"], encoding["offset_mapping"]):
        touched = [span for span in blanks if start < span[1] and end > span[0]]
        outside = [i for i in range(start, end) if not filled[i].isspace() and not any(a <= i < b for a, b in touched)]
        if touched and outside:
            raise ValueError(
                f"`texts_with_blanks` at position {row}: a blank and {filled[outside[0]]!r} are one token of the decoder's "
                "vocabulary; put spaces around the blank."
            )
        # A vocabulary may have no token for the filler, and then it leaves nothing but its place.
        while pending and (pending[0] in touched or pending[0][1] <= start):
            template += [UNKNOWN] * tokens_per_blank
            pending.pop(0)
        # Some vocabularies have the space before a word as a token of its own.
        space = any(end == span[0] for span in blanks) and not filled[start:end].strip()
        if not touched and not space:
            template.append(token)
    template += [UNKNOWN] * tokens_per_blank * len(pending)
    if all(token == UNKNOWN for token in template):
        raise ValueError(
            f"`texts_with_blanks` at position {row} holds nothing but blanks; `sample_prior` writes a text without any."
        )
    return template


class TemplateLogitsProcessor(LogitsProcessor):
    """
    Lets each sequence have only the tokens of its template: the token that stands there, or, if `UNKNOWN` does, any but
    `forbidden`. Scores of tokens that are let through stay as they are.

    Args:
        templates (`torch.Tensor` of shape `(rows, length)`).
        prompt_length (`int`): tokens in front of the first one that the template speaks of.
        forbidden (`list[int]`): special tokens, and numbers that are no token.
    """

    def __init__(self, templates: torch.Tensor, prompt_length: int, forbidden: list[int]):
        self.templates, self.prompt_length, self.forbidden = templates, prompt_length, forbidden

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        position = input_ids.shape[1] - self.prompt_length
        # A row's beams are next to each other.
        wanted = self.templates[:, position].repeat_interleave(scores.shape[0] // self.templates.shape[0]).unsqueeze(-1)
        tokens = torch.arange(scores.shape[1], device=scores.device)
        free = (wanted == UNKNOWN) & ~torch.isin(tokens, torch.tensor(self.forbidden, device=scores.device))
        # What the template says is said, even if the model's own defaults (a repetition rule, a least length) rule it out.
        forced = (wanted == tokens) & (scores == -torch.inf)
        scores = cast(torch.FloatTensor, scores.masked_fill(forced, 0.0))
        return cast(torch.FloatTensor, scores.masked_fill(~(free | (wanted == tokens)), -torch.inf))


def _fill(
    model: VAEModel,
    processor: VAEProcessor,
    templates: torch.Tensor,
    latents: torch.Tensor,
    conditioning: dict[str, Any],
    num_beams: int,
) -> torch.Tensor:
    """The best beam under z that agrees with each template: token ids `(rows, length)`, EOS and padding as in the template."""
    length = templates.shape[1]
    prompt = conditioning["prompt_input_ids"].shape[1] if "prompt_input_ids" in conditioning else 0
    # Decoders often have more rows than their vocabulary has tokens.
    nameless = range(len(processor.tokenizer), model.config.decoder.get_text_config().vocab_size)
    forbidden = [*processor.tokenizer.all_special_ids, *nameless]
    template = TemplateLogitsProcessor(templates.to(model.device), prompt + 1, forbidden)
    sequences = model.generate(
        **conditioning,
        latents=latents,
        num_return_sequences=1,
        logits_processor=LogitsProcessorList([template]),
        max_new_tokens=length,
        num_beams=num_beams,
        do_sample=False,
        return_dict_in_generate=False,
    )
    found = templates.clone()
    # The start token comes first; after EOS the template knows better than a beam that has ended.
    tokens = sequences[:, 1 : length + 1].cpu()
    unknown = templates[:, : tokens.shape[1]] == UNKNOWN
    found[:, : tokens.shape[1]][unknown] = tokens[unknown]
    return found


def _log_likelihoods(
    model: VAEModel, processor: VAEProcessor, tokens: torch.Tensor, latents: torch.Tensor, conditioning: dict[str, Any]
) -> torch.Tensor:
    """log p(y|z) of each row of `tokens` `(rows, length)`, nats per sentence: `(rows,)`, on the CPU."""
    labels = cast(torch.LongTensor, tokens.masked_fill(_after_eos(tokens, processor), -100).to(model.device))
    logits = model.decode(latents, labels, **model.condition(call_with(model.read_source, BatchEncoding(conditioning))))
    return -sequence_nll(logits, labels).cpu()


def _after_eos(tokens: torch.Tensor, processor: VAEProcessor) -> torch.Tensor:
    """Where padding is in `tokens` `(rows, length)`, which may be EOS itself: all that follows a row's first EOS."""
    ends = (tokens == processor.tokenizer.eos_token_id).cumsum(-1)
    return torch.nn.functional.pad(ends[:, :-1], (1, 0)) > 0


__all__ = ["Imputation", "impute"]
