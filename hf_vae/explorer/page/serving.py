"""Serving a page on this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import gradio as gr

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "monospace"]
STYLE = Path(__file__).parent.parent / "static" / "page.css"


def serve(page: gr.Blocks, port: int | None = None, open_browser: bool = False, wait: bool = True) -> str:
    """
    Shows a page to the browsers of this machine. With `GRADIO_SERVER_NAME=0.0.0.0` in the environment, as on Hugging Face Spaces,
    it is shown to others too.

    Args:
        page (`gradio.Blocks`): of [`build_page`].
        port (`int`, *optional*): where; by default the first free one from 7860 on.
        open_browser (`bool`, defaults to `False`): whether to open it.
        wait (`bool`, defaults to `True`): whether to stay until Ctrl-C.

    Returns:
        `str`: the page's address.

    Raises:
        ValueError: the port is in use, or there is no such port.
    """
    if port is not None:
        check_port(port)
    _, address, _ = page.launch(
        server_port=port,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        theme=gr.themes.Base(font=_FONTS, font_mono=_MONO, primary_hue="blue", radius_size="md"),
        # Not as `css`, whose selectors Gradio rewrites.
        head=f"<style>{STYLE.read_text(encoding='utf-8')}</style>",
    )
    if wait:
        print(f"The page is at {address} until Ctrl-C.", flush=True)
        page.block_thread()
    return address


def check_port(port: int) -> None:
    """Raises a `ValueError` if nothing can be served at `port`."""
    if not 1 <= port <= 65535:
        raise ValueError(f"`--port` is {port}; it must be from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"`--port` is {port}, which cannot be had ({error.strerror}): choose another, or leave it out for a free one."
            ) from error
