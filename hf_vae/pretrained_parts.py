"""Models that are made of a pretrained encoder and a pretrained decoder. Parts that were frozen from the start are not saved."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, GENERATION_CONFIG_NAME, PROCESSOR_NAME

from .checks import check_choice
from .compat import AdapterLoading
from .configuration_vae import FORMAT_VERSION, PARTS, VAEConfig, default_pooling
from .encoders import check_encoder
from .frozen_parts import (
    LEFT_OUT,
    PREFIXES,
    check_left_out,
    describe_part,
    find_part_folders,
    leave_out,
    load_frozen_parts,
    load_own_weights,
    read_safetensors,
    refuse_changed_parts,
)
from .generation_options import end_tokens
from .given_vectors import check_reader
from .part_files import part_config, settle_pooling
from .parts import load_part
from .processing_vae import load_tokenizer
from .renamed_weights import rename, renamed_since
from .saved_files import HUB_OPTIONS, has_file, read_json


class PretrainedParts(AdapterLoading):
    """
    Mixin of a model that is built from a pretrained encoder and a pretrained decoder. A part that was frozen from the start is left
    out of what is saved: megabytes are written beside a decoder of billions.
    """

    # Dtype and sum of each weight that is left out of what is saved, as they were when it was loaded.
    sums_left_out: Mapping[str, tuple[torch.dtype, float] | None] = {}
    # The folders of the parts that were left out and came from a folder.
    part_folders: Mapping[str, str] = {}
    # Whether weights had other names where this model was loaded from. transformers would save it under those.
    was_renamed = False
    # Weights of the parts that the pretrained ones did not have, such as cross-attention, when the model was put together.
    missing_in_parts: Collection[str] = ()

    @classmethod
    def from_encoder_decoder_pretrained(
        cls: Any,
        encoder_name_or_path: str | PreTrainedConfig | None,
        decoder_name_or_path: str | PreTrainedConfig,
        dtype: torch.dtype | str = torch.float32,
        freeze: Sequence[str] = (),
        **latent_options,
    ) -> Any:
        """
        A model around a pretrained encoder and a pretrained decoder.

        Args:
            encoder_name_or_path (`str` or `PreTrainedConfig`, *optional*): Hub id or local path of any `AutoModel` encoder, or the
                configuration of one that starts from scratch; `None` for a model with an `embedding_size`, which reads given
                vectors.
            decoder_name_or_path (`str` or `PreTrainedConfig`): Hub id or local path of any `AutoModelForCausalLM` decoder, or the
                configuration of one that starts from scratch.
            dtype (`torch.dtype` or `str`, defaults to `torch.float32`): the dtype of both parts' weights. Training wants float32
                (with the Trainer's `bf16` for speed), also of a part that was saved in bfloat16, in which an optimizer's small
                steps round to nothing; `"auto"` keeps the dtype that each part was saved in.
            freeze (`list[str]`, defaults to none): `"encoder"`, `"decoder"` or both. Their weights get no gradient and are not
                saved with the model. `config.frozen_parts` names them, by Hub id and commit or by a folder's name and the digest
                of its weights, and the model loads them from there. Weights that they were not pretrained with, such as
                cross-attention, are trained and saved.
            latent_options: fields of the model's configuration, such as `latent_size` or `free_bits`. An encoder of
                sentence-transformers is read with the `pooling` that it was trained with, unless another one is given or there
                are several latent vectors; a normalisation of the vector is left out.

        Raises:
            ValueError: the configuration has no such field, an encoder is named beside an `embedding_size` or neither is, a
                part is neither a name nor a configuration, a part is no encoder or no causal language model, its weights are
                GGUF or quantised and not in `freeze`, `freeze` names a part that starts from scratch, or a pooling of
                sentence-transformers that there is not here.
        """
        unknown = sorted(set(latent_options) - set(cls.config_class.__dataclass_fields__))
        if unknown:
            raise ValueError(f"{cls.config_class.__name__} has no field named {', '.join(unknown)}: remove it or correct its name.")
        for part in freeze:
            check_choice("freeze", part, PARTS)
        check_reader("encoder_name_or_path", encoder_name_or_path, latent_options.get("embedding_size"))
        if encoder_name_or_path is None and "encoder" in freeze:
            raise ValueError("`freeze` names the encoder, and a model with an `embedding_size` has none: leave it out.")
        given = dict(zip(PARTS, (encoder_name_or_path, decoder_name_or_path)))
        for part, value in given.items():
            # Given vectors have no encoder.
            if not isinstance(value, str | Path | PreTrainedConfig) and (part, value) != ("encoder", None):
                raise ValueError(
                    f"`{part}_name_or_path` is {'None' if value is None else f'of type {type(value).__name__}'}: give a Hub id, a "
                    f"folder or a configuration. A part that is loaded already is an argument of the class: "
                    f"`{cls.__name__}(config, {part}=…)`."
                )
        configs = {part: value for part, value in given.items() if isinstance(value, PreTrainedConfig)}
        from_scratch = set(configs)
        for part in from_scratch.intersection(freeze):
            raise ValueError(f"`freeze` names the {part}, which starts from scratch and has to be trained: leave it out.")
        names = {part: value for part, value in given.items() if isinstance(value, str | Path)}
        configs |= {part: part_config(part, name, is_trained=part not in freeze) for part, name in names.items()}
        asked_for = latent_options.pop("pooling", None) or default_pooling(latent_options.get("num_latents", 1))
        pooling = settle_pooling(names["encoder"], asked_for) if "encoder" in names else asked_for
        if pooling is not None:
            latent_options["pooling"] = pooling
        config = cls.config_class(**configs, **latent_options)
        if "eos_token_id" not in latent_options and "decoder" in names:
            # Labels end with the tokenizer's EOS, which is not always what the configuration names.
            ends = end_tokens(tokenizer_eos(names["decoder"]), config.eos_token_id)
            config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
        cls.prepare_decoder_config(config)
        loaded = {part: load_part(part, name, config, dtype=dtype) for part, name in names.items()}
        if "encoder" in loaded:
            check_encoder(loaded["encoder"][0], config.vector_pooling)
        config.frozen_parts = {part: describe_part(names[part]) for part in freeze} or None
        model = assemble(cls, config, loaded)
        model.missing_in_parts = {
            f"{prefix}{name}" for part, (_, missing) in loaded.items() for prefix in PREFIXES[part] for name in missing
        }
        new = tuple(prefix for part in from_scratch for prefix in PREFIXES[part])
        model.missing_in_parts |= {name for name, _ in model.named_parameters() if new and name.startswith(new)}
        model.part_folders = {part: str(Path(names[part]).resolve()) for part in freeze if Path(names[part]).is_dir()}
        return model

    @classmethod
    def from_pretrained(
        cls: Any,
        pretrained_model_name_or_path,
        *model_args,
        config=None,
        part_folders: Mapping[str, str | Path] | None = None,
        **kwargs,
    ) -> Any:
        """
        As `PreTrainedModel.from_pretrained`. Parts that were left out are loaded from where `config.frozen_parts` says, and never
        with code that they bring along. Such a model takes `dtype`, `attn_implementation`, `quantization_config` (if the decoder
        was left out) and the Hub's options, and no others.

        Args:
            part_folders (`dict[str, str]`, *optional*): the folder of a part that was left out and came from a folder, such as
                `{"decoder": "/data/gpt2"}`. By default a folder of its name is looked for: in the model's folder, beside it, and
                in the working directory.

        Raises:
            OSError: weights or another file are missing or cannot be read.
            ValueError: they belong to another model.
        """
        name_or_path = pretrained_model_name_or_path
        where = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        # Not `cls.config_class`: a model may bring its own code along, and with it a second copy of that class.
        if not isinstance(config, PreTrainedConfig):
            if config is None and is_adapter(name_or_path, where):
                # The base is loaded and given the adapter, as `AutoModel` does.
                base = read_json(name_or_path, ADAPTER_CONFIG_NAME, **where)["base_model_name_or_path"]
                adapter = {**(kwargs.pop("adapter_kwargs", None) or {}), "_adapter_model_path": name_or_path}
                return cls.from_pretrained(base, *model_args, part_folders=part_folders, adapter_kwargs=adapter, **kwargs)
            if config is None:
                read_json(name_or_path, CONFIG_NAME, **where)
            config = cls.config_class.from_pretrained(name_or_path if config is None else config, **where)
        check_left_out("part_folders", part_folders, config)
        check_files(name_or_path, where)
        # Earlier versions gave some weights other names.
        renamed = renamed_since(config.format_version)
        config.format_version = FORMAT_VERSION
        try:
            if not config.frozen_parts:
                if not renamed:
                    return super().from_pretrained(name_or_path, *model_args, config=config, **kwargs)  # type: ignore[misc]
                kwargs["key_mapping"] = {**renamed, **(kwargs.get("key_mapping") or {})}
                loaded = super().from_pretrained(name_or_path, *model_args, config=config, **kwargs)  # type: ignore[misc]
                model = loaded[0] if isinstance(loaded, tuple) else loaded
                model.was_renamed = True
                return loaded
            adapter = {"name": kwargs.pop("adapter_name", "default"), **(kwargs.pop("adapter_kwargs", None) or {})}
            folders = find_part_folders(config.frozen_parts, name_or_path, part_folders or {})
            # An earlier version wrote the folder's path. What is saved from now on holds its name and digest.
            undigested = [part for part in folders if "sha256" not in config.frozen_parts[part]]
            config.frozen_parts = {**config.frozen_parts, **{part: describe_part(folders[part]) for part in undigested}}
            others = {name: value for name, value in kwargs.items() if name not in (*where, "trust_remote_code")}
            loaded = load_frozen_parts(config, folders, where, **others)
            model = assemble(cls, config, loaded)
            model.part_folders = folders
            load_own_weights(model, rename(read_safetensors(name_or_path, **where), renamed), name_or_path)
        except SafetensorError as error:
            raise OSError(
                f"The weights of {name_or_path} cannot be read, as if a download or a copy of them had been cut off ({error}): "
                "fetch them again."
            ) from error
        model.generation_config = GenerationConfig.from_pretrained(name_or_path, **where)
        # `AutoModel` hands on the path of the adapter that it has found.
        name, path = adapter.pop("name"), adapter.pop("_adapter_model_path", None)
        if path is not None:
            model.load_adapter(path, adapter_name=name, adapter_kwargs=adapter)
        return model.eval()

    def save_pretrained(self: Any, save_directory, *args, **kwargs):
        """
        As `PreTrainedModel.save_pretrained`, without the parts in `config.frozen_parts`.

        Raises:
            ValueError: one of these parts has changed, so that it cannot be loaded from where it came from.
        """
        refuse_changed_parts(self)
        if self.was_renamed:
            kwargs.setdefault("save_original_format", False)
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def keep_all_parts(self: Any) -> None:
        """Saves the parts in `config.frozen_parts` with the model from now on. Whether they are trained does not change."""
        setattr(self, LEFT_OUT, set(getattr(self, LEFT_OUT) or ()) - set(self.sums_left_out))
        self.sums_left_out, self.config.frozen_parts = {}, None


def tokenizer_eos(name_or_path: str) -> int | None:
    """The EOS of the tokenizer that lies beside a part; `None` if there is no tokenizer."""
    try:
        return load_tokenizer(name_or_path).eos_token_id
    except (OSError, ValueError):
        return None


def is_adapter(name_or_path: Any, where: dict[str, Any]) -> bool:
    """Whether `name_or_path` holds an adapter, which comes without a model's configuration."""
    return not has_file(name_or_path, CONFIG_NAME, **where) and has_file(name_or_path, ADAPTER_CONFIG_NAME, **where)


def check_files(name_or_path: Any, where: dict[str, Any]) -> None:
    """
    Refuses a model with a damaged file that transformers would ignore, or about which its error would not name the file.

    Raises:
        OSError: a file is missing or damaged.
    """
    if name_or_path is None:
        return
    # Without this file, the saved defaults of `generate` would be lost silently.
    read_json(name_or_path, GENERATION_CONFIG_NAME, **where)
    if (Path(name_or_path) / PROCESSOR_NAME).is_file():
        read_json(name_or_path, PROCESSOR_NAME, **where)


def assemble(cls: Any, config: VAEConfig, loaded: dict[str, tuple[PreTrainedModel, set[str]]]) -> Any:
    """The model of `config` around the loaded parts. Those in `config.frozen_parts` are frozen and are not saved with it."""
    cls.prepare_decoder_config(config)
    model = cls(config, **{part: pretrained for part, (pretrained, _) in loaded.items()})
    leave_out(model, {part: loaded[part][1] for part in config.frozen_parts or ()})
    return model


__all__ = ["PretrainedParts"]
