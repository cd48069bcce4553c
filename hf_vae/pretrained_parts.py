"""Models made of pretrained halves, and saved with them or, where a half was never trained, without it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    cached_file,
    logging,
)

from .checks import check_choice
from .compat import AdapterLoading
from .configuration_vae import FORMAT_VERSION, PARTS, VAEConfig
from .encoders import build_encoder, check_encoder
from .generation_options import end_tokens
from .processing_vae import load_tokenizer
from .renamed_weights import rename, renamed_since
from .saved_files import HUB_OPTIONS, has_file, read_json, weights_digest

logger = logging.get_logger(__name__)
# Where a part's own weights lie in the composite.
PREFIXES = {"encoder": ("encoder.", "source_encoder."), "decoder": ("decoder.lm.",)}
# transformers' name for what a model does not save.
LEFT_OUT = "_keys_to_ignore_on_save"


class PretrainedParts(AdapterLoading):
    """
    Mixin of a composite that is built from a pretrained encoder and a pretrained decoder. What was frozen from the start is left
    out of what is saved: megabytes beside a decoder of billions.
    """

    # Of each weight that is left out of what is saved: what it was when it was loaded.
    sums_left_out: Mapping[str, tuple[torch.dtype, float] | None] = {}
    # Where the parts that were left out lie on this machine, those that came from a folder.
    part_folders: Mapping[str, str] = {}
    # Whether weights had other names where this model was loaded from. transformers would save it under those.
    was_renamed = False

    @classmethod
    def from_encoder_decoder_pretrained(
        cls: Any,
        encoder_name_or_path: str,
        decoder_name_or_path: str,
        dtype: torch.dtype | str = torch.float32,
        freeze: Sequence[str] = (),
        **latent_options,
    ) -> Any:
        """
        A model around a pretrained encoder and a pretrained decoder.

        Args:
            encoder_name_or_path (`str`): Hub id or local path of any `AutoModel` encoder.
            decoder_name_or_path (`str`): Hub id or local path of any `AutoModelForCausalLM` decoder.
            dtype (`torch.dtype` or `str`, defaults to `torch.float32`): of both parts' weights. Training wants float32 (with the
                Trainer's `bf16` for speed); `"auto"` keeps what each part was saved in.
            freeze (`list[str]`, defaults to none): `"encoder"`, `"decoder"` or both. Their weights get no gradient and are not
                saved with the model, which names them in `config.frozen_parts` and loads them from there: by Hub id and commit,
                or by a folder's name and the digest of its weights. What they were not pretrained with, such as
                cross-attention, is trained and saved.
            latent_options: fields of the model's configuration, such as `latent_size` or `free_bits`.

        Raises:
            ValueError: a field that the configuration does not have, or a part that cannot serve.
        """
        unknown = sorted(set(latent_options) - set(cls.config_class.__dataclass_fields__))
        if unknown:
            raise ValueError(f"{cls.config_class.__name__} has no field named {', '.join(unknown)}.")
        for part in freeze:
            check_choice("freeze", part, PARTS)
        names = dict(zip(PARTS, (encoder_name_or_path, decoder_name_or_path)))
        configs = {part: AutoConfig.from_pretrained(name) for part, name in names.items()}
        config = cls.config_class(**configs, **latent_options)
        if "eos_token_id" not in latent_options:
            # Labels end with the tokenizer's EOS, which is not always what the configuration names.
            ends = end_tokens(tokenizer_eos(decoder_name_or_path), config.eos_token_id)
            config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
        cls.prepare_decoder_config(config)
        loaded = {part: load_part(part, name, config, dtype=dtype) for part, name in names.items()}
        check_encoder(loaded["encoder"][0], config.pooling)
        config.frozen_parts = {part: describe_part(names[part]) for part in freeze} or None
        model = assemble(cls, config, loaded)
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
        As `PreTrainedModel.from_pretrained`. Parts that were left out are loaded from where `config.frozen_parts` says, without
        code that they bring along; `dtype`, `attn_implementation`, `quantization_config` (of the decoder, if it is one of them) and
        the Hub's options are all that can be asked for then.

        Args:
            part_folders (`dict[str, str]`, *optional*): where a part lies that was left out and came from a folder, such as
                `{"decoder": "/data/gpt2"}`. By default it is looked for by its name: in the model's folder, beside it, and in the
                working directory.

        Raises:
            OSError: weights or another file are not there, or cannot be read.
            ValueError: they are of another model.
        """
        name_or_path = pretrained_model_name_or_path
        where = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        # Not `cls.config_class`: of code that came along with a model there may be two copies, and of the class then too.
        if not isinstance(config, PreTrainedConfig):
            if config is None and is_adapter(name_or_path, where):
                # Its base is loaded, and told of it as `AutoModel` does.
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
            # An earlier version wrote the path itself: what is saved from here on holds none.
            undigested = [part for part in folders if "sha256" not in config.frozen_parts[part]]
            config.frozen_parts = {**config.frozen_parts, **{part: describe_part(folders[part]) for part in undigested}}
            others = {name: value for name, value in kwargs.items() if name not in (*where, "trust_remote_code")}
            loaded = load_frozen_parts(config, folders, where, **others)
            model = assemble(cls, config, loaded)
            model.part_folders = folders
            load_own_weights(model, rename(read_safetensors(name_or_path, **where), renamed), name_or_path)
        except SafetensorError as error:
            raise OSError(
                f"The weights of {name_or_path} cannot be read, as if a download or a copy of them had been cut "
                f"off ({error}): fetch them again."
            ) from error
        model.generation_config = GenerationConfig.from_pretrained(name_or_path, **where)
        # As AutoModel hands on where it has found an adapter of this model.
        name, path = adapter.pop("name"), adapter.pop("_adapter_model_path", None)
        if path is not None:
            model.load_adapter(path, adapter_name=name, adapter_kwargs=adapter)
        return model.eval()

    def save_pretrained(self: Any, save_directory, *args, **kwargs):
        """
        As `PreTrainedModel.save_pretrained`, without the parts in `config.frozen_parts`.

        Raises:
            ValueError: one of these parts is no longer what it was loaded as, so naming where that came from would not do.
        """
        for name, now in sums_of(self, self.sums_left_out).items():
            then = self.sums_left_out[name]
            # Another dtype rounds everything; another device sums in another order.
            if now is None or then is None or now[0] != then[0]:
                continue
            if abs(now[1] - then[1]) > 1e-12 * self.get_parameter_or_buffer(name).numel():
                raise ValueError(
                    f"`{name}` has changed since it was loaded from {self.config.frozen_parts}, perhaps by an adapter that was "
                    "merged into it, or because its vocabulary was resized: call `model.keep_all_parts()`, and the model is saved "
                    "whole."
                )
        if self.was_renamed:
            kwargs.setdefault("save_original_format", False)
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def keep_all_parts(self: Any) -> None:
        """Makes the parts in `config.frozen_parts` the model's own: what is saved is whole. They stay as trainable as they are."""
        setattr(self, LEFT_OUT, set(getattr(self, LEFT_OUT) or ()) - set(self.sums_left_out))
        self.sums_left_out, self.config.frozen_parts = {}, None


