"""Files of arguments: what a script's command line would say, as YAML or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from ..options.mistakes import with_guess

_PLAIN = {int: "a whole number", float: "a number", string_to_bool: "true or false"}


class _TwiceError(ValueError):
    """A name that stands twice."""


class _Loader(yaml.SafeLoader):
    """YAML in which a name stands once: PyYAML would take the last of several."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise _TwiceError(twice)
        return super().construct_mapping(node, deep)


def read_recipe(path: str | Path, parser: HfArgumentParser) -> dict[str, Any]:
    """
    The arguments in a file, by name, without those that have no value there.

    Args:
        path (`str` or `Path`): the file.
        parser (`HfArgumentParser`): of the command line, which knows what arguments there are and what they take.

    Raises:
        ValueError: it holds no arguments, one that does not exist, or a value that the argument does not take.
    """
    try:
        # JSON is YAML too.
        recipe = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
    except _TwiceError as error:
        raise ValueError(f"{path} names `{error}` twice: leave one of them out.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(recipe, Mapping):
        found = "nothing" if recipe is None else f"a {type(recipe).__name__}"
        raise ValueError(f"{path} holds {found}; a file of arguments names each with its value, such as `max_steps: 1000`.")
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    unknown = sorted(map(str, set(recipe) - set(actions)))
    if unknown:
        raise ValueError(f"{path} has no such argument(s): {', '.join(with_guess(name, actions) for name in unknown)}.")
    hints: dict[str, Any] = {}
    for arguments in parser.dataclass_types:
        hints |= get_type_hints(arguments)
    return {name: _value(path, value, actions[name], hints[name]) for name, value in recipe.items() if value is not None}


def _value(path: str | Path, value: Any, action: argparse.Action, hint: Any) -> Any:
    """`value` as the command line would read it. An argument that may be a mapping or a list in Python may be one in the file."""
    if isinstance(value, (Mapping, list)) and type(value) in {get_origin(each) or each for each in get_args(hint)}:
        return value
    several = action.nargs in ("+", "*")
    if isinstance(value, Mapping) or (isinstance(value, list) and not several):
        raise ValueError(f"{path}: `{action.dest}` is {value!r}; it takes {_wanted(action)}.")
    values = [_read(path, each, action) for each in (value if isinstance(value, list) else [value])]
    return values if several else values[0]


def _read(path: str | Path, value: Any, action: argparse.Action) -> Any:
    convert: Any = action.type or str
    if value is False and "no" in (action.choices or ()):
        # YAML reads a plain `no` as false.
        value = "no"
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
