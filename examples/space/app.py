"""
A Space that shows a latent space: a map, paths, sliders, outputs, what each word costs, and whether z is used.

`MODEL_ID` names the model, a folder or a name on the Hub; without it, it is the packaged model of sentences. `TEXTS` names the
texts of the map, a file of this folder or a dataset on the Hub. Both are variables in the settings of the Space.

    MODEL_ID=you/your-vae python examples/space/app.py
"""

import os

from hf_vae.explorer import load_explored
from hf_vae.explorer.page import build_page, serve

page = build_page(load_explored(os.environ.get("MODEL_ID"), os.environ.get("TEXTS")))

if __name__ == "__main__":
    serve(page)
