"""Sliders along principal directions, attributes and single units."""

from __future__ import annotations

from typing import Any

import gradio as gr
import torch

from ...processing_vae import is_text
from ..directions import PrincipalDirections, moved, principal_directions, units_by_kl
from ..explored import Explored
from ..paths import marked
from . import markup
from .fields import asked_for, attribute_fields, message_field, source_field
from .messages import told

DIRECTIONS = 5
# Where a direction is looked at, in standard deviations.
STATIONS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def directions_of(explored: Explored) -> PrincipalDirections | None:
    """Those of the page's codes; `None` if there are none."""
    if explored.corpus is None or not (explored.has_posterior or explored.corpus.latents is not None):
        return None
    return principal_directions(explored.codes, min(DIRECTIONS, explored.model.config.total_latent_size))


def build_sliders(explored: Explored) -> None:
    """The panel, inside the tab that is open."""
    found = directions_of(explored)
    units = units_by_kl(explored)
    gr.HTML('<p class="explorer-lead">What does one direction of z, one attribute or one unit say?</p>')
    with gr.Row():
        start = gr.Textbox(
            explored.example(0) if explored.has_posterior else "",
            label="Start from this text; from z = 0 if it is empty",
            scale=4,
            visible=explored.has_posterior,
        )
        again = gr.Button("Start again", min_width=120, scale=0)
    source = source_field(explored)
    note = message_field()
    result = gr.HTML('<div class="explorer-label">Move a slider.</div>', elem_id="sliders-result")
    names = [] if found is None else [f"direction {number + 1}" for number in range(len(found.std))]
    sliders = []
    with gr.Row():
        for name, share in zip(names, [] if found is None else found.shares.tolist(), strict=True):
            label = f"{name} ({100 * share:.0f} %)"
            sliders.append(gr.Slider(-3, 3, value=0, step=0.1, label=label, min_width=200))
    if found is None:
        gr.HTML(markup.note("Principal directions need codes of texts: name a file with `--file`."))
    with gr.Row():
        choices = [(f"unit {unit}" + (f": {kl:.2f} nats" if kl == kl else ""), unit) for unit, kl in units]
        unit = gr.Dropdown(choices, value=units[0][0], label="Single unit, by its KL", min_width=180)
        shift = gr.Slider(-4, 4, value=0, step=0.1, label="Move this unit by", min_width=200)
    fields = attribute_fields(explored)
    with gr.Row(visible=bool(fields)):
        attributes = list(fields.values())
        strength = gr.Slider(0, 3, value=1, step=0.1, label="How clearly it is to have the attributes", min_width=200)
    with gr.Row():
        along = gr.Dropdown([*names, "the single unit"], value=(names or ["the single unit"])[0], label="Look along", min_width=180)
        look = gr.Button("Write seven texts along it", variant="primary", min_width=220, scale=0)
    stations = gr.HTML("", elem_id="sliders-stations")

    def z_of(text: str, written: str) -> tuple[torch.Tensor, Any]:
        given = explored.as_source(written)
        if not is_text(text):
            return torch.zeros(explored.model.config.total_latent_size), given
        return explored.encode([text.strip()], None if given is None else [given]).mode()[0], given

    def changed(
        text: str, written: str, chosen: int, by: float, clearly: float, *values: Any
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """z where it starts, z as the fields say, and the source."""
        z, given = z_of(text, written)
        amounts, wanted = values[: len(sliders)], values[len(sliders) :]
        steps = [] if found is None else [(v * s, a) for v, s, a in zip(found.directions, found.std, amounts, strict=True) if a]
        single = {int(chosen): z[int(chosen)].item() + by} if by else {}
        asked = asked_for(explored, list(fields), wanted)
        return z, moved(explored, z, steps, single, asked, clearly), given

    @told(1)
    def move(text: str, *values: Any):
        begin, z, given = changed(text, *values)
        before, after = explored.decode(torch.stack([begin, z]), given)
        far = (z - begin).norm().item()
        said = f"z has moved by {far:.2f} standard deviations of N(0, I). {explored.note_on(text, values[0])}"
        parts = [
            markup.text(marked(before, after), "after the move"),
            markup.text(before, "before it: what is written of the start"),
        ]
        return said, "".join(parts)

    @told(1)
    def write_along(which: str, text: str, *values: Any):
        _, z, given = changed(text, *values)
        if which in names and found is not None:
            number = names.index(which)
            step, unit_name = found.directions[number] * found.std[number], which
        else:
            step = torch.zeros_like(z)
            step[int(values[1])] = 1.0
            unit_name = f"unit {int(values[1])}"
        texts = explored.decode(torch.stack([z + station * step for station in STATIONS]), given)
        labels = [f"{station:+.0f}" for station in STATIONS]
        head = f'<div class="explorer-label">Along {unit_name}, in standard deviations; marked is what differs from 0.</div>'
        listed = markup.steps(texts, labels, STATIONS.index(0.0), against=texts[STATIONS.index(0.0)])
        return explored.note_on(text, values[0]), head + listed

    given = [start, source, unit, shift, strength, *sliders, *attributes]
    for slider in (*sliders, shift, strength):
        # While it moves, the latest place counts.
        slider.input(move, given, [note, result], show_progress="hidden", trigger_mode="always_last")
    for field in attributes:
        field.input(move, given, [note, result], show_progress="hidden")
    start.submit(move, given, [note, result], show_progress="hidden")
    look.click(write_along, [along, *given], [note, stations], show_progress="minimal")

    def reset() -> tuple:
        return (*[0.0] * (len(sliders) + 1), *[None if isinstance(each, gr.Number) else each.value for each in attributes])

    again.click(reset, None, [*sliders, shift, *attributes]).then(move, given, [note, result], show_progress="hidden")
