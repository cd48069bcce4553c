"""Keeps tokens, paths of this machine and pickles out of what is published of a run."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import quote, urlsplit

from huggingface_hub import get_token
from huggingface_hub.utils import filter_repo_objects
from transformers import TrainingArguments

from ..options.data import SplitArguments

# transformers writes this in place of a token.
HIDDEN = "<HIDDEN>"
_SECRETS = ("token", "password", "secret", "api_key")
# `push_to_hub_token` was `hub_token`'s name in earlier versions of transformers.
_ARGUMENTS = {each.name for arguments in (TrainingArguments, SplitArguments) for each in fields(arguments)} | {"push_to_hub_token"}
# What these hold is text whatever it looks like: `[/INST]` is no path, and `</s>`, a token of a tokenizer, no secret.
_TEXTS = {
    "prompt_template", "decoder_start_token", "text_column", "source_column", "target_column", "meta_columns",
    "length_column_name", "label_names",
}  # fmt: skip
# Files of a training that are not part of the model: checkpoints, the one without z, logs, the Trainer's state, caches, and hidden.
KEPT_BACK = [
    "checkpoint-*", "*/checkpoint-*", "baseline/*", "runs/*", "stages/*", "wandb/*", "mlruns/*", "*.tfevents.*", "*.log",
    "training_args.bin", "trainer_state.json", "optimizer.*", "scheduler.pt", "rng_state*", "scaler.pt",
    ".*", "*/.*", "*__pycache__/*", "*.pyc", "*.tmp", "*.lock", "*~",
]  # fmt: skip
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
# Files of numbers: they may be large, and words occur in them only by chance.
_NOT_TEXT = {".safetensors", ".png"}
# Any token of the Hub.
_TOKEN = re.compile(r"(?<!\w)hf_[A-Za-z0-9]{30,}(?!\w)")


def public_command(script: str, argv: Sequence[str]) -> str:
    """The command line of a run for publishing: secrets are hidden, and files and folders are reduced to their names."""
    words = ["accelerate", "launch", script]
    option = ""
    for word in argv:
        name, equals, value = word.partition("=")
        if not re.fullmatch(r"--[\w-]+", name):
            words.append(public_argument(option, word))
        elif equals:
            words.append(f"{name}={public_argument(name, value)}")
            option = ""
        else:
            words.append(name)
            option = name
    return shlex.join(words)


def public_argument(name: str, value: Any) -> Any:
    """
    The value of the argument `name`, or of a command-line option, which may be abbreviated, for publishing: a secret is hidden, a
    text is whole but for tokens of the Hub, and all else is as [`public_value`] has it.
    """
    name = name.lstrip("-").replace("-", "_").lower()
    known = _ARGUMENTS | _TEXTS
    meant = {name} & known or {each for each in known if name and each.startswith(name)}
    if not meant or meant - _TEXTS:
        return HIDDEN if any(each.endswith(_SECRETS) for each in {name, *meant} - _TEXTS) else public_value(value)
    if isinstance(value, (list, tuple)):
        return [public_argument(name, each) for each in value]
    return _TOKEN.sub(HIDDEN, value) if isinstance(value, str) else value


def public_value(value: Any) -> Any:
    """
    The value of an argument for publishing; lists, mappings and JSON are searched at any depth. A file, a folder and a web address,
    which may hold a password, are reduced to their names.
    """
    if isinstance(value, Mapping):
        return {name: public_argument(str(name), each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [public_value(each) for each in value]
    if not isinstance(value, str):
        return value
    value = _TOKEN.sub(HIDDEN, value)
    if value.lstrip().startswith(("{", "[")):
        try:
            parsed = json.loads(value)
        except ValueError:
            pass
        else:
            public = public_value(parsed)
            return value if public == parsed else json.dumps(public)
    return _public_name(value)


def _public_name(value: str) -> str:
    if "://" in value:
        return Path(urlsplit(value).path).name
    if re.match(r"[A-Za-z]:[\\/]|\\\\", value):
        return PureWindowsPath(value).name
    path = Path(value)
    if value.startswith("~") or path.is_absolute():
        # The name of a home folder is the name of its user.
        is_home = path in _homes() or (value.startswith("~") and len(path.parts) == 1)
        return "~" if is_home else path.name or value
    return value if "/" not in value or is_hub_id(value) else path.name


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form of a repository on the Hub and is not a file or folder here."""
    return re.fullmatch(r"\w[\w.-]*(?:/\w[\w.-]*)?", name) is not None and not Path(name).exists()


def _homes() -> set[Path]:
    """The home folder, as it is named and with links resolved; empty for a user without one, as in some containers."""
    home = Path(os.path.expanduser("~"))
    return {home, home.resolve()} if home.is_absolute() else set()


def check_upload(folder: str | Path, token: str | None) -> None:
    """
    Checks the files that an upload of `folder` would publish.

    Args:
        folder (`str` or `Path`): the folder.
        token (`str`, *optional*): the token that is used; the token of the environment is looked for as well.

    Raises:
        ValueError: a file is a pickle, or it holds a token or the path of the home folder or of `folder`. The error names it.
    """
    folder = Path(folder).resolve()
    patterns = _patterns(folder, token)
    for name in files_to_upload(folder):
        if Path(name).suffix in _PICKLES:
            raise ValueError(
                f"{name} is a pickle, which can run code on the machine of anyone who opens it: move it out of {folder}, or "
                "save it as safetensors, then upload again."
            )
        if Path(name).suffix in _NOT_TEXT:
            continue
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        found = next((what for what, pattern in patterns.items() if re.search(pattern, text)), None)
        if found is not None:
            raise ValueError(f"{name} holds {found}, and an upload would publish it: remove it from the file, then upload again.")


def _patterns(folder: Path, token: str | None) -> dict[str, str]:
    """Regular expressions for what a file must not hold, by a description."""
    places = [("the path of your home folder", f"{home}/") for home in _homes()] + [("the path of the output folder", f"{folder}")]
    # The root of the file system is the same on every machine.
    found = [(what, word) for what, word in places if len(Path(word).parts) > 1]
    found += [(what, word) for what, word in (("your token", token), ("the token of this machine", get_token())) if word]
    patterns = {}
    for what, word in found:
        # JSON and web addresses write letters that are not ASCII in other ways.
        spellings = "|".join(re.escape(each) for each in dict.fromkeys((word, json.dumps(word)[1:-1], quote(word))))
        # A longer word is another word: `/home/al` is not in `/home/alice`.
        patterns[what] = rf"(?<!\w)(?:{spellings})" + (r"(?!\w)" if word[-1] != "/" else "")
    # peft writes the base of an adapter like this, in its configuration and in its card.
    path = r"""(?:name_or_path"|base_model(?::adapter)?):\s*(?:- *)?["']?(?:/|~|\.\.?/|[A-Za-z]:\\)"""
    return {**patterns, "a token of the Hub": _TOKEN.pattern, "a path for the name of a model": path}


def files_to_upload(folder: Path) -> Iterator[str]:
    """The files of `folder` that are uploaded, as paths below it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return iter(filter_repo_objects(names, ignore_patterns=KEPT_BACK))
