"""The page: a heading, and a tab for each panel."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from ..explored import Explored
from ..report import facts
from .chat_panel import build_chat
from .map_panel import build_map
from .outputs_panel import build_outputs
from .path_panel import build_path
from .report_panel import build_report
from .sliders_panel import build_sliders
from .words_panel import build_words


def build_page(explored: Explored) -> gr.Blocks:
    """
    A page that explores a model. [`serve`] shows it; `Blocks.launch` does too, without the page's own looks.

    Args:
        explored ([`~hf_vae.explorer.Explored`]): the model with its texts, of [`~hf_vae.explorer.load_explored`].

    Returns:
        `gradio.Blocks`. What people do on it stays apart, and the model is one for all of them.
    """
    name = Path(explored.name).name or explored.name
    about = facts(explored)
    shown = f"{about['class']}, {about['units of z']} units of z, {about['parameters']} parameters"
    with gr.Blocks(title=f"{name}: latent space", analytics_enabled=False) as page:
        gr.HTML(f'<div class="explorer-head"><h1>The latent space of {escape(name)}</h1><p>{escape(shown)}</p></div>')
        with gr.Tabs():
            with gr.Tab("Map"):
                build_map(explored)
            with gr.Tab("Path"):
                build_path(explored)
            with gr.Tab("Sliders"):
                build_sliders(explored)
            with gr.Tab("Chat" if explored.is_dialog else "Outputs"):
                (build_chat if explored.is_dialog else build_outputs)(explored)
            with gr.Tab("Words"):
                build_words(explored)
            with gr.Tab("Report"):
                build_report(explored)
    # Messages of one person do not wait for another's; who uses the model waits for its lock.
    page.queue(default_concurrency_limit=8, api_open=False)
    return page
