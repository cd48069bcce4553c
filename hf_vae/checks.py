"""Checks of arguments. Each error names the argument, what was found, and what is allowed."""

import math
import operator
import sys
from numbers import Integral, Real
from typing import Any, cast

import torch
from transformers import PreTrainedConfig

# NumPy takes no larger one, and torch's generator on the CPU reads no more bits of it.
MOST_SEED = 2**32 - 1


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises a `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}; choose one of {', '.join(map(repr, choices))}.")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raises a `ValueError` unless `value` is a whole number that is at least `least`. A truth value is not a number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number, at least {least}.")
    if value < least:
        raise ValueError(f"`{name}` is {value!r}; it must be at least {least}.")


def check_seed(name: str, seed: Any) -> None:
    """Raises a `ValueError` unless `seed` is one that Python, NumPy and torch all take: a whole number of 32 bits."""
    check_count(name, seed, least=0)
    if seed > MOST_SEED:
        raise ValueError(f"`{name}` is {seed!r}; it must be at most {MOST_SEED}.")


def next_seed(seed: int) -> int:
    """Another seed for what follows a training with `seed`; after the largest one it is 0."""
    return (seed + 1) % (MOST_SEED + 1)


def check_number(
    name: str,
    value: Any,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raises a `ValueError` unless `value` is a finite number within the given bounds. A truth value is not a number."""
    bounds = [
        (word, bound, holds)
        for word, bound, holds in (
            ("at least", least, operator.ge),
            ("above", above, operator.gt),
            ("at most", most, operator.le),
            ("below", below, operator.lt),
        )
        if bound is not None
    ]
    # Compared and not asked with `math.isfinite`, which fails on a whole number that no float reaches.
    number = isinstance(value, Real) and not isinstance(value, bool) and abs(cast(Any, value)) <= sys.float_info.max
    if not number or not all(holds(value, bound) for _, bound, holds in bounds):
        wanted = " and ".join(f"{word} {bound:g}" for word, bound, _ in bounds)
        raise ValueError(f"`{name}` is {value!r}; it must be a finite number{', ' if wanted else ''}{wanted}.")


def check_rows(rows: int, **given: torch.Tensor | None) -> None:
    """Raises a `ValueError` unless each given tensor has `rows` rows: a single row is never broadcast."""
    for name, tensor in given.items():
        if tensor is not None and tensor.shape[:1] != (rows,):
            raise ValueError(f"`{name}` has shape {tuple(tensor.shape)}, and the batch has {rows} row(s): give one row for each.")


def rows_of(**given: torch.Tensor | None) -> int | None:
    """
    The number of rows that all given tensors have; `None` if none is given.

    Raises:
        ValueError: an argument is not a tensor or has no rows, or the tensors differ in their number of rows.
    """
    tensors = {name: tensor for name, tensor in given.items() if tensor is not None}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.ndim or not len(tensor):
            found = f"of shape {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else f"a {type(tensor).__name__}"
            raise ValueError(f"`{name}` is {found}; give a tensor with at least one row.")
    rows = next((len(tensor) for tensor in tensors.values()), None)
    if rows is not None:
        check_rows(rows, **tensors)
    return rows


def float_latents(latents: object, name: str = "latents") -> torch.Tensor:
    """
    `latents` in float32, or in their own dtype if it is more precise, so that other vectors beside them keep their precision.

    Raises:
        ValueError: `latents` is not a dense tensor of real numbers.
    """
    if not isinstance(latents, torch.Tensor):
        raise ValueError(f"`{name}` is a {type(latents).__name__}; give a tensor of shape (rows, latent_size).")
    if latents.dtype is torch.bool or latents.is_complex() or latents.is_quantized:
        raise ValueError(f"`{name}` holds {latents.dtype}; z is made of real numbers: give floats.")
    if latents.layout is not torch.strided:
        raise ValueError(f"`{name}` is {latents.layout}; give a dense tensor.")
    return latents.to(torch.promote_types(latents.dtype, torch.float32))


def shaped_latents(latents: object, rows: int | None, latent_size: int) -> torch.Tensor:
    """
    [`float_latents`] of shape `(rows, latent_size)`, with any number of rows if `rows` is `None`.

    Raises:
        ValueError: another shape, or no dense tensor of real numbers.
    """
    latents = float_latents(latents)
    if latents.ndim != 2 or latents.shape[1] != latent_size or (rows is not None and len(latents) != rows):
        raise ValueError(
            f"`latents` has shape {tuple(latents.shape)}; expected ({'rows' if rows is None else rows}, {latent_size})."
        )
    return latents


def check_finite(name: str, rows: torch.Tensor, remedy: str) -> None:
    """Raises a `ValueError` that names the rows of a tensor `(rows, …)` that are not finite, and the `remedy`."""
    if torch.compiler.is_compiling():
        return
    if rows.is_meta:
        raise ValueError(f"{name} lies on the `meta` device and holds no numbers: {remedy}.")
    bad = (~rows.isfinite()).flatten(1).any(-1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"{name} is not finite in row(s) {bad}: {remedy}.")


def check_flow(latent_size: Any, num_layers: Any, hidden_size: Any, labels: Any = None) -> None:
    """Raises a `ValueError` unless a [`FlowPrior`] can be made so."""
    check_count("num_layers", num_layers)
    check_count("hidden_size", hidden_size)
    check_count("latent_size", latent_size)
    if latent_size < 2:
        raise ValueError(
            "`latent_size` is 1, and a flow changes half of z by what the other half says: choose 2 or more, or fit a mixture "
            "(`hf_vae.latent_space.fit_prior`)."
        )
    if labels is None:
        return
    if not isinstance(labels, (list, tuple)) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"`labels` is {str(labels)[:50]!r}; give a list of at least one text.")
    if len(set(labels)) < len(labels):
        raise ValueError(f"`labels` is {str(labels)[:50]}; name each label once.")


def check_token(name: str, token: Any, decoder: PreTrainedConfig) -> None:
    """Raises a `ValueError` unless `token`, if there is one, is of the vocabulary of `decoder`."""
    if token is None:
        return
    check_count(name, token, least=0)
    vocabulary = getattr(decoder.get_text_config(), "vocab_size", math.inf)
    if token >= vocabulary:
        raise ValueError(f"`{name}` is {token}, and the decoder's vocabulary has {vocabulary} tokens, from 0 on.")