def tokenizer_eos(name_or_path: str) -> int | None:
    """The EOS of the tokenizer that lies beside a part, where there is one."""
    try:
        return load_tokenizer(name_or_path).eos_token_id
    except (OSError, ValueError):
        return None


def load_part(part: str, name_or_path: str, config: VAEConfig, **options) -> tuple[PreTrainedModel, set[str]]:
    """
    The pretrained encoder or decoder, and the names of those of its weights that `name_or_path` does not have, such as the
    cross-attention of a decoder that was pretrained without any.
    """
    loaded: Any
    if part == "encoder":
        loaded = build_encoder(config.encoder, config.pooling, name_or_path, output_loading_info=True, **options)
    else:
        options["output_loading_info"] = True
        loaded = AutoModelForCausalLM.from_pretrained(name_or_path, config=config.decoder, **options)
    model, info = loaded
    return model, set(info["missing_keys"])


def is_adapter(name_or_path: Any, where: dict[str, Any]) -> bool:
    """Whether there is an adapter, which has no model's configuration."""
    return not has_file(name_or_path, CONFIG_NAME, **where) and has_file(name_or_path, ADAPTER_CONFIG_NAME, **where)


def check_files(name_or_path: Any, where: dict[str, Any]) -> None:
    """
    Refuses a model whose files transformers would pass over, or whose error would not name the file.

    Raises:
        OSError: a file is missing or damaged.
    """
    if name_or_path is None:
        return
    # Without it, the saved defaults of `generate` would be gone.
    read_json(name_or_path, GENERATION_CONFIG_NAME, **where)
    if (Path(name_or_path) / PROCESSOR_NAME).is_file():
        read_json(name_or_path, PROCESSOR_NAME, **where)


