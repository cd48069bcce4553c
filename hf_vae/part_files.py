"""What lies in the folder or repository of a pretrained part, looked at before any of its weights are loaded."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME, cached_file, logging

from .configuration_vae import ATTENTION_POOLINGS
from .saved_files import read_json

logger = logging.get_logger(__name__)

_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
# What the poolings of sentence-transformers that we have too are called there.
_POOLINGS = {"mean": "mean", "cls": "first"}


def part_config(part: str, name_or_path: str, is_trained: bool) -> PreTrainedConfig:
    """
    The configuration of a pretrained encoder or decoder.

    Args:
        part (`str`): `"encoder"` or `"decoder"`.
        name_or_path (`str`): its Hub id or folder.
        is_trained (`bool`): whether its weights are trained, or at least saved with the model.

    Raises:
        OSError: there is no configuration.
        ValueError: the weights are of the GGUF format, or they are quantised and not frozen.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        _refuse_gguf(part, name_or_path, error)
        raise
    if Path(name_or_path).is_dir() and not any((Path(name_or_path) / name).is_file() for name in _WEIGHTS):
        _refuse_gguf(part, name_or_path)
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None and is_trained:
        how = quantised if isinstance(quantised, dict) else quantised.to_dict()
        raise ValueError(
            f"The weights of the {part} {name_or_path} are quantised ({how.get('quant_method')}), and cannot be trained or saved "
            f"with a model: freeze them (`freeze=[{part!r}]`, or `--freeze_{part} --save_trained_only`), or name a {part} that "
            "is not quantised."
        )
    return config


def _refuse_gguf(part: str, name_or_path: str, error: Exception | None = None) -> None:
    """Raises a `ValueError` if GGUF files are all that there is of a part."""
    found = _gguf_files(name_or_path)
    if found:
        raise ValueError(
            f"The {part} {name_or_path} holds weights of the GGUF format ({found[0]}), which cannot be trained: name the folder or "
            "repository that they were made of, or convert them, with `AutoModel…` and `AutoTokenizer.from_pretrained(folder, "
            f"gguf_file={found[0]!r})` and the `save_pretrained` of both."
        ) from error


def _gguf_files(name_or_path: str) -> list[str]:
    path = Path(name_or_path)
    if path.suffix == ".gguf":
        return [path.name]
    if path.is_dir():
        return sorted(file.name for file in path.glob("*.gguf"))
    try:
        return sorted(file for file in list_repo_files(name_or_path) if file.endswith(".gguf"))
    # There is no such repository, it is private, or the Hub cannot be reached: the caller has an error that says more.
    except Exception:
        return []


def settle_pooling(name_or_path: str, asked_for: str | None = None) -> str | None:
    """
    The `pooling` for an encoder: what was asked for, or else what it was trained with, if it is one of sentence-transformers;
    `None` if it is another's.

    Their modules say how the encoder was trained. A transformer and a pooling that we have too are honoured. A normalisation to
    length 1 is left out: it makes of the vector what a cosine compares, and the posterior's head is a trained layer that
    reads the vector as it is. Whatever else there is would be lost, and is refused unless a `pooling` is asked for.

    Raises:
        OSError: a file is damaged.
        ValueError: the transformer lies in a folder of its own, or it was trained with what we have not and no `pooling` is asked
            for.
    """
    file = cached_file(
        name_or_path, "modules.json", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if file is None:
        return asked_for
    try:
        modules = [(str(each["type"]).rpartition(".")[2], each["path"]) for each in json.loads(Path(file).read_text("utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{file} is no list of modules of sentence-transformers ({error!r}): fetch or copy it again.") from error
    trained: list[str] = []
    for kind, path in modules:
        if kind == "Transformer" and path:
            raise ValueError(
                f"The encoder {name_or_path} is a model of sentence-transformers whose transformer lies in {path}: name that "
                "folder, and the `pooling`."
            )
        if kind == "Pooling":
            trained += _poolings(read_json(name_or_path, "config.json", subfolder=path))
        elif kind not in ("Transformer", "Normalize"):
            trained.append(kind)
    known = [_POOLINGS.get(each) for each in trained]
    pooling = known[0] if len(known) == 1 else None
    if asked_for is None and pooling is None:
        raise ValueError(
            f"The encoder {name_or_path} was trained with {' and '.join(trained) or 'no pooling'} (sentence-transformers), which "
            "cannot be had here: choose a `pooling` for it, 'mean' or 'first', or another encoder."
        )
    # Learned queries read the states themselves.
    if asked_for not in (None, pooling, *ATTENTION_POOLINGS) and (asked_for, pooling) != ("target", "mean"):
        logger.warning(
            f"The encoder {name_or_path} was trained with {' and '.join(trained) or 'no pooling'} (sentence-transformers), and is "
            f"read with `pooling={asked_for!r}`, as asked."
        )
    return asked_for or pooling


def normalizes(name_or_path: str) -> bool:
    """Whether an encoder of sentence-transformers was trained with vectors of length 1; of any other `False`."""
    file = cached_file(
        name_or_path, "modules.json", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if file is None:
        return False
    return any(str(each.get("type")).endswith(".Normalize") for each in json.loads(Path(file).read_text("utf-8")))


def _poolings(config: dict[str, Any]) -> list[str]:
    """What a pooling of sentence-transformers concatenates: later versions name it, earlier ones have a switch for each."""
    named = config.get("pooling_mode")
    if named is not None:
        return [named] if isinstance(named, str) else list(named)
    switches = (name for name, is_on in config.items() if name.startswith("pooling_mode_") and is_on)
    return [name.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens") for name in switches]


__all__ = ["normalizes", "part_config", "settle_pooling"]
