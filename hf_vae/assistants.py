"""Assisted generation: another language model proposes words, and a decoder that reads z decides on them."""

from typing import Any

from .modeling_latent_decoder import LatentDecoder

# What the decoder of a composite is handed besides words, and no other language model takes.
OURS_ALONE = {
    "latents",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "initial_state",
    "source_length",
    "unread_from",
    "unread_token_id",
}


class WordsAlone:
    """
    An assistant that reads words and nothing else: generation hands it all that it hands the decoder.

    Args:
        lm (`PreTrainedModel`): any causal language model.
    """

    def __init__(self, lm: Any):
        self.lm = lm

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def generate(self, *args, **kwargs) -> Any:
        return self.lm.generate(*args, **{name: value for name, value in kwargs.items() if name not in OURS_ALONE})


def assistant_of(assistant: Any, decoder: LatentDecoder, reads_more: bool) -> Any:
    """
    What generation may call as the assistant of `decoder`. A model or decoder of this family reads z too, if its z is as wide and
    the decoder reads nothing but z and words (`reads_more` is false). Any other language model reads the words alone. Whatever it
    proposes, greedy text is the decoder's own.

    Raises:
        ValueError: no causal language model, one of another vocabulary, or one that cannot take words back.
    """
    inner = getattr(assistant, "decoder", None)
    assistant = inner if isinstance(inner, LatentDecoder) else assistant
    if isinstance(assistant, LatentDecoder) and (reads_more or assistant.latent_size != decoder.latent_size):
        assistant = assistant.lm
    name = type(assistant).__name__
    config = getattr(assistant, "config", None)
    if not hasattr(assistant, "generate") or config is None or config.is_encoder_decoder:
        raise ValueError(f"`assistant_model` is a {name}; give a causal language model, or a model of this family.")
    if assistant._is_stateful:
        raise ValueError(f"`assistant_model` is a {name}, which cannot take back words that were not accepted: give another one.")
    return assistant if isinstance(assistant, LatentDecoder) else WordsAlone(assistant)
