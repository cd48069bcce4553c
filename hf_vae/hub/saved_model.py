"""What a folder or a repository holds, asked before any weight of it is loaded."""

from __future__ import annotations

from transformers import AutoConfig

from ..configuration_vae import VAEConfig


def saved_config(name: str, shown: str | None = None) -> VAEConfig:
    """
    The configuration of a model of the family.

    Args:
        name (`str`): its folder or Hub id.
        shown (`str`, *optional*): what an error calls it; by default the same.

    Raises:
        OSError: there is no model of this name.
        ValueError: it is no model of the family.
    """
    shown = name if shown is None else shown
    try:
        config = AutoConfig.from_pretrained(name)
    except ValueError as error:
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
