"""What a static cache and `torch.compile` add to `generate`; no default case, for compiling takes minutes and a C++ compiler."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..comparison import Row, compare
from ..models import make_vae
from ..options import Options
from ..sizes import SIZES
from . import generation


def run(options: Options) -> Iterator[Row]:
    name = options.sizes[0]
    plain, compiled = (make_vae(SIZES[name], options).eval() for _ in range(2))
    compiled.decoder.forward = torch.compile(compiled.decoder.forward)  # type: ignore[method-assign]
    how = generation.settings(sampling=False)
    for batch in (1,) if options.quick else (1, 50):
        yield compare(
            f"generate, greedy, static cache and torch.compile, batch {batch}, {name}",
            lambda batch=batch: compiled.generate(num_samples=batch, cache_implementation="static", **how),
            lambda batch=batch: plain.generate(num_samples=batch, **how),
            options,
            against="itself as it is",
        )
