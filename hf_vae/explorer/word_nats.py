"""What each word costs, given its own z and given none: what z says, word by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from ..calls import call_with
from ..checks import float_latents
from ..latent_space.codes import evaluation_mode
from ..modeling_dialog_cvae import DialogCVAEModel
from ..modeling_vae import VAEModel
from ..processing_vae import is_text
from ..rows import repeat_rows
from .explored import Explored

END = "(end)"


@dataclass
class WordNats:
    """
    Args:
        words (`list[str]`): of the text, and `END`, at which it ends.
        nats (`torch.Tensor` of shape `(latents, words)`): -log p(word | words before it, z, x) for each z.
    """

    words: list[str]
    nats: torch.Tensor


@dataclass
class Reconstruction:
    """
    Args:
        words (`list[str]`): of the text, and `END`.
        own, zero (`list[float]`): nats of each word with the text's own z, the mode of q, and with z = 0.
        text (`str`): what is written of its own z.
        kl (`float`, *optional*): KL(q ‖ p) in nats; `None` without a closed form.
    """

    words: list[str]
    own: list[float]
    zero: list[float]
    text: str
    kl: float | None = None


def word_nats(explored: Explored, text: str, latents: torch.Tensor, source: Any = None) -> WordNats:
    r"""
    \(-\log p(y_t|y_{<t},z,x)\) of each word, nats, which is the sum over its tokens. Over all words and the end it is what
    [`~VAEModel.nll`] gives.

    Args:
        explored ([`Explored`]): the model.
        text (`str`): y.
        latents (`torch.Tensor` of shape `(rows, latent_size)`): the z to compare.
        source (*optional*): x, as the processor takes it.

    Raises:
        ValueError: the text is empty or too long.
    """
    if not is_text(text):
        raise ValueError("The text is empty: write one whose words are to be measured.")
    model, processor = explored.model, explored.processor
    z = float_latents(latents).to(model.device)
    with explored.lock, evaluation_mode(model):
        inputs = processor(text if source is None else source, text).to(model.device)
        labels = cast(torch.LongTensor, inputs["labels"].expand(len(z), -1))
        read = call_with(model.read_source, inputs, with_prior=False)
        # The act of a reply is not asked for, and then all acts count.
        conditioning = repeat_rows(model.condition(read), len(z))
        token_nats = _token_nats(model, z, labels, conditioning).cpu()
    words = _words_of(explored, text, labels[0].tolist())
    nats = torch.zeros(len(z), max(place for place, _ in words) + 1)
    names = [""] * nats.shape[1]
    for token, (place, word) in enumerate(words):
        nats[:, place] += token_nats[:, token]
        names[place] = word
    return WordNats(names, nats)


def _token_nats(model: VAEModel, z: torch.Tensor, labels: torch.LongTensor, conditioning: dict[str, Any]) -> torch.Tensor:
    r"""
    \(-\log p(y_t|y_{<t},z,x)\) of each token, `(rows, tokens)`. A reply whose act is not known is a mixture over acts, so that its
    beginnings are too: \(p(y_{\le t}) = \sum_a p(a|x,z) \prod_{s \le t} p(y_s|y_{<s},z,x,a)\), and a token is the step between two.
    """

    def log_probs(**act: Any) -> torch.Tensor:
        logits = model.decode(z, labels, **conditioning, **act)
        return logits.float().log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    if not (isinstance(model, DialogCVAEModel) and model.config.num_acts):
        return -log_probs()
    of_acts = model.predict_acts(z, conditioning["context"]).unbind(-1)
    beginnings = torch.stack(
        [
            log_prob.unsqueeze(-1) + log_probs(act_labels=labels.new_full((len(z),), act)).cumsum(-1)
            for act, log_prob in enumerate(of_acts)
        ]
    ).logsumexp(0)
    return -torch.diff(beginnings, dim=-1, prepend=torch.zeros_like(beginnings[:, :1]))


def _words_of(explored: Explored, text: str, tokens: Sequence[int]) -> list[tuple[int, str]]:
    """For each token, EOS last, the place of its word, and the word."""
    tokenizer = explored.processor.tokenizer
    if not tokenizer.is_fast:
        # Without offsets a token is a word by itself.
        return [*enumerate(tokenizer.convert_ids_to_tokens(list(tokens[:-1]))), (len(tokens) - 1, END)]
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    spans, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        spans.append((start, start + len(word), word))
        start += len(word)
    found, place = [], 0
    for begin, end in offsets[: len(tokens) - 1]:
        # The space before a word is part of its token, or a token by itself, which belongs to the word that follows.
        while place < len(spans) - 1 and not (begin < spans[place][1] and end > spans[place][0]) and spans[place][1] <= begin:
            place += 1
        found.append(place)
    # Words that no token comes from leave no gap.
    ranks = {place: rank for rank, place in enumerate(sorted(set(found)))}
    return [*((ranks[place], spans[place][2]) for place in found), (len(ranks), END)]


def reconstruction(explored: Explored, text: str, written_source: str | None = None) -> Reconstruction:
    """
    A text through the encoder and back, with what each of its words costs with its own z and with z = 0.

    Args:
        explored ([`Explored`]): the model.
        text (`str`): y.
        written_source (`str`, *optional*): x, for a conditional model.

    Raises:
        ValueError: a text is missing or too long, or the model has no posterior.
    """
    if not is_text(text):
        raise ValueError("The text is empty: write one whose words are to be measured.")
    text, source = text.strip(), explored.as_source(written_source)
    posterior = explored.encode([text], None if source is None else [source])
    own = posterior.mode()
    measured = word_nats(explored, text, torch.cat([own, torch.zeros_like(own)]), source)
    with explored.lock:
        prior = _prior_of(explored, source)
        kl = posterior.kl(prior)
    return Reconstruction(
        words=measured.words,
        own=measured.nats[0].tolist(),
        zero=measured.nats[1].tolist(),
        text=explored.decode(own, source)[0],
        kl=None if kl is None else kl.sum().item(),
    )


def _prior_of(explored: Explored, source: Any) -> Any:
    """p(z|x) of one source, or p(z), on the CPU."""
    if source is None:
        return explored.one_prior()
    with torch.no_grad():
        read = call_with(explored.model.read_source, explored.processor(source).to(explored.model.device))
        return explored.model.prior(read, 1).latent_dist.to("cpu")
