"""The command lines of the commands that do not train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from transformers import HfArgumentParser

from ..options.mistakes import refuse_unknown


def parse_plain(classes: Sequence[type], argv: Sequence[str], first: str) -> tuple[Any, ...]:
    """
    Dataclasses from a command line.

    Args:
        classes (`tuple[type, ...]`): the dataclasses.
        argv (`list[str]`): the command line.
        first (`str`): the argument that may stand first, without its name.

    Raises:
        ValueError: an argument that does not exist.
    """
    if argv and not argv[0].startswith("-"):
        argv = [f"--{first}", *argv]
    parser = HfArgumentParser(cast(Any, classes), usage="%(prog)s MODEL [--option value ...]")
    *parsed, unknown = parser.parse_args_into_dataclasses(args=list(argv), return_remaining_strings=True)
    refuse_unknown(unknown, [action.dest for action in parser._actions])
    return tuple(parsed)