def check_left_out(name: str, of_parts: Mapping[str, Any] | None, config: VAEConfig) -> None:
    """Raises a `ValueError` if the argument `name` is no mapping, or speaks of a part that was not left out of what is saved."""
    if not isinstance(of_parts or {}, Mapping):
        raise ValueError(f'`{name}` is {of_parts!r}; it is a dictionary of parts, such as {{"decoder": …}}.')
    for part in of_parts or ():
        check_choice(name, part, PARTS)
        if part not in (config.frozen_parts or {}):
            raise ValueError(f"`{name}` names the {part}, which is saved with the model: leave it out.")


def describe_part(name_or_path: str) -> dict[str, str | None]:
    """
    How a configuration names a part that is not saved with the model: by Hub id and commit, or by a folder's name and the digest of
    its weights. The path stays on this machine.

    Raises:
        OSError: there is nothing to name it by: no weights in the folder, or no commit in huggingface_hub's cache.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        # Not that of what a link leads to: the link's is what was typed.
        return {"name_or_path": Path(os.path.abspath(folder)).name, "revision": None, "sha256": weights_digest(folder)}
    commit = commit_of(name_or_path)
    if commit is None:
        raise OSError(
            f"The commit of {name_or_path} is not in huggingface_hub's cache, so a model could not name what it was made of."
        )
    return {"name_or_path": name_or_path, "revision": commit}


def find_part_folders(frozen: Mapping[str, dict[str, Any]], name_or_path: Any, given: Mapping[str, str | Path]) -> dict[str, str]:
    """
    Where the parts lie that came from a folder.

    Args:
        frozen: the configuration's `frozen_parts`.
        name_or_path: of the model.
        given: folders that the caller names.

    Raises:
        OSError: there is no such folder.
        ValueError: it holds other weights, or a folder stands where the Hub's repository is meant.
    """
    folders = {}
    for part, base in frozen.items():
        if not isinstance(base, dict):
            raise ValueError(
                f"`frozen_parts` is the configuration's own; to say that the {part} lies in {base}, give `part_folders`."
            )
        name = base["name_or_path"]
        if base["revision"] is not None:
            if part in given:
                raise ValueError(f"`part_folders` names the {part}, which comes from the Hub ({name}): leave it out.")
            if Path(name).is_dir():
                raise ValueError(
                    f"The {part} is the Hub's {name}, and transformers would take the folder {Path(name).resolve()} for it: call "
                    "from another working directory, or rename the folder."
                )
            continue
        near = (Path(name_or_path), Path(name_or_path).parent, Path.cwd())
        places = [_given_folder(part, given[part], name_or_path)] if part in given else [(place / name).resolve() for place in near]
        folder = next((place for place in places if place.is_dir()), None)
        call = f'`from_pretrained(…, part_folders={{"{part}": "/path/to/{Path(name).name}"}})`'
        if folder is None:
            looked = ", ".join(dict.fromkeys(str(place.parent) for place in places))
            raise OSError(
                f"The {part} was not saved with {name_or_path}: it came from a folder named {Path(name).name!r}, which is not in "
                f"{looked}. Put it there, or name it, such as {call}."
            )
        if "sha256" not in base:
            logger.warning("Nothing tells whether %s still holds the %s of %s; save the model again.", folder, part, name_or_path)
        elif weights_digest(folder) != base["sha256"]:
            raise ValueError(
                f"{folder} holds other weights than the {part} that {name_or_path} was trained with: name the folder that holds "
                f"them, such as {call}."
            )
        folders[part] = str(folder)
    return folders


def _given_folder(part: str, folder: Any, name_or_path: Any) -> Path:
    """
    Raises:
        OSError: there is no such folder.
        ValueError: what `part_folders` holds is no path.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise ValueError(f"`part_folders` says that the {part} lies in {folder!r}; it takes the path of a folder.")
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise OSError(
            f"The {part} was not saved with {name_or_path}: `part_folders` says that it lies in {folder}, and there is no such "
            f"folder ({path})."
        )
    return path


