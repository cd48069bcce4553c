"""What has one row for each example: rows are repeated, selected and moved together, whatever they are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
