"""Names of weights in models that earlier versions have saved, and what they are called today."""

import re
from collections.abc import Mapping

import torch

# By the `format_version` of a configuration up to which a model has the old names: patterns at the beginning of a name.
RENAMED = {
    1: {
        r"^posterior\.": "posterior_head.",
        r"^bow\.": "bow_head.",
        r"^acts\.": "act_head.",
        r"^turns\.": "turn_encoder.",
        r"^meta\.": "meta_embedding.",
        r"^decoder\.project\.": "decoder.latent_injection.embedding.projection.",
        r"^decoder\.memory\.": "decoder.latent_injection.memory.projection.",
        r"^decoder\.prefix\.": "decoder.latent_injection.prefix.projection.",
    }
}


def renamed_since(format_version: int) -> dict[str, str]:
    """Patterns of the names in a model of this `format_version` that are other ones today, each with its replacement."""
    return {old: new for version, names in RENAMED.items() if format_version <= version for old, new in names.items()}


def rename(weights: Mapping[str, torch.Tensor], patterns: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """`weights` under the names that `patterns` make of theirs."""
    renamed = {}
    for name, weight in weights.items():
        for old, new in patterns.items():
            name = re.sub(old, new, name)
        renamed[name] = weight
    return renamed
