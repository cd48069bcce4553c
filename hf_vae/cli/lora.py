"""Adapters in the encoder and the decoder: a rank alone is enough, since peft knows where each family wants them."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..modeling_vae import VAEModel
from ..training.json_options import parse_json


def parse_lora(lora: str | dict | None) -> dict[str, Any]:
    """
    Arguments of peft's `LoraConfig` from a command line: JSON, or a rank alone.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(lora, str) and lora.strip().isdecimal():
        rank = int(lora)
        if not rank:
            raise ValueError("`--lora` is 0, and a rank is at least 1: leave it out.")
        return {"r": rank}
    return parse_json("lora", lora)


def target_modules(model: VAEModel, frozen: set[str]) -> list[str]:
    """
    The names of the layers that get adapters: of a family that peft knows those that it names, and of another one all linear layers
    but the one that predicts words.

    Args:
        model ([`VAEModel`]): of any of the family.
        frozen (`set[str]`): parts that are to stay as they are: `"encoder"`, `"decoder"`.

    Raises:
        ValueError: no part has such a layer.
    """
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    lm: Any = model.decoder.lm
    head = lm.get_output_embeddings()
    found = []
    for part, prefixes in (("encoder", ("encoder.", "source_encoder.")), ("decoder", ("decoder.lm.",))):
        wanted = KNOWN.get(getattr(model.config, part).model_type)
        for name, module in model.named_modules():
            is_layer = isinstance(module, (nn.Linear, Conv1D)) and module is not head and name.startswith(prefixes)
            if part not in frozen and is_layer and (wanted is None or name.rpartition(".")[2] in wanted):
                found.append(name)
    if not found:
        raise ValueError("`--lora` finds no linear layer in a part that is trained: leave it out, or name its `target_modules`.")
    return found
