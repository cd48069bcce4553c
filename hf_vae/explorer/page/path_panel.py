"""From one text to another: a slider along the path, and the words that change."""

from __future__ import annotations

import gradio as gr

from ...latent_space import smoothness
from ..explored import Explored
from ..paths import marked, walk
from . import markup
from .fields import message_field, source_field
from .messages import told

STEPS = 21


def view(texts: list[str], place: int) -> tuple[str, str]:
    """The text at a place of a path, and all of them, with the words that changed."""
    labels = [f"{number / (len(texts) - 1):.2f}" for number in range(len(texts))]
    before = texts[place - 1] if place else texts[place]
    return markup.text(marked(before, texts[place]), f"at {labels[place]}"), markup.steps(texts, labels, place)


def build_path(explored: Explored) -> None:
    """The panel, inside the tab that is open."""
    gr.HTML('<p class="explorer-lead">What does the model write between two texts, and where does it change its mind?</p>')
    with gr.Row():
        start = gr.Textbox(explored.example(0), label="From")
        end = gr.Textbox(explored.example(1), label="To")
    source = source_field(explored)
    with gr.Row():
        method = gr.Radio(["linear", "spherical"], value="linear", label="Path", min_width=160)
        go = gr.Button("Walk", variant="primary", min_width=120, scale=0)
    note = message_field()
    texts_state = gr.State(None)
    slider = gr.Slider(0, STEPS - 1, value=0, step=1, label="Place on the path", interactive=True)
    here = gr.HTML("", elem_id="path-here")
    listed = gr.HTML("", elem_id="path-list")

    @told(4)
    def go_there(first: str, last: str, written: str, how: str):
        path = walk(explored, first, last, written, STEPS, how)
        figures = smoothness(path.texts)
        different = len(set(path.texts))
        mean, most = (100 * figures[name] for name in ("edit_distance", "max_edit_distance"))
        said = (
            f"{different} different {'text' if different == 1 else 'texts'} on {STEPS} places. From one place to the next "
            f"{mean:.0f} % of the words change in the mean, and {most:.0f} % at most. {explored.note_on(first, last, written)}"
        )
        return (said, path.texts, 0, *view(path.texts, 0))

    results = [note, texts_state, slider, here, listed]
    for trigger in (go.click, start.submit, end.submit):
        trigger(go_there, [start, end, source, method], results, show_progress="minimal")
    method.input(go_there, [start, end, source, method], results, show_progress="minimal")

    def look(texts: list[str] | None, place: float):
        return view(texts, int(place)) if texts else (gr.skip(), gr.skip())

    slider.input(look, [texts_state, slider], [here, listed], show_progress="hidden", trigger_mode="always_last")
