"""What has one row for each example: rows are repeated, selected and moved together, whatever they are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch


class Rows(ABC):
    """Tensors of shape `(rows, …)` that belong together. A subclass says in `map` how it is made of such tensors."""

    @abstractmethod
    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The same, made of what `function` makes of each tensor."""

    def repeat(self, count: int) -> Self:
        """Each row `count` times in succession."""
        return self.map(lambda tensor: tensor.repeat_interleave(count, 0))

    def select(self, rows: Sequence[int] | torch.Tensor) -> Self:
        """Some of the rows, in the order given."""
        return self.map(lambda tensor: tensor[rows])

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `torch.Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))


def repeat_rows(named: Mapping[str, torch.Tensor | Rows], count: int) -> dict[str, Any]:
    """Each row of everything in `named` `count` times in succession."""
    return {
        name: each.repeat(count) if isinstance(each, Rows) else each.repeat_interleave(count, 0) for name, each in named.items()
    }


def match_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """
    Each row of `tensor` as often in succession as makes `rows` of them.

    Raises:
        ValueError: `rows` is no multiple of its own number.
    """
    # Not `len`, which a traced graph would keep as a constant.
    if tensor.shape[0] == rows:
        return tensor
    if rows % tensor.shape[0]:
        raise ValueError(f"There are {rows} z for {tensor.shape[0]} rows: give as many, or as many for each.")
    return tensor.repeat_interleave(rows // tensor.shape[0], 0)


def select_rows(named: Mapping[str, torch.Tensor | Rows], rows: Sequence[int] | torch.Tensor) -> dict[str, Any]:
    """Some rows of everything in `named`, in the order given; or those of a mask."""
    return {name: each.select(rows) if isinstance(each, Rows) else each[rows] for name, each in named.items()}
