"""A mistake of a person becomes a message on the page, and what the page shows stays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from .markup import note


def told(outputs: int) -> Callable[[Callable[..., tuple]], Callable[..., tuple]]:
    """
    For a function of a panel whose first output is its message, a text, followed by so many `outputs`. If it refuses what it was
    given, the message says why, and the outputs are left as they are.
    """

    def wrap(function: Callable[..., tuple]) -> Callable[..., tuple]:
        @functools.wraps(function)
        def wrapped(*given: Any) -> tuple:
            try:
                message, *results = function(*given)
            except (ValueError, FloatingPointError, ImportError, OSError) as error:
                return (note(str(error), is_error=True), *[gr.skip()] * outputs)
            return (note(message), *results)

        return wrapped

    return wrap
