"""Checks of saved files: are they complete, and are they still what they were?"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME, cached_file

# The options of `from_pretrained` that say where to find a file.
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


def has_file(name_or_path: Any, file: str, **where) -> bool:
    """Whether a directory or repository has a file; `where` takes [`HUB_OPTIONS`]."""
    return cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False, **where) is not None


def read_json(name_or_path: Any, file: str, **where) -> dict[str, Any]:
    """
    Reads a JSON file of a directory or repository; `where` takes [`HUB_OPTIONS`].

    Raises:
        OSError: the file is missing or damaged. The error names it.
    """
    path = cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False, **where)
    if path is None:
        place = PurePosixPath(where.get("subfolder", ""), file)
        raise OSError(
            f"{name_or_path} has no {place}, without which it would not be loaded as it was saved: fetch or copy it again."
        )
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        # Not `from error`, because `pipeline` prints the whole traceback of each error.
        raise OSError(f"{path} is cut off or damaged ({error}): fetch or copy it again.") from None
    if not isinstance(content, dict):
        raise OSError(f"{path} holds no JSON object but {str(content)[:50]!r}: fetch or copy it again.")
    return content


def weights_digest(folder: str | Path) -> str:
    """
    The SHA-256 digest, in hexadecimal digits, of the weights in a folder that `save_pretrained` wrote: of the name, dtype, shape
    and bytes of each tensor. The number of files does not matter. One tensor at a time is read.

    Raises:
        OSError: there are no weights, or they cannot be read.
    """
    try:
        return _digest(_tensors(Path(folder)))
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise OSError(f"The weights in {folder} cannot be read ({error}): fetch or copy them again.") from error


def module_digest(module: nn.Module) -> str:
    """The digest, as [`weights_digest`]'s, of the weights that `module` has now."""
    return _digest(sorted(module.state_dict().items()))


def _digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in the order of their names, from the files that transformers would load."""
    names = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
    found = next((name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise OSError(f"{folder} holds no weights: it has none of {', '.join(names)}.")
    files = sorted(set(read_json(folder, found)["weight_map"].values())) if found.endswith(".json") else [found]
    with ExitStack() as opened:
        owners: dict[str, Any] = {}
        for file in files:
            if found in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
                handle = opened.enter_context(safe_open(folder / file, framework="pt"))
                owners |= dict.fromkeys(handle.keys(), handle.get_tensor)
            else:
                tensors = torch.load(folder / file, map_location="cpu", weights_only=True)
                owners |= dict.fromkeys(tensors, tensors.__getitem__)
        for name in sorted(owners):
            yield name, owners[name](name)


__all__ = ["HUB_OPTIONS", "has_file", "module_digest", "read_json", "weights_digest"]
