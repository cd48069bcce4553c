"""The map: codes of the file, or draws from the prior; a place is decoded, a region is described."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from .. import colouring, latent_map
from ..corpus import Corpus
from ..explored import Explored
from ..paths import marked
from . import markup
from .fields import source_field
from .messages import told

STATIC = Path(__file__).parent.parent / "static"
OF_FILE, OF_PRIOR = "texts", "draws from the prior"
# As many are drawn in a second or two.
DRAWS = 300
# The browser's numbers are rounded.
SAME_PLACE = 1e-3


@dataclass
class Shown:
    """What one person's map shows."""

    corpus: Corpus
    map: latent_map.LatentMap
    is_file: bool


def first_map(explored: Explored, projection: str = "pca") -> tuple[Shown | None, str]:
    """The map that a page begins with, and what is to be said of it; `None` if there are no codes yet."""
    if explored.corpus is None:
        return None, "There is no file of texts. Write a source and draw from the prior."
    try:
        shown = Shown(explored.corpus, latent_map.fit_map(explored.codes, projection), explored.corpus.latents is None)
    except ValueError as error:
        return None, str(error)
    return shown, about(explored, shown)


def about(explored: Explored, shown: Shown) -> str:
    """What the points are, and what of them is left out."""
    if shown.is_file and explored.cut:
        return f"{shown.corpus.origin} {explored.cut:,} of them are longer than the encoder holds and are read in part."
    return shown.corpus.origin


def payload(explored: Explored, shown: Shown | None, colour: str | None) -> dict[str, Any]:
    """What the browser draws."""
    if shown is None:
        return {"points": [], "texts": [], "colouring": None, "axes": ["", ""]}
    names = colouring.colour_names(explored, shown.corpus)
    coloured = colouring.colour(explored, shown.corpus, shown.map.codes, colour if colour in names else names[0])
    return {
        "points": [[round(x, 4), round(y, 4)] for x, y in shown.map.points.tolist()],
        "texts": shown.corpus.texts,
        "colouring": asdict(coloured),
        "axes": list(shown.map.axes),
    }


def build_map(explored: Explored) -> None:
    """The panel, inside the tab that is open."""
    first, message = first_map(explored)
    names = [] if first is None else colouring.colour_names(explored, first.corpus)
    kinds = [OF_FILE, OF_PRIOR] if first is not None and first.is_file else [OF_PRIOR]
    projections = ["pca", *(["umap"] if find_spec("umap") else [])]
    gr.HTML('<p class="explorer-lead">Which texts does z put beside each other, and what does it write in between?</p>')
    shown_state = gr.State(None)
    with gr.Row():
        kind = gr.Radio(kinds, value=kinds[0], label="Points", min_width=160)
        colour = gr.Dropdown(names, value=names[0] if names else None, label="Colour", min_width=160)
        projection = gr.Radio(projections, value="pca", label="Projection", visible=len(projections) > 1, min_width=120)
    with gr.Row(visible=explored.is_conditional):
        source = source_field(explored)
    with gr.Row():
        shows_draws = first is None or not first.is_file
        redraw = gr.Button("Draw from the prior" if first is None else "Draw others", visible=shows_draws, min_width=180, scale=0)
    note = gr.HTML(markup.note(message))
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            board = gr.HTML(
                payload(explored, first, names[0] if names else None),
                html_template=(STATIC / "map.html").read_text(encoding="utf-8"),
                js_on_load=(STATIC / "map.js").read_text(encoding="utf-8"),
                elem_id="latent-map",
            )
        with gr.Column(scale=3, min_width=280):
            place = gr.HTML('<div class="explorer-label">Click a place of the map.</div>', elem_id="map-place")
            common = gr.HTML("", elem_id="map-region")
    seed_state = gr.State(0)

    def of(shown: Shown | None) -> Shown:
        current = shown or first
        if current is None:
            raise ValueError("The map is empty: write a source and draw from the prior.")
        return current

    @told(7)
    def other_points(wanted: str, how: str, written: str, colour_name: str, seed: int):
        if wanted == OF_FILE and first is not None and first.is_file:
            shown = first if how == "pca" else Shown(first.corpus, latent_map.fit_map(first.map.codes, how), True)
        else:
            corpus = explored.draw(DRAWS, seed, written)
            assert corpus.latents is not None
            shown = Shown(corpus, latent_map.fit_map(corpus.latents, how), False)
        known = colouring.colour_names(explored, shown.corpus)
        kept = colour_name if colour_name in known else known[0]
        drawn = gr.update(visible=not shown.is_file)
        points, colours = payload(explored, shown, kept), gr.update(choices=known, value=kept)
        return about(explored, shown), shown, points, colours, drawn, "", "", seed

    def others(wanted: str, how: str, written: str, colour_name: str, seed: int, shown: Shown | None):
        # The first click of a map without points draws what its seed says.
        return other_points(OF_PRIOR, how, written, colour_name, seed + (shown is not None or first is not None))

    results = [note, shown_state, board, colour, redraw, place, common, seed_state]
    given = [kind, projection, source, colour, seed_state]
    for each in (kind, projection):
        each.input(other_points, given, results, show_progress="minimal")
    redraw.click(others, [*given, shown_state], results, show_progress="minimal")

    @told(1)
    def recolour(shown: Shown | None, name: str):
        return about(explored, of(shown)), payload(explored, of(shown), name)

    colour.input(recolour, [shown_state, colour], [note, board], show_progress="hidden")

    @told(2)
    def write(shown: Shown | None, written: str, event: gr.EventData):
        current, (x, y) = of(shown), (float(event._data["x"]), float(event._data["y"]))
        row = current.map.nearest(x, y)
        nearest = current.corpus.texts[row]
        far = (current.map.points[row] - current.map.points.new_tensor([x, y])).norm().item()
        # A point brings its own source along; a place has the one that is written.
        own = far < SAME_PLACE and current.is_file and current.corpus.sources is not None
        source_of_it = current.corpus.sources[row] if own and current.corpus.sources else explored.as_source(written)
        text = explored.decode(current.map.latents_at(x, y).unsqueeze(0), source_of_it)[0]
        # Of another source every word would be another.
        words = text if explored.is_conditional and not own else marked(nearest, text)
        parts = [markup.text(words, "z of this place writes"), markup.text(nearest, "the nearest text")]
        if explored.is_conditional and current.is_file and not own:
            parts.append(markup.text(explored.written_source(row), "and its source"))
        return about(explored, current), "".join(parts), explored.written_source(row) if own else gr.skip()

    board.place(write, [shown_state, source], [note, place, source], show_progress="hidden")

    @told(1)
    def describe(shown: Shown | None, event: gr.EventData):
        current = of(shown)
        found = latent_map.in_common(current.corpus, [int(row) for row in event._data["rows"]])
        return about(explored, current), markup.region(found)

    board.region(describe, [shown_state], [note, common], show_progress="hidden")
