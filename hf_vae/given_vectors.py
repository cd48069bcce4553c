"""Vectors that are given in the place of a text: what q reads of a model whose configuration has an `embedding_size`."""

from typing import Any

import numpy as np
import torch

from .checks import check_finite
from .configuration_vae import VAEConfig

# How far the length of a vector that was normalised may be from 1: further than half precision brings it.
LENGTH_TOLERANCE = 1e-2


def check_given(config: VAEConfig, input_ids: Any, embeddings: Any) -> None:
    """
    Raises a `ValueError` if token ids are given to a model that reads vectors, or vectors to one that reads tokens, or vectors that
    are not what the configuration says.
    """
    if config.embedding_size is not None and input_ids is not None:
        raise ValueError(
            f"`input_ids` are given, and this model has no encoder (`embedding_size` is {config.embedding_size}): give "
            f"`embeddings` of shape (batch, {config.embedding_size})."
        )
    if config.embedding_size is None and embeddings is not None:
        raise ValueError(
            "`embeddings` are given, and this model reads tokens with its encoder: give `input_ids`, or build a `VAEModel` with "
            "`VAEConfig(embedding_size=…)`, which reads vectors."
        )
    if embeddings is not None:
        check_embeddings("embeddings", embeddings, config)


def check_reader(name: str, encoder: Any, embedding_size: int | None) -> None:
    """Raises a `ValueError` unless there is either an `encoder`, which the argument `name` gives, or an `embedding_size`."""
    if encoder is None and embedding_size is None:
        raise ValueError(f"`{name}` is None: give it, or an `embedding_size`, with which the model reads given vectors.")
    if encoder is not None and embedding_size is not None:
        raise ValueError(
            f"`{name}` is given, and `embedding_size` is {embedding_size}: the model reads tokens with an encoder or given "
            "vectors. Leave one of them out."
        )


def check_embeddings(name: str, embeddings: Any, config: VAEConfig) -> None:
    """
    Raises a `ValueError` unless `embeddings` are finite numbers of shape `(batch, embedding_size)`, of length 1 in each row if
    the configuration asks for that.
    """
    size = config.embedding_size
    if not isinstance(embeddings, torch.Tensor) or not embeddings.is_floating_point():
        found = embeddings.dtype if isinstance(embeddings, torch.Tensor) else type(embeddings).__name__
        raise ValueError(f"`{name}` holds {found}; give a tensor of floats of shape (batch, {size}).")
    if embeddings.ndim != 2 or embeddings.shape[1] != size or not embeddings.shape[0]:
        raise ValueError(
            f"`{name}` has shape {tuple(embeddings.shape)}; this model reads (batch, {size}), at least one row: give vectors of "
            "the embedder that it was trained with."
        )
    # Looking at the numbers of a GPU waits for it, at every step of a training.
    trains_elsewhere = embeddings.device.type != "cpu" and torch.is_grad_enabled()
    if trains_elsewhere or torch.compiler.is_compiling():
        return
    check_finite(f"`{name}`", embeddings, "leave such rows out, or have their texts embedded again")
    if not config.normalize_embeddings:
        return
    lengths = embeddings.float().norm(dim=-1)
    wrong = ((lengths - 1).abs() > LENGTH_TOLERANCE).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"`{name}` has length {lengths[wrong[0]].item():.3g} in row {wrong[0]} ({len(wrong)} of {len(lengths)} rows are not of "
            "length 1), and the configuration has `normalize_embeddings=True`: divide each vector by its length, as "
            "`torch.nn.functional.normalize(embeddings, dim=-1)` does."
        )


def read_embeddings(embeddings: torch.Tensor | None, config: VAEConfig, dtype: torch.dtype) -> torch.Tensor:
    """
    What the posterior's head reads of `embeddings`, `(batch, embedding_size)` in `dtype`: the vectors, those of length 1 times the
    root of their size, so that their numbers are about 1 like the hidden states of an encoder.

    Raises:
        ValueError: there are none.
    """
    if embeddings is None:
        raise ValueError(f"`embeddings` is missing: q(z|y) reads a vector of {config.embedding_size} numbers for each text.")
    scale = embeddings.shape[1] ** 0.5 if config.normalize_embeddings else 1.0
    return embeddings.to(dtype) * scale


def as_vectors(name: str, given: Any, size: int) -> tuple[np.ndarray, bool]:
    """
    Vectors as an array `(rows, size)` of float32, and whether a single one was given. A tensor, an array, or a list or a column of
    a dataset with either or with lists of floats in it.

    Raises:
        ValueError: no floats, vectors of another size, no vectors at all, or numbers that are not finite.
    """
    wanted = f"give vectors of {size} floats, as a tensor, an array or a list"
    if given is None or isinstance(given, (str, bytes, dict, set)):
        raise ValueError(f"`{name}` is {str(given)[:50]!r}; {wanted}.")
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        # NumPy has no bfloat16.
        given = given.float() if given.dtype is torch.bfloat16 else given
    elif not isinstance(given, np.ndarray):
        given = [row.detach().cpu().float().numpy() if isinstance(row, torch.Tensor) else row for row in given]
    try:
        vectors = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`{name}` holds rows of different sizes, or something that is no number ({error}): {wanted}.") from None
    if vectors.dtype.kind != "f":
        raise ValueError(f"`{name}` holds {vectors.dtype}; {wanted}.")
    single = vectors.ndim == 1
    vectors = vectors[None] if single else vectors
    if vectors.ndim != 2 or vectors.shape[1] != size or not len(vectors):
        raise ValueError(f"`{name}` has shape {vectors.shape[1:] if single else vectors.shape}; {wanted}.")
    bad = np.flatnonzero(~np.isfinite(vectors).all(-1)).tolist()
    if bad:
        raise ValueError(f"`{name}` is not finite in row(s) {bad[:10]}: leave such rows out, or have their texts embedded again.")
    return vectors.astype(np.float32), single


__all__ = ["as_vectors", "check_embeddings", "check_given", "check_reader", "read_embeddings"]
