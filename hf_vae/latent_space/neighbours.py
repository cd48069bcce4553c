"""Which texts the encoder puts next to each other."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import torch

from ..checks import check_choice
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor, as_list
from .codes import TextsOrLatents, as_latents, shown_texts

METRICS = ("euclidean", "cosine")


@dataclass(repr=False)
class Neighbours:
    """
    Args:
        texts (`list[list[str]]`): for each query its neighbours, nearest first.
        indices (`torch.Tensor` of shape `(queries, k)`): their places in the corpus.
        distances (`torch.Tensor` of shape `(queries, k)`): Euclidean, or 1 - cosine.
        latents (`torch.Tensor` of shape `(queries, latent_size)`): of the queries.
        corpus_latents (`torch.Tensor` of shape `(corpus, latent_size)`): for further queries.
    """

    texts: list[list[str]]
    indices: torch.Tensor
    distances: torch.Tensor
    latents: torch.Tensor
    corpus_latents: torch.Tensor

    def __repr__(self) -> str:
        return shown_texts(self, [" | ".join(several) for several in self.texts])


def nearest_neighbours(
    model: VAEModel,
    processor: VAEProcessor,
    queries: TextsOrLatents,
    corpus: list[str],
    k: int = 5,
    metric: str = "euclidean",
    corpus_latents: torch.Tensor | None = None,
    batch_size: int = 64,
) -> Neighbours:
    """
    The `k` texts of `corpus` whose posterior means are nearest to each query's. Exact, by scikit-learn. A query that stands in the
    corpus is its own nearest neighbour.

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        queries (`str`, `list[str]` or `torch.Tensor` of shape `(queries, latent_size)`).
        corpus (`list[str]`): the texts to search.
        k (`int`, defaults to 5): neighbours of each query.
        metric (`str`, defaults to `"euclidean"`): or `"cosine"`.
        corpus_latents (`torch.Tensor` of shape `(corpus, latent_size)`, *optional*): if the corpus has been encoded before. A
            conditional model takes its queries as latents, too (both from [`encode_texts`]).
        batch_size (`int`, defaults to 64): texts at once.

    Returns:
        [`Neighbours`].

    Raises:
        ValueError: `k` out of range, an unknown metric, or latents that do not fit the corpus.
    """
    check_choice("metric", metric, METRICS)
    corpus = as_list("corpus", corpus)
    if not isinstance(k, Integral) or not 1 <= k <= len(corpus):
        raise ValueError(f"`k` is {k!r}; it must be from 1 to the {len(corpus)} texts of `corpus`.")
    latents = as_latents(model, processor, "queries", queries, batch_size)
    if corpus_latents is None:
        corpus_latents = as_latents(model, processor, "corpus", corpus, batch_size)
    else:
        corpus_latents = as_latents(model, processor, "corpus_latents", corpus_latents)
        if len(corpus_latents) != len(corpus):
            raise ValueError(f"{len(corpus_latents)} `corpus_latents` for {len(corpus)} texts in `corpus`.")
    # Here, because importing scikit-learn takes long.
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, metric=metric).fit(corpus_latents.double().numpy())
    distances, indices = search.kneighbors(latents.double().numpy())
    return Neighbours(
        texts=[[corpus[index] for index in row] for row in indices],
        indices=torch.from_numpy(indices),
        distances=torch.from_numpy(distances).float(),
        latents=latents,
        corpus_latents=corpus_latents,
    )


__all__ = ["Neighbours", "nearest_neighbours"]
