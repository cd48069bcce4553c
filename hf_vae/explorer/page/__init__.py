"""
The page that `hf-vae explore` serves. Gradio is imported in this folder and nowhere else; it makes no request to another host, and
its statistics are off.
"""

import os
from importlib.util import find_spec

if find_spec("gradio") is None:
    raise ImportError("The explorer needs gradio: install it with `pip install 'hf_vae[explorer]'`.")
# Before it is imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from .build import build_page
from .serving import serve

__all__ = ["build_page", "serve"]