def load_frozen_parts(
    config: VAEConfig,
    folders: Mapping[str, str],
    where: dict[str, Any],
    dtype=None,
    attn_implementation=None,
    quantization_config=None,
    **other,
) -> dict[str, tuple[PreTrainedModel, set[str]]]:
    """What `config` says was left out: from `folders`, else from the Hub."""
    frozen = config.frozen_parts or {}
    if other:
        raise ValueError(
            f"`{next(iter(other))}` cannot be given for a model whose {' and '.join(frozen)} was left out ({frozen}): of the "
            "options of `from_pretrained` these work here: `part_folders`, `dtype`, `attn_implementation`, `quantization_config`, "
            "and the Hub's."
        )
    loaded = {}
    for part, base in frozen.items():
        name_or_path = folders.get(part, base["name_or_path"])
        # Whoever agreed to the code of this model has not read that of another repository, and none was run to make it.
        place = {**where, "revision": base["revision"] or "main", "trust_remote_code": False}
        place.pop("subfolder", None)
        options = {**place, "dtype": dtype or torch.float32}
        if attn_implementation is not None:
            of_each = isinstance(attn_implementation, dict)
            options["attn_implementation"] = attn_implementation.get(part) if of_each else attn_implementation
        if part == "decoder":
            options |= quantization_of(config.decoder, name_or_path, quantization_config, place)
        try:
            loaded[part] = load_part(part, name_or_path, config, **options)
        except SafetensorError as error:
            raise OSError(f"The weights of {name_or_path}, the {part}, cannot be read ({error}): fetch them again.") from error
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"The {part} was left out of this model, and {name_or_path}, where it comes from, brings code of its own. "
                "`trust_remote_code` does not reach it: such a part must be one that transformers or an installed package knows."
            ) from error
    return loaded


def quantization_of(config: PreTrainedConfig, name_or_path: str, asked_for: Any, where: dict[str, Any]) -> dict[str, Any]:
    """How to quantise a decoder while it is loaded: as asked for, or as it was quantised when the model was saved."""
    saved = getattr(config, "quantization_config", None)
    if saved is None or getattr(AutoConfig.from_pretrained(name_or_path, **where), "quantization_config", None) is not None:
        return {} if asked_for is None else {"quantization_config": asked_for}
    # What is loaded is not quantised yet, and its configuration must not say so.
    del config.quantization_config
    return {"quantization_config": saved if asked_for is None else asked_for}


def assemble(cls: Any, config: VAEConfig, loaded: dict[str, tuple[PreTrainedModel, set[str]]]) -> Any:
    """
    The model of `config` around what was loaded; what of it is `config.frozen_parts` gets no gradient and stays out of what is
    saved, but for the weights that it was not pretrained with.
    """
    cls.prepare_decoder_config(config)
    model = cls(config, **{part: pretrained for part, (pretrained, _) in loaded.items()})
    left_out = set()
    for part in config.frozen_parts or ():
        own = {f"{prefix}{name}" for prefix in PREFIXES[part] for name in loaded[part][1]}
        left_out |= {name for name in model.state_dict() if name.startswith(PREFIXES[part]) and name not in own}
    for name, parameter in model.named_parameters():
        if name in left_out:
            parameter.requires_grad_(False)
    setattr(model, LEFT_OUT, {*(getattr(model, LEFT_OUT) or ()), *left_out})
    model.sums_left_out = sums_of(model, left_out)
    return model


def sums_of(model: PreTrainedModel, names: Iterable[str]) -> dict[str, tuple[torch.dtype, float] | None]:
    """Dtype and sum of each of the weights in `names`: enough to see that one has changed. Quantised ones have no sum."""
    weights = model.state_dict()
    plain = {name: weights[name] for name in names if type(weights[name]) is torch.Tensor}
    return {name: (plain[name].dtype, plain[name].double().sum().item()) if name in plain else None for name in names}


def commit_of(name_or_path: str) -> str | None:
    """The commit of `name_or_path` that was loaded last, where it came from the Hub."""
    if Path(name_or_path).is_dir():
        return None
    cached = try_to_load_from_cache(name_or_path, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def read_safetensors(name_or_path: str, **where) -> dict[str, torch.Tensor]:
    """
    The tensors of `model.safetensors` in a directory or repository.

    Raises:
        OSError: there is no such file, or more than one.
    """
    if has_file(name_or_path, SAFE_WEIGHTS_INDEX_NAME, **where):
        raise OSError(f"{name_or_path} has its weights in several files; those of a model with parts left out are in one.")
    with safe_open(cached_file(name_or_path, SAFE_WEIGHTS_NAME, **where), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)


def load_own_weights(model: PreTrainedModel, own: dict[str, torch.Tensor], name_or_path: str) -> None:
    """
    Loads what was saved of a model whose frozen parts are there already.

    Raises:
        ValueError: it holds other weights than the model needs.
    """
    absent, unexpected = model.load_state_dict(own, strict=False)
    missing = sorted(set(absent) - set(cast(Any, model).sums_left_out) - set(model.all_tied_weights_keys))
    if missing or unexpected:
        raise ValueError(
            f"{name_or_path} does not fit the configuration that lies beside it: weights are missing ({missing[:5]}) or too many "
            f"({sorted(unexpected)[:5]})."
        )


__all__ = ["PretrainedParts"]
