"""Is z used? And the model's card."""

from __future__ import annotations

from html import escape

import gradio as gr

from ..directions import units_by_kl
from ..explored import Explored
from ..report import facts, measure_collapse, model_card
from . import markup
from .fields import message_field
from .messages import told

MOST_UNITS = 12


def build_report(explored: Explored) -> None:
    """The panel, inside the tab that is open."""
    gr.HTML('<p class="explorer-lead">Does the decoder read z at all, and what is this model?</p>')
    with gr.Row():
        with gr.Column(min_width=300):
            with gr.Row():
                measure = gr.Button("Measure whether z is used", variant="primary", min_width=260, scale=0)
            note = message_field()
            verdict = gr.HTML("", elem_id="report-verdict")
            units = [(f"unit {unit}", kl) for unit, kl in units_by_kl(explored)[:MOST_UNITS] if kl == kl]
            if units:
                gr.HTML(f'<div class="explorer-label">KL of the units that say most:</div>{markup.bars(units, "nats")}')
        with gr.Column(min_width=300):
            gr.HTML(markup.table(("the model", ""), facts(explored).items()))
    card = model_card(explored.name)
    with gr.Accordion("Model card", open=False):
        if card is None:
            gr.HTML(markup.note("This model has no card: there is no README.md beside its weights."))
        else:
            gr.Markdown(card, sanitize_html=True, elem_id="report-card")

    @told(1)
    def judge():
        report, count = measure_collapse(explored)
        lines = "".join(f"<li>{escape(each)}</li>" for each in report.findings)
        advice = "".join(f"<li>{escape(each)}</li>" for each in report.advice)
        tried = f'<div class="explorer-label">What to try:</div><ul>{advice}</ul>' if advice else ""
        told_of = "texts that the model wrote itself" if explored.corpus and explored.corpus.latents is not None else "texts"
        return (
            f"Measured on {count} {told_of}.",
            f'<div class="explorer-verdict">{escape(report.summary)}</div><ul>{lines}</ul>{tried}',
        )

    measure.click(judge, None, [note, verdict], show_progress="minimal")
