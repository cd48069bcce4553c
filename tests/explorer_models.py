"""Small models of all four kinds, with texts around them, as a page shows them."""

from helpers import TEXTS, make_published
from hf_vae import LatentAttribute
from hf_vae.explorer import Corpus, Explored

SOURCES = {"vae": "", "cvae": TEXTS[1], "paraphrase": TEXTS[1], "dialog": "a dog ran\nthe mat"}
# Short enough for a decoder of 48 positions beside a dialogue.
TARGETS = ["the cat", "the mat", "a dog", "a park", "the dog"]


def make_explored(kind: str) -> Explored:
    """A tiny model of this kind with five texts, and an attribute that its first unit says."""
    model, processor, _ = make_published(kind)
    attribute = LatentAttribute(model.config.latent_size, ["low", "high"])
    attribute.weight[1, 0] = 1.0
    attribute.clarity.fill_(1.0)
    model.set_attribute("level", attribute)
    explored = Explored(model, processor, kind, max_new_tokens=5)
    # Its own, for a test may change them.
    texts = list(TEXTS if kind == "vae" else TARGETS)
    sources = None if kind == "vae" else [explored.as_source(SOURCES[kind])] * len(texts)
    columns = {"colour": ["red", "blue", "red", None, "blue"], "size": [1.5, 2.0, 3.0, 4.0, None]}
    explored.corpus = Corpus(texts, "Five texts.", sources, columns)
    return explored
