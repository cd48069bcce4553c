"""The encoder and the decoder of one model: how they are loaded, what they must be, and the configuration that the model keeps."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from .configuration_vae import VAEConfig
from .encoders import build_encoder, check_kind
from .modeling_latent_decoder import LatentDecoder


def load_part(part: str, name_or_path: str, config: VAEConfig, **options) -> tuple[PreTrainedModel, set[str]]:
    """
    The pretrained encoder or decoder, and the names of the weights that `name_or_path` does not have, such as the cross-attention
    of a decoder that was pretrained without it.
    """
    loaded: Any
    if part == "encoder":
        loaded = build_encoder(config.encoder, config.vector_pooling, name_or_path, output_loading_info=True, **options)
    else:
        options["output_loading_info"] = True
        loaded = AutoModelForCausalLM.from_pretrained(name_or_path, config=config.decoder, **options)
    model, info = loaded
    return model, set(info["missing_keys"])


def own_configuration(config: VAEConfig, encoder: PreTrainedModel | None, decoder: PreTrainedModel | None) -> VAEConfig:
    """
    A copy of `config` for one model. The configurations of its parts are those of the models that are given, or else copies, so
    that a change to one changes no other and leaves the caller's alone.

    Raises:
        ValueError: the models that are given share weights or a configuration.
    """
    if encoder is not None and decoder is not None:
        refuse_shared_weights({"encoder": encoder, "decoder": decoder})
        if encoder.config is decoder.config:
            raise ValueError(
                "`encoder` and `decoder` share one configuration object, which cannot make the encoder read both ways and the "
                "decoder one way: build each from a `copy.deepcopy` of it."
            )
    own = copy.deepcopy(config)
    # One by one, because one copy of the whole would keep an object shared that the caller's configuration shares.
    own.encoder = copy.deepcopy(config.encoder) if encoder is None else encoder.config
    own.decoder = copy.deepcopy(config.decoder) if decoder is None else decoder.config
    return own


def has_adapter(model: nn.Module) -> bool:
    """Whether layers of `model` are peft's. It does not import peft, which may not be installed."""
    return any(type(module).__module__.startswith("peft.") for module in model.modules())


def refuse_other_kinds(encoder: PreTrainedModel | None, decoder: PreTrainedModel | None) -> None:
    """Raises a `ValueError` unless the models that are given are an encoder and a causal language model."""
    for name, part in (("encoder", encoder), ("decoder", decoder)):
        if part is not None and not (isinstance(part, nn.Module) and hasattr(part, "config")):
            raise ValueError(f"`{name}` is a {type(part).__name__}; give a model, such as `from_pretrained` returns.")
        if part is not None and has_adapter(part):
            raise ValueError(
                f"`{name}` carries an adapter of peft, which would not be saved with the model: merge it (`merge_and_unload`), or "
                "give the part without it and add an adapter to the whole model."
            )
    if encoder is not None:
        check_kind(encoder)
    if isinstance(decoder, LatentDecoder):
        raise ValueError("`decoder` reads the z of another model: give its language model, `decoder.lm`.")
    if decoder is not None and (not hasattr(decoder, "generation_config") or decoder.config.is_encoder_decoder):
        raise ValueError(f"`decoder` is a {type(decoder).__name__}; give a causal language model, of `AutoModelForCausalLM`.")


def refuse_shared_weights(parts: Mapping[str, nn.Module]) -> None:
    """Raises a `ValueError` if two of `parts` share a weight, which could not be saved as part of both. It names the weight."""
    owners: dict[int, tuple[str, str]] = {}
    for part, module in parts.items():
        for name, weight in module.named_parameters(remove_duplicate=False):
            owner, its_name = owners.setdefault(id(weight), (part, name))
            if owner != part:
                raise ValueError(
                    f"The {owner}'s `{its_name}` and the {part}'s `{name}` are one weight: give each part its own, for instance a "
                    "`copy.deepcopy` of one of them."
                )


@torch.no_grad()
def refuse_looking_ahead(lm: PreTrainedModel) -> None:
    """Raises a `ValueError` if the scores of a word of `lm` depend on the word after it."""
    training = lm.training
    logits = lm.eval()(input_ids=torch.tensor([[0, 1], [0, 2]], device=lm.device), use_cache=False).logits[:, 0]
    lm.train(training)
    if not logits.is_meta and not torch.allclose(*logits):
        raise ValueError(
            f"`decoder` is a {type(lm).__name__} that was built to read both ways, and would see the words that it should predict: "
            "build it from a configuration with `is_decoder=True`."
        )
