"""x, encoded once and handed on: to q, to the prior, and to the decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch

from .rows import Rows


@dataclass
class EncodedSource(Rows):
    """
    What `read_source` has made of x. `prior`, `encode` and `condition` take it, so that x is encoded once however many of them ask.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch, source, hidden)`, *optional*): of the encoder that reads x, the last.
        attention_mask (`torch.Tensor` of shape `(batch, source)`, *optional*): 0 on padding.
        vector (`torch.Tensor` of shape `(batch, source_size)`, *optional*): one vector of x, pooled once.
        prompt_input_ids, prompt_attention_mask (`torch.Tensor` of shape `(batch, prompt)`, *optional*): x, or a mere prompt, in the
            decoder's vocabulary.
        meta (`torch.Tensor` of shape `(batch, meta_size)`, *optional*): what is known of a dialogue besides its turns.
    """

    hidden_states: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    vector: torch.Tensor | None = None
    prompt_input_ids: torch.Tensor | None = None
    prompt_attention_mask: torch.Tensor | None = None
    meta: torch.Tensor | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """What there is, by name."""
        return {each.name: tensor for each in fields(self) if (tensor := getattr(self, each.name)) is not None}

    def __len__(self) -> int:
        """Rows; 0 if x is nothing at all."""
        return next((len(tensor) for tensor in self.tensors().values()), 0)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The source of the tensors that `function` makes of these."""
        return type(self)(**{name: function(tensor) for name, tensor in self.tensors().items()})

    @property
    def num_bytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors().values())


def check_source(source: object) -> EncodedSource:
    """`source`, or a `ValueError` unless it is what `read_source` returns."""
    if not isinstance(source, EncodedSource):
        raise ValueError(f"`source` is a {type(source).__name__}; give what `model.read_source` returns.")
    return source


def hide_tokens(tokens: torch.Tensor, mask: torch.Tensor | None, rate: float) -> torch.Tensor:
    """
    An attention mask `(batch, length)` that hides each token of `tokens` with probability `rate`, for a model that is to do
    without them; a row that would have lost all of them keeps all.
    """
    mask = torch.ones_like(tokens) if mask is None else mask
    kept = mask * (torch.rand(mask.shape, device=mask.device) >= rate).to(mask)
    return torch.where(kept.any(-1, keepdim=True), kept, mask)


__all__ = ["EncodedSource"]
