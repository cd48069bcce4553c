"""What a client needs to make prompts of embeddings: a few tensors, and how they go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedTokenizerBase

from ..configuration_conditional_vae import ConditionalVAEConfig
from ..latent_injection import PrefixInjection
from ..modeling_conditional_vae import ConditionalVAEModel
from ..modeling_vae import VAEModel
from ..prior import GaussianMixturePrior, PriorNetwork, StandardPrior
from ..processing_conditional_vae import ConditionalVAEProcessor
from ..processing_vae import VAEProcessor

# Texts whose tokens show whether a tokenizer's file by itself reads as the processor does.
_PROBES = ("a", "The cat sat on 12 mats, didn't it?", "  été\n漢字 ")


def prefix_tensors(model: VAEModel, with_words: bool) -> dict[str, torch.Tensor]:
    """
    z's way in and the embeddings of tokens, as the language model looks them up.

    Args:
        model ([`VAEModel`]): with `latent_injection="prefix"` alone.
        with_words (`bool`): whether a source is read, and so the embedding of every token is needed.

    Returns:
        `projection.weight` of shape `(prefix_length · size, latent_size)` and `projection.bias`; `start_embedding`, `(size,)`; and
        `token_embeddings`, `(vocabulary, size)`.
    """
    [way] = cast(list[PrefixInjection], model.decoder.injections)
    table = cast(nn.Embedding, model.decoder.get_input_embeddings())
    start = torch.tensor([model.config.decoder_start_token_id], device=table.weight.device)
    tensors = {
        "projection.weight": way.projection.weight,
        "projection.bias": way.projection.bias,
        "start_embedding": table(start)[0],
    }
    if with_words:
        # Not the weights: some families scale what they look up.
        tensors["token_embeddings"] = table(torch.arange(table.weight.shape[0], device=table.weight.device))
    return tensors


def prior_tensors(model: VAEModel) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """
    What `generate` draws z from by itself, if a client can.

    Returns:
        What it is, as `{"kind": "standard" | "mixture" | "conditional"}`, or `{"kind": "given", "why": …}` if z must come from
        elsewhere; and its tensors. Those of `"conditional"` are a layer and a head over the encoder's vector.
    """
    origin = getattr(model.generation_config, "latent_source", None) or "prior"
    if origin == "posterior":
        return {"kind": "given", "why": "by default z is drawn from the posterior, which reads a text"}, {}
    prior = model.prior_named(origin)
    if isinstance(prior, StandardPrior):
        return {"kind": "standard"}, {}
    if isinstance(prior, GaussianMixturePrior):
        weights = prior.weights.float() / prior.weights.float().sum()
        return {"kind": "mixture"}, {"prior.weights": weights, "prior.means": prior.means, "prior.logvars": prior.logvars}
    if isinstance(prior, PriorNetwork):
        encoder = source_encoder(model)
        if MODEL_MAPPING.get(type(encoder.config), None) is not type(encoder):
            return {"kind": "given", "why": f"p(z|x) reads the source through a {type(encoder).__name__}"}, {}
        layers = {"prior.hidden": prior.hidden, "prior.head": prior.head.linear}
        named = {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers.items() for kind in ("weight", "bias")}
        return {"kind": "conditional", "pooling": model.config.pooling}, named
    return {"kind": "given", "why": f"the prior is a {type(prior).__name__}"}, {}


def source_encoder(model: VAEModel) -> Any:
    """The encoder that reads a source for p(z|x)."""
    tied = not isinstance(model.config, ConditionalVAEConfig) or model.config.tie_encoders
    return model.encoder if tied else cast(ConditionalVAEModel, model).source_encoder


def source_template(processor: VAEProcessor) -> dict[str, Any] | None:
    """
    What stands around a source in the prompt. `None` if the model reads no source.

    Returns:
        `opening`, ids in front; `before`, a text that is read together with the source; `end`, ids behind; `begin`, the ids of
        `opening` and `before` if a source is read by itself, as in a chat one is that holds a special token (`is_chat`); and
        `closing`, an id that is left out where it ends a prompt (`null`: none).
    """
    if not isinstance(processor, ConditionalVAEProcessor):
        return None
    tokenizer = processor.tokenizer
    template = processor._template()
    if template is not None:
        parts = {"opening": template._opening(tokenizer), "before": template.before, "end": template._end(tokenizer)}
        return {**parts, "begin": template._begin(tokenizer), "is_chat": template.is_chat, "closing": None}
    word, with_special = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    place = next(place for place in range(len(with_special)) if with_special[place : place + len(word)] == word)
    opening, end = with_special[:place], with_special[place + len(word) :]
    closes = end[-1:] == [tokenizer.eos_token_id]
    parts = {"opening": opening, "before": "", "end": end[:-1] if closes else end, "begin": opening}
    # A source may be written with an EOS at its end.
    return {**parts, "is_chat": False, "closing": None if closes else tokenizer.eos_token_id}


def check_tokens_of_file(file: Path, processor: ConditionalVAEProcessor, template: dict[str, Any]) -> None:
    """
    Raises a `ValueError` unless the `tokenizer.json` that was saved, by itself, writes prompts as the processor does.
    """
    if not file.is_file():
        kind = type(cast(PreTrainedTokenizerBase, processor.tokenizer)).__name__
        raise ValueError(f"The decoder's {kind} has no `tokenizer.json`, by which a client reads a source: use a fast tokenizer.")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for probe in _PROBES:
        words = tokenizer.encode(template["before"] + probe, add_special_tokens=False).ids
        expected = processor(probe, return_tensors=None)["prompt_input_ids"]
        if [*template["opening"], *words, *template["end"]] != expected:
            raise ValueError(
                f"The decoder's tokenizer reads {probe!r} otherwise than its `tokenizer.json` by itself, which a client has: send "
                "what `model.prompt_embeds` gives."
            )
