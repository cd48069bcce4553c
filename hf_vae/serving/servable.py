"""Which models an engine can serve that is given a prompt of embeddings and nothing else."""

from __future__ import annotations

from ..configuration_dialog_cvae import DialogCVAEConfig
from ..configuration_lstm import LSTMConfig
from ..configuration_vae import VAEConfig

# Why z cannot reach an engine's language model by the other ways in.
_NEEDS = {
    "embedding": "adds z to the embedding of every token, and the engine looks up those of the words that it writes",
    "memory": "makes z a key and a value of every layer, and a request has no place for those",
    "logits": "adds z to what the head reads at every step, and the engine's head reads the hidden state alone",
}


def check_servable(config: VAEConfig) -> None:
    """
    Looks at a configuration, before any weights are loaded.

    Args:
        config ([`VAEConfig`]): of any model of the family.

    Raises:
        ValueError: z or x reaches the decoder in another way than through its prompt, the decoder reads no words, it is no model
            that an engine has, or its weights are quantised.
    """
    others = [way for way in config.latent_injection if way != "prefix"]
    if others:
        why = "; ".join(f"{way!r} {_NEEDS.get(way, 'is a way of your own, which the engine does not have')}" for way in others)
        raise ValueError(
            f"`latent_injection` is {list(config.latent_injection)}, and an engine serves 'prefix' alone, which puts z into the "
            f"prompt: {why}. Train the model with `latent_injection='prefix'`, or generate in your own process with `generate`."
        )
    if config.inputless:
        raise ValueError(
            "`word_dropout` is 1: the decoder reads no words, and an engine would have it read those that it writes. Generate in "
            "your own process with `generate`."
        )
    conditioning = getattr(config, "source_conditioning", "prompt")
    if conditioning != "prompt":
        raise ValueError(
            f"`source_conditioning` is {conditioning!r}: the decoder reads states of the encoder, and a request has no place for "
            "those. Train the model with `source_conditioning='prompt'`, or generate in your own process with `generate`."
        )
    if isinstance(config, DialogCVAEConfig):
        raise ValueError(
            "This is a dialogue model, whose prompt is made of turns, speakers and acts: save the language model "
            "(`model.decoder.lm.save_pretrained`) and send what `model.prompt_embeds` gives."
        )
    if config.decoder.model_type == LSTMConfig.model_type:
        raise ValueError("The decoder is an LSTM, which no engine has: choose a decoder of transformers', such as a Llama.")
    if getattr(config.decoder, "quantization_config", None) is not None:
        raise ValueError("The decoder's weights are quantised: load the model without `quantization_config`.")


__all__ = ["check_servable"]
