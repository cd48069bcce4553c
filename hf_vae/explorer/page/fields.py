"""Fields that several panels have."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr

from ...latent_attribute import LatentAttribute
from ...latent_spread import LATENT_SPREADS
from ..explored import Explored

AS_IT_IS = "(as it is)"


def source_field(explored: Explored, row: int = 0) -> gr.Textbox:
    """Where x is written; a model without sources has it too, out of sight."""
    label = "Dialogue: a turn on each line, the last is answered" if explored.is_dialog else "Source"
    return gr.Textbox(
        explored.written_source(row), label=label, lines=3 if explored.is_dialog else 1, visible=explored.is_conditional
    )


def message_field() -> gr.HTML:
    """Where a panel's message stands."""
    return gr.HTML("")


def drawing_fields(count: int, what: str = "Outputs") -> list[Any]:
    """How many z, their temperature, their spread, and their seed."""
    with gr.Row():
        number = gr.Slider(1, 20, value=count, step=1, label=what, min_width=140)
        temperature = gr.Slider(0, 2, value=1, step=0.05, label="Temperature of z", min_width=140)
        spread = gr.Dropdown(list(LATENT_SPREADS), value="independent", label="Spread of z", min_width=170)
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
    return [number, temperature, spread, seed]


def attribute_fields(explored: Explored) -> dict[str, Any]:
    """For each attribute of the model a field for what it is to be."""
    fields: dict[str, Any] = {}
    for name, each in explored.model.latent_attributes.items():
        attribute = cast(LatentAttribute, each)
        if attribute.labels is None:
            low, high = float(attribute.lowest), float(attribute.highest)
            fields[name] = gr.Number(None, label=f"{name}, from {low:.3g} to {high:.3g}; empty: {AS_IT_IS}", min_width=140)
        else:
            fields[name] = gr.Dropdown([AS_IT_IS, *map(str, attribute.labels)], value=AS_IT_IS, label=name, min_width=140)
    return fields


def asked_for(explored: Explored, names: list[str], values: tuple) -> dict[str, Any]:
    """The attributes that are asked for, as `generate` takes them."""
    asked = {}
    for name, value in zip(names, values, strict=True):
        attribute = cast(LatentAttribute, explored.model.latent_attributes[name])
        if attribute.labels is None and value is not None:
            asked[name] = float(value)
        elif attribute.labels is not None and value not in (None, AS_IT_IS):
            # Labels may be numbers or truth values, which a field shows as text.
            asked[name] = next(label for label in attribute.labels if str(label) == value)
    return asked
