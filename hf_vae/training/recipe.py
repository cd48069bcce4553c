"""Files of arguments: what a script's command line would say, as YAML or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from transformers.hf_argparser import string_to_bool

_PLAIN = {int: "a whole number", float: "a number", string_to_bool: "true or false"}


def read_recipe(path: str | Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """
    The arguments in a file, by name.

    Args:
        path (`str` or `Path`): the file.
        parser (`argparse.ArgumentParser`): of the command line, which knows what arguments there are and what they take.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no arguments, one that does not exist, or a value that the argument does not take.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path} of arguments.")
    try:
        # JSON is YAML too.
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(recipe, Mapping):
        found = "nothing" if recipe is None else f"a {type(recipe).__name__}"
        raise ValueError(f"{path} holds {found}; a file of arguments names each with its value, such as `max_steps: 1000`.")
    actions = {action.dest: action for action in parser._actions}
    unknown = sorted(map(str, set(recipe) - set(actions)))
    if unknown:
        raise ValueError(f"{path} has no such argument(s): {', '.join(unknown)}.")
    return {name: _value(path, value, actions[name]) for name, value in recipe.items()}


def _value(path: str | Path, value: Any, action: argparse.Action) -> Any:
    """`value` as the command line would read it; options that are text of JSON may stand in the file as they are."""
    several = action.nargs in ("+", "*")
    as_it_stands = action.type not in _PLAIN and not action.choices and not several
    if value is None or (isinstance(value, Mapping) and as_it_stands):
        return value
    if isinstance(value, Mapping) or (isinstance(value, list) and not several):
        raise ValueError(f"{path}: `{action.dest}` is {value!r}; it takes {_wanted(action)}.")
    values = [_read(path, each, action) for each in (value if isinstance(value, list) else [value])]
    return values if several else values[0]


def _read(path: str | Path, value: Any, action: argparse.Action) -> Any:
    convert: Any = action.type or str
    try:
        if isinstance(value, (Mapping, list)):
            raise TypeError
        read = convert(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{path}: `{action.dest}` is {value!r}; it takes {_wanted(action)}.") from error
    if action.choices and read not in action.choices:
        raise ValueError(f"{path}: `{action.dest}` is {value!r}; it takes {_wanted(action)}.")
    return read


def _wanted(action: argparse.Action) -> str:
    plain = _PLAIN.get(cast(Any, action.type), "text")
    one = f"one of {', '.join(map(str, action.choices))}" if action.choices else plain
    return f"a list, each {one}" if action.nargs in ("+", "*") else one
