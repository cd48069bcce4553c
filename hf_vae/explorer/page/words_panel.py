"""A text through z and back, with the nats of each word: what z says, seen."""

from __future__ import annotations

import gradio as gr

from ..explored import Explored
from ..paths import marked
from ..word_nats import reconstruction
from . import markup
from .fields import message_field, source_field
from .messages import told


def build_words(explored: Explored) -> None:
    """The panel, inside the tab that is open."""
    gr.HTML('<p class="explorer-lead">Which words of a text does z say, and which does the decoder know without it?</p>')
    text = gr.Textbox(explored.example(0), label="Text")
    source = source_field(explored)
    with gr.Row():
        measure = gr.Button("Measure", variant="primary", min_width=120, scale=0)
    note = message_field()
    heat = gr.HTML("", elem_id="words-heat")
    back = gr.HTML("", elem_id="words-back")

    @told(2)
    def show(written: str, given: str):
        found = reconstruction(explored, written, given)
        same = found.text.split() == written.split()
        label = "written of its own z: the same words" if same else "written of its own z; marked is what differs"
        return explored.note_on(written, given), markup.heat(found), markup.text(marked(written, found.text), label)

    for trigger in (measure.click, text.submit):
        trigger(show, [text, source], [note, heat, back], show_progress="minimal")
