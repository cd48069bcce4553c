"""Several outputs of one source, each with its z; a z that is kept writes for another source."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..explored import Explored
from ..outputs import Output, apply_latents, draw_outputs
from . import markup
from .fields import asked_for, attribute_fields, drawing_fields, message_field, source_field
from .messages import told


def choices(outputs: list[Output]) -> list[tuple[str, int]]:
    """What a field of choices shows of outputs."""
    return [(output.text or "(empty)", number) for number, output in enumerate(outputs)]


def keep(outputs: list[Output], ticked: list[int], kept: list[Output]) -> list[Output]:
    """
    The z that are kept already, with those of the ticked outputs.

    Raises:
        ValueError: nothing is ticked.
    """
    if not ticked:
        raise ValueError("Nothing is ticked: tick the outputs whose z you want to keep.")
    return [*kept, *(outputs[number] for number in ticked)]


def build_outputs(explored: Explored) -> None:
    """The panel, inside the tab that is open; of models without dialogues."""
    lead = (
        "How many ways does one source have, and does a z mean the same for another source?"
        if explored.is_conditional
        else f"What does the model write by itself{', or near a text' if explored.has_posterior else ''}?"
    )
    gr.HTML(f'<p class="explorer-lead">{lead}</p>')
    if explored.is_conditional:
        source = source_field(explored)
    else:
        label = "A text, whose neighbours are drawn; if it is empty, z comes from the prior"
        source = gr.Textbox("", label=label, visible=explored.has_posterior)
    options = drawing_fields(6)
    fields = attribute_fields(explored)
    with gr.Row(visible=bool(fields)):
        attributes = list(fields.values())
    with gr.Row():
        draw = gr.Button("Write", variant="primary", min_width=120, scale=0)
        redraw = gr.Button("Write others", min_width=120, scale=0)
    note = message_field()
    # A VAE has no other source that a kept z could write for.
    drawn = (
        gr.CheckboxGroup([], label="Outputs", elem_id="outputs-list")
        if explored.is_conditional
        else gr.HTML("", elem_id="outputs-list")
    )
    outputs_state = gr.State([])

    def written(text: str, count: float, temperature: float, spread: str, seed: int, values: tuple) -> tuple:
        asked = asked_for(explored, list(fields), values)
        outputs = draw_outputs(explored, text, int(count), temperature, spread, seed, asked)
        different = len({output.text for output in outputs})
        said = f"{different} different of {len(outputs)} outputs. {explored.note_on(text)}"
        if not explored.is_conditional:
            return said, outputs, markup.listed([output.text for output in outputs])
        return said, outputs, gr.update(choices=choices(outputs), value=[])

    @told(2)
    def write(text: str, count: float, temperature: float, spread: str, seed: float | None, *values: Any):
        return written(text, count, temperature, spread, int(seed or 0), values)

    @told(3)
    def write_others(text: str, count: float, temperature: float, spread: str, seed: float | None, *values: Any):
        other = int(seed or 0) + 1
        return (*written(text, count, temperature, spread, other, values), other)

    given = [source, *options, *attributes]
    for trigger in (draw.click, source.submit):
        trigger(write, given, [note, outputs_state, drawn], show_progress="minimal")
    redraw.click(write_others, given, [note, outputs_state, drawn, options[-1]], show_progress="minimal")
    if explored.is_conditional:
        build_kept(explored, outputs_state, drawn)


def build_kept(explored: Explored, outputs_state: gr.State, ticked: Any) -> None:
    """Below the outputs: the z that are kept, and another source for them."""
    with gr.Row():
        keeper = gr.Button("Keep the z of the ticked outputs", min_width=260, scale=0)
    kept = gr.CheckboxGroup([], label="Kept z, each named by what it wrote; with none ticked all count", elem_id="outputs-kept")
    with gr.Row():
        another = gr.Textbox(explored.written_source(1), label="Another source", elem_id="outputs-another")
        apply = gr.Button("Write it with the kept z", variant="primary", min_width=220, scale=0)
    note = message_field()
    applied = gr.HTML("", elem_id="outputs-applied")
    kept_state = gr.State([])

    @told(3)
    def keep_ticked(outputs: list[Output], chosen: list[int], before: list[Output]):
        now = keep(outputs, chosen, before)
        return f"Kept: {len(now)} z.", now, gr.update(choices=choices(now), value=[]), gr.update(value=[])

    keeper.click(keep_ticked, [outputs_state, ticked, kept_state], [note, kept_state, kept, ticked], show_progress="hidden")

    @told(1)
    def write_with(held: list[Output], chosen: list[int], text: str):
        used = [held[number] for number in chosen] if chosen else held
        texts = apply_latents(explored, [each.latents for each in used], text)
        head = ("z that wrote", "writes here")
        return explored.note_on(text), markup.table(head, [(each.text, new) for each, new in zip(used, texts, strict=True)])

    apply.click(write_with, [kept_state, kept, another], [note, applied], show_progress="minimal")
