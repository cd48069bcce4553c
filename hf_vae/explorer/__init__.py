"""
A latent space, looked at in a browser: `hf-vae explore`.

What a page shows is computed here by functions that return plain data. `hf_vae.explorer.page` draws it with Gradio, which
`pip install 'hf_vae[explorer]'` brings.
"""

from .corpus import Corpus, embedded_corpus, read_corpus, sampled
from .directions import PrincipalDirections, moved, principal_directions, units_by_kl
from .explored import Explored, load_explored
from .latent_map import LatentMap, Region, Trait, fit_map, in_common
from .outputs import Output, apply_latents, draw_outputs, draw_replies
from .paths import marked, walk
from .report import measure_collapse, model_card
from .word_nats import Reconstruction, WordNats, reconstruction, word_nats

__all__ = [
    "Corpus",
    "Explored",
    "LatentMap",
    "Output",
    "PrincipalDirections",
    "Reconstruction",
    "Region",
    "Trait",
    "WordNats",
    "apply_latents",
    "draw_outputs",
    "draw_replies",
    "embedded_corpus",
    "fit_map",
    "in_common",
    "load_explored",
    "marked",
    "measure_collapse",
    "model_card",
    "moved",
    "principal_directions",
    "read_corpus",
    "reconstruction",
    "sampled",
    "units_by_kl",
    "walk",
    "word_nats",
]
