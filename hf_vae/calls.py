"""Calling a model's verbs with what a processor has made, of which each reads its share."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def call_with(method: Callable, inputs: Mapping[str, Any], **options: Any) -> Any:
    """`method` with those `inputs` that its signature names, as the Trainer calls `forward`, and with `options`."""
    return method(**{name: inputs[name] for name in inspect.signature(method).parameters if name in inputs}, **options)
