"""Parts that were frozen from the start and are left out of what is saved: how a model names them, finds them and loads them."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, logging

from .checks import check_choice
from .configuration_vae import PARTS, VAEConfig
from .parts import load_part
from .saved_files import has_file, weights_digest

logger = logging.get_logger(__name__)
# How the names of each part's own weights begin in the whole model.
PREFIXES = {"encoder": ("encoder.", "source_encoder."), "decoder": ("decoder.lm.",)}
# transformers' name for what a model does not save.
LEFT_OUT = "_keys_to_ignore_on_save"


def check_left_out(name: str, of_parts: Mapping[str, Any] | None, config: VAEConfig) -> None:
    """Raises a `ValueError` unless the argument `name` is a mapping whose keys are parts that were left out of what is saved."""
    if not isinstance(of_parts or {}, Mapping):
        raise ValueError(f'`{name}` is {of_parts!r}; it is a dictionary of parts, such as {{"decoder": …}}.')
    for part in of_parts or ():
        check_choice(name, part, PARTS)
        if part not in (config.frozen_parts or {}):
            raise ValueError(f"`{name}` names the {part}, which is saved with the model: leave it out.")


def describe_part(name_or_path: str) -> dict[str, str | None]:
    """
    The entry of `config.frozen_parts` for a part that is not saved with the model: its Hub id and commit, or its folder's name and
    the digest of the weights in it. The folder's path stays on this machine.

    Raises:
        OSError: the folder holds no weights, or the commit is not in huggingface_hub's cache.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        # A link keeps its own name: that is what the user typed.
        return {"name_or_path": Path(os.path.abspath(folder)).name, "revision": None, "sha256": weights_digest(folder)}
    commit = commit_of(name_or_path)
    if commit is None:
        raise OSError(
            f"The commit of {name_or_path} is not in huggingface_hub's cache, so the model could not say which weights it was made "
            "of: load the part from the Hub, or from a folder."
        )
    return {"name_or_path": name_or_path, "revision": commit}


def commit_of(name_or_path: str) -> str | None:
    """The commit of the Hub's `name_or_path` that was loaded last."""
    if Path(name_or_path).is_dir():
        return None
    cached = try_to_load_from_cache(name_or_path, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def find_part_folders(frozen: Mapping[str, dict[str, Any]], name_or_path: Any, given: Mapping[str, str | Path]) -> dict[str, str]:
    """
    The folders of the parts that came from a folder.

    Args:
        frozen: the configuration's `frozen_parts`.
        name_or_path: the model's.
        given: folders that the caller names.

    Raises:
        OSError: a folder is not there.
        ValueError: a folder holds other weights, or a folder has the name of the Hub's repository that is meant.
    """
    folders = {}
    for part, base in frozen.items():
        if not isinstance(base, dict):
            raise ValueError(
                f"`frozen_parts` is the configuration's own; to say that the {part} lies in {base}, give `part_folders`."
            )
        if base["revision"] is not None:
            _check_hub_part(part, base["name_or_path"], part in given)
        elif part in given:
            folders[part] = _check_weights(part, base, _given_folder(part, given[part], name_or_path), name_or_path)
        else:
            folders[part] = _check_weights(part, base, _find_folder(part, base["name_or_path"], name_or_path), name_or_path)
    return folders


def _check_hub_part(part: str, name: str, is_given: bool) -> None:
    """Raises a `ValueError` if a folder was given for the Hub's `name`, or would be taken for it."""
    if is_given:
        raise ValueError(f"`part_folders` names the {part}, which comes from the Hub ({name}): leave it out.")
    if Path(name).is_dir():
        raise ValueError(
            f"The {part} is the Hub's {name}, and transformers would take the folder {Path(name).resolve()} for it: call from "
            "another working directory, or rename the folder."
        )


def _given_folder(part: str, folder: Any, name_or_path: Any) -> Path:
    """
    The folder that `part_folders` holds for a part.

    Raises:
        OSError: it is not there.
        ValueError: it is not a path.
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


def _find_folder(part: str, name: str, name_or_path: Any) -> Path:
    """
    The folder called `name` in the model's folder, beside it, or in the working directory.

    Raises:
        OSError: there is none.
    """
    places = [(near / name).resolve() for near in (Path(name_or_path), Path(name_or_path).parent, Path.cwd())]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        looked = ", ".join(dict.fromkeys(str(place.parent) for place in places))
        raise OSError(
            f"The {part} was not saved with {name_or_path}: it came from a folder named {Path(name).name!r}, which is not in "
            f"{looked}. Put it there, or name it, such as {_call(part, name)}."
        )
    return folder


def _check_weights(part: str, base: Mapping[str, Any], folder: Path, name_or_path: Any) -> str:
    """`folder`, or a `ValueError` if its weights are not those that the model was trained with."""
    if "sha256" not in base:
        logger.warning(
            "The configuration of %s has no digest of the %s, so nobody can tell whether %s still holds the same weights: save the "
            "model again.",
            name_or_path,
            part,
            folder,
        )
    elif weights_digest(folder) != base["sha256"]:
        raise ValueError(
            f"{folder} holds other weights than the {part} that {name_or_path} was trained with: name the folder that holds them, "
            f"such as {_call(part, base['name_or_path'])}."
        )
    return str(folder)


def _call(part: str, name: str) -> str:
    """How a caller names a part's folder."""
    return f'`from_pretrained(…, part_folders={{"{part}": "/path/to/{Path(name).name}"}})`'


def load_frozen_parts(
    config: VAEConfig,
    folders: Mapping[str, str],
    where: dict[str, Any],
    dtype=None,
    attn_implementation=None,
    quantization_config=None,
    **other,
) -> dict[str, tuple[PreTrainedModel, set[str]]]:
    """
    The parts in `config.frozen_parts`, from `folders` or else from the Hub, each with the names of the weights that it was not
    pretrained with.

    Args:
        config: the model's.
        folders: the folders of the parts that came from a folder.
        where: the [`HUB_OPTIONS`] that the model is loaded with.
        dtype, attn_implementation, quantization_config: as `from_pretrained` takes them.
        other: further options of `from_pretrained`, all of which are refused.

    Raises:
        OSError: weights cannot be read.
        ValueError: an option that cannot be given here, or a part that brings its own code.
    """
    frozen = config.frozen_parts or {}
    if other:
        raise ValueError(
            f"`{next(iter(other))}` cannot be given for a model whose {' and '.join(frozen)} was left out ({frozen}). Such a model "
            "takes `part_folders`, `dtype`, `attn_implementation`, `quantization_config` and the Hub's options."
        )
    loaded = {}
    for part, base in frozen.items():
        name_or_path = folders.get(part, base["name_or_path"])
        # Whoever trusts this model's code has not read the code of another repository, and the model was made without it.
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
                f"The {part} was left out of this model and comes from {name_or_path}, which brings code of its own. "
                "`trust_remote_code` does not reach it: use a part that transformers or an installed package knows."
            ) from error
    return loaded


