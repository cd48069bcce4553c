"""`--help`: the arguments in groups, with the defaults that the command line in hand would have."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from .commands import COMMANDS
from .groups import CHOICES, GROUPS, TRAINING
from .mistakes import program
from .recipes import default_recipe, is_recipe, kept_beside, written_in

# Where what an argument means begins.
_COLUMN = 34
_WORDS = {"int": "N", "float": "NUMBER", "bool": "true|false", "dict": "JSON"}


def asks_for_help(argv: Sequence[str]) -> str | None:
    """`"short"` for `--help`, `"all"` for `--help all`, `None` for neither."""
    place = next((place for place, word in enumerate(argv) if word in ("-h", "--help")), None)
    if place is None:
        return None
    return "all" if [*argv[place + 1 : place + 2]] == ["all"] else "short"


def print_help(command: str, argv: Sequence[str], classes: Sequence[type] | None = None) -> None:
    """
    Prints the help of a command.

    Args:
        command (`str`): one of [`COMMANDS`].
        argv (`list[str]`): the rest of the command line, which says which recipe the defaults come from.
        classes (`list[type]`, *optional*): dataclasses of its arguments, if techniques were registered besides.
    """
    try:
        print(help_of(command, argv, classes), flush=True)
    except BrokenPipeError:
        # Whoever reads it through a pager has seen enough, and Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def help_of(command: str, argv: Sequence[str], classes: Sequence[type] | None = None) -> str:
    """The text of [`print_help`]."""
    told = COMMANDS[command]
    known = {each.name: each for arguments in classes or told.arguments for each in fields(arguments)}
    defaults = {name: _default(each) for name, each in known.items()}
    lines = [f"usage: {program()} {told.first} [--option value ...]", "", told.purpose]
    if told.trains:
        recipe, values = _recipe(command.removeprefix("train "), argv, known)
        defaults |= {name: default for name, (default, _) in TRAINING.items()} | {"output_dir": f"outputs/{command.split()[1]}"}
        defaults |= values
        lines += ["", *_wrapped(recipe)]
    for title, names in GROUPS.items():
        lines += _group(title, [name for name in names if name in known], known, defaults)
    grouped = {name for names in GROUPS.values() for name in names}
    lines += _group("Other arguments", [name for name in known if name not in grouped], known, defaults)
    if told.trains:
        lines += ["", "The Trainer (all arguments of transformers' TrainingArguments: --help all)"]
        for name, (_, meaning) in TRAINING.items():
            lines += _entry(f"--{name}", meaning, defaults[name])
    return "\n".join(lines)


def _group(title: str, names: Sequence[str], known: Mapping[str, Field], defaults: Mapping[str, Any]) -> list[str]:
    if not names:
        return []
    entries = [_entry(f"--{name}{_value_of(known[name])}", known[name].metadata.get("help", ""), defaults[name]) for name in names]
    return ["", title, *(line for entry in entries for line in entry)]


def _entry(option: str, meaning: str, default: Any) -> list[str]:
    shown = "" if default is None or default is False or default in ([], "{}") else f" (default: {_as_said(default)})"
    lines = [" " * _COLUMN + line for line in textwrap.wrap(f"{meaning}{shown}", _width() - _COLUMN)]
    first = f"  {option}"
    return [first, *lines] if len(first) + 2 > _COLUMN else [f"{first:<{_COLUMN}}{lines[0].lstrip()}", *lines[1:]]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width())


def _width() -> int:
    return min(max(shutil.get_terminal_size((100, 24)).columns, 70), 110)


def _as_said(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value).replace("\n", "\\n")


def _value_of(each: Field) -> str:
    """What follows the name of an argument."""
    kind = _kind(each)
    if kind == "bool" and each.default is False:
        return ""
    if each.name == "lora":
        return " RANK|JSON"
    one = "|".join(CHOICES[each.name]) if each.name in CHOICES else _WORDS.get(kind, "TEXT")
    return f" {one} ..." if kind.startswith("list") else f" {one}"


def _kind(each: Field) -> str:
    """Its type, or the first of several, by name. transformers' parser puts the type itself in the place of what is written."""
    kind: Any = each.type
    return (kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__origin__") else str(kind)).split(" | ")[0]


def _default(each: Field) -> Any:
    if each.default is not MISSING:
        return each.default
    return each.default_factory() if each.default_factory is not MISSING else None


def _recipe(task: str, argv: Sequence[str], known: Mapping[str, Field]) -> tuple[str, dict[str, Any]]:
    """Where the defaults of this command line come from, in words, and what stands there."""
    if argv and is_recipe(argv[0]):
        return f"The defaults are those of {argv[0]}.", kept_beside(written_in(argv[0]), _said(argv[1:], known), argv[0])
    said = _said(argv, known)
    name = default_recipe(task, said)
    why = (
        f"The defaults are those of this command line: of the package's recipe {name}. Without --train_file it is "
        f"{task}_embedded.yaml, with --train_file {task}_from_scratch.yaml, and with pretrained parts besides "
        f"{task}_pretrained.yaml. A file of arguments that comes first stands in its place."
    )
    return why, kept_beside(written_in(name), said)


def _said(argv: Sequence[str], known: Mapping[str, Field]) -> dict[str, Any]:
    """The arguments that a command line names, with values as far as they decide which defaults it has."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    kinds = {name: _kind(each) for name, each in known.items()} | dict.fromkeys(TRAINING, "str")
    for name, kind in kinds.items():
        convert: Any = int if kind == "int" else float if kind.startswith("float") else _truth if kind.startswith("bool") else str
        several = kind.startswith("list")
        parser.add_argument(f"--{name}", type=convert, nargs="*" if several else "?", const=None if several else True)
    try:
        said, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError:
        # The command itself says what is wrong with it.
        return {}
    return {name: value for name, value in vars(said).items() if value is not None}


def _truth(text: str) -> bool:
    return text.lower() in ("yes", "true", "t", "y", "1")
