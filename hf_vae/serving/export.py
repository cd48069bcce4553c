"""A model as an engine and its clients need it: the language model by itself, and the file that makes prompts."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from ..generation_options import end_tokens
from ..modeling_vae import VAEModel
from ..parts import has_adapter
from ..processing_conditional_vae import ConditionalVAEProcessor
from ..processing_vae import VAEProcessor
from ..saved_files import weights_digest
from .export_directory import ENCODER, LANGUAGE_MODEL, PROMPT_FILE, check_export_directory, replaced_export
from .prompt_file import check_tokens_of_file, prefix_tensors, prior_tensors, source_encoder, source_template
from .servable import check_servable

# Of what the prompt file says of itself.
_FORMAT = 1


@dataclass(frozen=True)
class ServedModel:
    """
    What [`export_vllm`] has written.

    Args:
        directory (`Path`): of the export.
        name (`str`): what a server is to call the language model. It ends in digits of its weights' digest, by which a client
            finds out that another model is served.
        dtype (`str`): of its weights, by vLLM's name.
        prior (`dict`): what a client draws z from, and if it cannot, why.
    """

    directory: Path
    name: str
    dtype: str
    prior: dict[str, Any]

    @property
    def command(self) -> str:
        """The command that serves it, by the Python of vLLM's environment."""
        # Not the program `vllm`, which does not start in the build for CPUs.
        return (
            f"python -m vllm.entrypoints.openai.api_server --model {self.directory / LANGUAGE_MODEL} "
            f"--served-model-name {self.name} --enable-prompt-embeds --dtype {self.dtype}"
        )


@torch.no_grad()
def export_vllm(model: VAEModel, processor: VAEProcessor, directory: str | Path, overwrite: bool = False) -> ServedModel:
    """
    Writes a model with `latent_injection="prefix"` for vLLM, or another engine that takes prompts of embeddings:

    - `lm/`, the decoder's language model with its tokenizer. It ends its texts with the tokens that end the model's own.
    - `latent_prompt.safetensors`, which makes a prompt of z and a source: the projection of z, the tokens' embeddings (if there is
      a source), the prior's parameters, and in its header, as JSON under `latent_prompt`, how they go together.
    - `encoder/`, if the prior is p(z|x), which reads the source through it.

    Args:
        model ([`VAEModel`]): adapters merged, not quantised.
        processor ([`VAEProcessor`]): the model's.
        directory (`str` or `Path`): where to write.
        overwrite (`bool`, defaults to `False`): whether to replace an export that lies there.

    Returns:
        [`ServedModel`], whose `command` starts the server.

    Raises:
        ValueError: the model cannot be served, as [`check_servable`] says, or it has adapters; its tokenizer has no file that reads
            as it does; or `directory` holds something else. What lies in `directory` is then as it was.
    """
    if not isinstance(model, VAEModel):
        raise ValueError(f"`model` is a {type(model).__name__}; give a model of hf_vae, with its adapters merged.")
    check_servable(model.config)
    model.config.validate_tokens()
    if has_adapter(model):
        raise ValueError("`model` carries an adapter of peft, and an engine would serve the weights under it: merge it first.")
    directory = Path(directory)
    check_export_directory(directory, overwrite)
    with replaced_export(directory) as written:
        name, prior = _write_export(model, processor, written, directory.resolve().name)
    return ServedModel(directory, name, str(model.decoder.dtype).removeprefix("torch."), prior)


def _write_export(model: VAEModel, processor: VAEProcessor, directory: Path, title: str) -> tuple[str, dict[str, Any]]:
    """Writes all of an export that is to begin its name with `title`. Returns the name, and what z is drawn from."""
    folder = directory / LANGUAGE_MODEL
    processor.tokenizer.save_pretrained(folder)
    template = source_template(processor)
    if template is not None:
        check_tokens_of_file(folder / "tokenizer.json", cast(ConditionalVAEProcessor, processor), template)
    _save_language_model(model, folder)
    prior, tensors = prior_tensors(model)
    if prior["kind"] == "conditional":
        source_encoder(model).save_pretrained(directory / ENCODER)
        processor.encoder_tokenizer.save_pretrained(directory / ENCODER)
    tensors |= prefix_tensors(model, with_words=template is not None)
    name = f"{title}-{weights_digest(folder)[:8]}"
    temperature = getattr(model.generation_config, "latent_temperature", None)
    told = {
        "format": _FORMAT,
        "model": name,
        "latent_size": model.config.latent_size,
        "prefix_length": model.decoder.prefix_length,
        "latent_placement": model.config.latent_placement,
        "longest": model.decoder.longest_text,
        "template": template,
        "prior": prior,
        "latent_temperature": 1.0 if temperature is None else temperature,
    }
    kept = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    save_file(kept, directory / PROMPT_FILE, metadata={"latent_prompt": json.dumps(told)})
    # safetensors keeps its files from others, and a server may be another user's.
    mode = (folder / "config.json").stat().st_mode
    for path in directory.rglob("*.safetensors"):
        path.chmod(mode)
    return name, prior


def _save_language_model(model: VAEModel, folder: Path) -> None:
    lm: Any = model.decoder.lm
    lm.save_pretrained(folder)
    # An engine takes its defaults from this file, and ends a text with these tokens.
    defaults = copy.deepcopy(lm.generation_config)
    ends = end_tokens(model.generation_config.eos_token_id)
    defaults.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    defaults.pad_token_id = model.config.pad_token_id
    defaults.save_pretrained(folder)


__all__ = ["ServedModel", "export_vllm"]
