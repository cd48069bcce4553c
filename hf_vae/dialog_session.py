"""A conversation with a dialogue model, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .calls import call_with
from .checks import check_choice, check_count, check_number
from .generation_options import option
from .latent_control import AttributeEnergy, draw_latents
from .latent_spread import LATENT_SPREADS
from .modeling_dialog_cvae import DialogCVAEModel
from .processing_dialog import SYSTEM, DialogCVAEProcessor, Message
from .processing_vae import is_text
from .source import EncodedSource
from .unknown_words import warn_of_unknown_words


@dataclass
class Reply:
    """
    Args:
        text (`str`): the reply.
        latents (`torch.Tensor` of shape `(latent_size,)`): the z that it was decoded from.
        act (`str`, *optional*): the act that was asked for, or else the likeliest act under p(a|x,z), if the model has acts.
    """

    text: str
    latents: torch.Tensor
    act: str | None = None


class DialogSession:
    """
    A conversation: it keeps the turns and gives several replies to them.

    Args:
        model ([`DialogCVAEModel`]): the model; it is put into evaluation mode.
        processor ([`DialogCVAEProcessor`]): the model's processor.
        role (`str`, defaults to `"assistant"`): the role that the model replies in.
        meta (`dict`, *optional*): further features of the dialogue, if the model reads them.
        generator (`torch.Generator`, *optional*): the source of the noise in z.

    Raises:
        ValueError: the model or the processor is of another kind, or `role` is the system's, which never replies.
    """

    def __init__(
        self,
        model: DialogCVAEModel,
        processor: DialogCVAEProcessor,
        role: str = "assistant",
        meta: dict[str, Any] | None = None,
        generator: torch.Generator | None = None,
    ):
        for name, given, expected in (("model", model, DialogCVAEModel), ("processor", processor, DialogCVAEProcessor)):
            if not isinstance(given, expected):
                raise ValueError(f"`{name}` is a {type(given).__name__}; a conversation needs a {expected.__name__}.")
        if role == SYSTEM:
            raise ValueError(f"`role` is {SYSTEM!r}, which never replies: name another.")
        self.model, self.processor = model.eval(), processor
        self.role, self.meta, self.generator = role, meta, generator
        self.messages: list[Message] = []

    def say(self, content: str, role: str = "user") -> None:
        """
        Adds a turn, with a warning if more than 1 % of its tokens are not in the model's vocabulary.

        Raises:
            ValueError: `content` is empty or not a text.
        """
        if not is_text(content):
            raise ValueError(f"`content` is {content!r}; give a text that is not empty.")
        warn_of_unknown_words(self.processor.encoder_tokenizer, [content])
        self.messages.append({"role": role, "content": content.strip()})

    @torch.no_grad()
    def replies(
        self,
        num_return_sequences: int = 1,
        act: str | None = None,
        latent_temperature: float | None = None,
        latent_spread: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        attribute_weight: float | None = None,
        max_length: int | None = None,
        **generation_options,
    ) -> list[Reply]:
        """
        Possible next turns, each decoded from its own z. The conversation does not change until [`~DialogSession.say`] adds one.

        Args:
            num_return_sequences (`int`, defaults to 1): the number of replies.
            act (`str`, *optional*): the act that all replies should perform.
            latent_temperature (`float`, *optional*): the factor on the spread of z, by default the model's own; 0 gives the
                likeliest z.
            latent_spread (`str`, *optional*): how the z of the replies lie to each other, as `generate` takes it; by default the
                model's own.
            attributes (`dict`, *optional*): what the replies are to be like, and how strictly, `attribute_weight`, as `generate`
                takes them.
            max_length (`int`, *optional*): the number of tokens, of the latest turns, that are read; by default as many as the
                model holds beside the reply, and at most the processor's `max_context_length`. All turns are kept.
            generation_options: further options of `generate`.

        Raises:
            ValueError: nothing has been said yet, the model knows no such act or attribute, the number of replies is below 1,
                the temperature is negative, or the longest reply would leave no room for the conversation.
        """
        check_count("num_return_sequences", num_return_sequences)
        if latent_temperature is not None:
            check_number("latent_temperature", latent_temperature, least=0)
        if latent_spread is not None:
            check_choice("latent_spread", latent_spread, tuple(LATENT_SPREADS))
        if max_length is None:
            lengths = {name: generation_options.get(name) for name in ("max_new_tokens", "generation_config")}
            longest = self.model.longest_context(**lengths)
            max_length = min((length for length in (longest, self.processor.max_context_length) if length), default=None)
        asked_for = AttributeEnergy.of(self.model.latent_attributes, attributes, attribute_weight, 1)
        dialogue = {"messages": self.messages, "role": self.role, "act": act, "meta": self.meta}
        inputs = self.processor(dialogue, max_length=max_length).to(self.model.device)
        act_labels = inputs.pop("act_labels", None)
        source = call_with(self.model.read_source, inputs)
        prior = self.model.prior(source).latent_dist
        defaults = self.model.generation_config
        temperature = option("latent_temperature", latent_temperature, defaults, 1.0)
        spread = option("latent_spread", latent_spread, defaults, "independent")
        latents = draw_latents(
            prior, num_return_sequences, asked_for, spread=spread, generator=self.generator, temperature=temperature
        ).flatten(0, 1)
        if asked_for is not None:
            asked_for.warn_if_missed(latents)
        given = {} if act_labels is None else {"act_labels": act_labels}
        options = {**generation_options, "return_dict_in_generate": False}
        sequences = self.model.generate(**inputs, **given, latents=latents, num_return_sequences=num_return_sequences, **options)
        texts = [text.strip() for text in self.processor.batch_decode(sequences, skip_special_tokens=True)]
        return [Reply(text, z, name) for text, z, name in zip(texts, latents, self._acts(source, latents, act), strict=True)]

    def _acts(self, source: EncodedSource, latents: torch.Tensor, act: str | None) -> list[str | None]:
        if act is not None or self.processor.acts is None:
            return [act] * len(latents)
        context = self.model.condition(source)["context"].expand(len(latents), -1)
        return [self.processor.acts[number] for number in self.model.predict_acts(latents, context).argmax(-1).tolist()]
