"""Options of a technique as a command line gives them."""

from __future__ import annotations

import json


def parse_json(name: str, options: str | dict | None) -> dict:
    """
    A command line's JSON, or what a file of arguments holds in its place.

    Raises:
        ValueError: the argument `name` is no JSON object.
    """
    try:
        parsed = json.loads(options) if isinstance(options, str) else options or {}
    except ValueError as error:
        raise ValueError(f"`--{name}` is {options!r}, which is no JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"`--{name}` is {options!r}; it is an object of options, such as '{{\"name\": 1}}'.")
    return parsed
