"""What a folder or a repository holds, asked before any weight of it is loaded."""

from __future__ import annotations

import textwrap
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, AutoConfig

from ..configuration_vae import VAEConfig


def saved_config(name: str, shown: str | None = None) -> VAEConfig:
    """
    The configuration of a model of the family.

    Args:
        name (`str`): its folder or Hub id.
        shown (`str`, *optional*): what an error calls it; by default the same.

    Raises:
        OSError: there is no model of this name.
        ValueError: it is no model of the family, or one whose configuration this transformers cannot read.
    """
    shown = name if shown is None else shown
    try:
        config = AutoConfig.from_pretrained(name)
    except ValueError as error:
        written: Any = VAEConfig.get_config_dict(name)[0]
        model_type = written.get("model_type") if isinstance(written, dict) else None
        if model_type in CONFIG_MAPPING:
            # transformers goes on to list all that it knows.
            cause = textwrap.shorten(str(error), 150, placeholder=" …")
            raise ValueError(
                f"{shown} holds a model of type {model_type!r}, and transformers {transformers.__version__} cannot read its "
                f"configuration ({cause}): install the version of transformers that the model was saved with."
            ) from error
        raise ValueError(
            f"{shown} holds no model that transformers knows: name a folder or a Hub id of a model of hf_vae."
        ) from error
    if not isinstance(config, VAEConfig):
        raise ValueError(f"{shown} holds a model of type {config.model_type!r}, which is not a model of hf_vae.")
    return config


def saved_config_of_texts(name: str, shown: str | None = None) -> VAEConfig:
    """As [`saved_config`]; a model that reads given vectors and no texts is refused too."""
    config = saved_config(name, shown)
    if config.embedding_size is not None:
        raise ValueError(
            f"{shown or name} reads vectors of {config.embedding_size} numbers and no texts: embed these with "
            "`hf_vae.data.embed_texts`, and use `hf_vae.latent_space.invert` and `hf_vae.evaluation.inversion_metrics`."
        )
    return config