def quantization_of(config: PreTrainedConfig, name_or_path: str, asked_for: Any, where: dict[str, Any]) -> dict[str, Any]:
    """
    The options that quantise a decoder while it is loaded: those that were asked for, or those that it was saved with.
    """
    saved = getattr(config, "quantization_config", None)
    if saved is None or getattr(AutoConfig.from_pretrained(name_or_path, **where), "quantization_config", None) is not None:
        return {} if asked_for is None else {"quantization_config": asked_for}
    # The weights in `name_or_path` are not quantised, so the configuration that they are loaded with must not say so.
    del config.quantization_config
    return {"quantization_config": saved if asked_for is None else asked_for}


def leave_out(model: Any, own: Mapping[str, set[str]]) -> None:
    """
    Freezes parts of `model` and leaves them out of what it saves.

    Args:
        model ([`VAEModel`]): the model.
        own (`dict[str, set[str]]`): of each part the weights that it was not pretrained with, which are trained and saved.
    """
    left_out = set()
    for part, missing in own.items():
        kept = {f"{prefix}{name}" for prefix in PREFIXES[part] for name in missing}
        left_out |= {name for name in model.state_dict() if name.startswith(PREFIXES[part]) and name not in kept}
    for name, parameter in model.named_parameters():
        if name in left_out:
            parameter.requires_grad_(False)
    setattr(model, LEFT_OUT, {*(getattr(model, LEFT_OUT) or ()), *left_out})
    model.sums_left_out = sums_of(model, left_out)


def sums_of(model: PreTrainedModel, names: Iterable[str]) -> dict[str, tuple[torch.dtype, float] | None]:
    """Dtype and sum of each of the weights in `names`, which tell whether one has changed. Quantised weights have no sum."""
    weights = model.state_dict()
    plain = {name: weights[name] for name in names if type(weights[name]) is torch.Tensor}
    return {name: (plain[name].dtype, plain[name].double().sum().item()) if name in plain else None for name in names}


def refuse_changed_parts(model: Any) -> None:
    """Raises a `ValueError` if a weight that is left out of what is saved is no longer what it was loaded as."""
    for name, now in sums_of(model, model.sums_left_out).items():
        then = model.sums_left_out[name]
        # Another dtype rounds everything, so the sums say nothing.
        if now is None or then is None or now[0] != then[0]:
            continue
        # Another device sums in another order.
        if abs(now[1] - then[1]) > 1e-12 * model.get_parameter_or_buffer(name).numel():
            raise ValueError(
                f"`{name}` has changed since it was loaded from {model.config.frozen_parts}, perhaps because an adapter was merged "
                "into it or because the vocabulary was resized: call `model.keep_all_parts()`, and the model is saved whole."
            )


def read_safetensors(name_or_path: str, **where) -> dict[str, torch.Tensor]:
    """
    The tensors of `model.safetensors` in a directory or repository.

    Raises:
        OSError: the file is missing, or the weights lie in several files.
    """
    if has_file(name_or_path, SAFE_WEIGHTS_INDEX_NAME, **where):
        raise OSError(
            f"{name_or_path} has its weights in several files, and those of a model with parts left out must be in one: save it "
            "with a larger `max_shard_size`."
        )
    with safe_open(cached_file(name_or_path, SAFE_WEIGHTS_NAME, **where), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)


def load_own_weights(model: PreTrainedModel, own: dict[str, torch.Tensor], name_or_path: str) -> None:
    """
    Loads the saved weights of a model whose frozen parts are there already.

    Raises:
        ValueError: weights are missing, or there are weights that the model does not have.
    """
    absent, unexpected = model.load_state_dict(own, strict=False)
    missing = sorted(set(absent) - set(cast(Any, model).sums_left_out) - set(model.all_tied_weights_keys))
    if missing or unexpected:
        raise ValueError(
            f"{name_or_path} does not fit the configuration beside it: weights are missing ({missing[:5]}) or too many "
            f"({sorted(unexpected)[:5]})."
        )
