"""Several outputs of one source, each with its z, and a z that is kept for another source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from ..checks import check_seed
from ..dialog_session import DialogSession
from ..evaluation.generation import decode_tokens
from ..latent_space.codes import evaluation_mode
from ..modeling_dialog_cvae import DialogCVAEModel
from ..processing_dialog import DialogCVAEProcessor, Message
from ..processing_vae import is_text
from .explored import Explored


@dataclass
class Output:
    """
    Args:
        text (`str`): what was written.
        latents (`torch.Tensor` of shape `(latent_size,)`): its z, on the CPU.
        act (`str`, *optional*): of a reply.
    """

    text: str
    latents: torch.Tensor
    act: str | None = None


def draw_outputs(
    explored: Explored,
    written: str | None,
    count: int = 5,
    temperature: float = 1.0,
    spread: str = "independent",
    seed: int | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> list[Output]:
    """
    Several texts of one source, each decoded greedily from its own z.

    Args:
        explored ([`Explored`]): the model; not of dialogues, which have [`draw_replies`].
        written (`str`, *optional*): x. Of a VAE it is a text whose neighbours are drawn, z from q(z|y), or nothing: z from p(z).
        count (`int`, defaults to 5): outputs.
        temperature (`float`, defaults to 1.0): factor on the spread of z.
        spread (`str`, defaults to `"independent"`): how the z lie to each other, as `generate` takes it.
        seed (`int`, *optional*): of z; without it, other ones at every call.
        attributes (`dict`, *optional*): what they are to be like, as `generate` takes it.

    Raises:
        ValueError: an option out of range, or a source that is missing or too long.
    """
    inputs: Mapping[str, torch.Tensor] = {}
    generator = _generator(seed)
    options: dict[str, Any] = {"latent_temperature": temperature, "latent_spread": spread, "generator": generator}
    if attributes:
        options["attributes"] = dict(attributes)
    if explored.is_conditional:
        inputs = explored.processor(explored.as_source(written))
        options["num_return_sequences"] = count
    elif is_text(written):
        explored.check_posterior()
        inputs = explored.processor(cast(str, written).strip())
        options["num_return_sequences"] = count
    else:
        options["num_samples"] = count
    with explored.lock, evaluation_mode(explored.model):
        given: dict[str, Any] = {name: tensor.to(explored.model.device) for name, tensor in inputs.items()}
        found = explored.model.generate(
            **given,
            **options,
            max_new_tokens=explored.max_new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
        )
    # The first is the start token.
    texts = [decode_tokens(explored.processor, row) for row in found["sequences"][:, 1:]]
    return [Output(text, z) for text, z in zip(texts, found["latents"].float().cpu(), strict=True)]


def draw_replies(
    explored: Explored,
    messages: Sequence[Message],
    count: int = 3,
    temperature: float = 1.0,
    spread: str = "independent",
    seed: int | None = None,
    act: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> list[Output]:
    """
    Several replies to a conversation, as [`DialogSession.replies`] gives them.

    Args:
        explored ([`Explored`]): a model of dialogues.
        messages (`list`): the turns so far; not changed.
        count, temperature, spread, seed, attributes: as of [`draw_outputs`].
        act (`str`, *optional*): what the replies are to do.

    Raises:
        ValueError: nothing has been said yet, or an option out of range.
    """
    if not messages:
        raise ValueError("Nothing has been said yet: write a turn.")
    model, processor = cast(DialogCVAEModel, explored.model), cast(DialogCVAEProcessor, explored.processor)
    session = DialogSession(model, processor, meta=explored.meta, generator=_generator(seed))
    session.messages = [dict(message) for message in messages]
    with explored.lock:
        replies = session.replies(
            count,
            act=act,
            latent_temperature=temperature,
            latent_spread=spread,
            attributes=dict(attributes) if attributes else None,
            max_new_tokens=explored.max_new_tokens,
            do_sample=False,
        )
    return [Output(reply.text, reply.latents.float().cpu(), reply.act) for reply in replies]


def apply_latents(explored: Explored, latents: Sequence[torch.Tensor], written: str | None) -> list[str]:
    """
    What each kept z writes of another source.

    Args:
        explored ([`Explored`]): the model.
        latents (list of `torch.Tensor` of shape `(latent_size,)`): z.
        written (`str`, *optional*): x.

    Raises:
        ValueError: no z, or no source.
    """
    if not latents:
        raise ValueError("No z is kept: tick outputs and keep their z first.")
    return explored.decode(torch.stack(list(latents)), explored.as_source(written))


def _generator(seed: int | None) -> torch.Generator:
    """Noise of its own for each call, so that nobody's seed is another's."""
    if seed is not None:
        check_seed("seed", seed)
    generator = torch.Generator()
    generator.manual_seed(seed) if seed is not None else generator.seed()
    return generator
