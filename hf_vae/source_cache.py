"""What a decoder keeps of what it has read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self, cast

import torch
from transformers import EncoderDecoderCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from .compat import EMPTY_LAYERS
from .modeling_lstm import LSTMStateLayer
from .rows import Rows

# What a cache keeps for a layer that forgets nothing.
GROWING = {DynamicLayer, LSTMStateLayer}
# Of these a source that was read once serves any number of z: reading on makes new tensors and leaves those of the source alone.
# A layer that writes into its state (a convolution, a recurrence beside attention) could go on from it for one z only.
SHAREABLE = GROWING | {DynamicSlidingWindowLayer} | EMPTY_LAYERS


def self_attention(cache: Cache) -> Cache:
    """The part of `cache` for what the LM itself has read; one with cross-attention keeps what it reads of a source beside it."""
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


def layer_kinds(cache: Cache) -> list[type]:
    """
    What `cache` keeps for each layer of what the LM itself has read. An LSTM's state counts as this copy's: if several models
    bring their code along, each copy has such a class, and transformers takes the last one that was loaded.
    """
    kinds = [type(layer) for layer in self_attention(cache).layers]
    return [LSTMStateLayer if getattr(kind, "_layer_type", None) == LSTMStateLayer._layer_type else kind for kind in kinds]


def num_read(cache: Cache, attention_mask: torch.Tensor | None, length: int) -> int:
    """
    Tokens that `cache` has read, of a text of which `length` more are to be read. One of states alone does not count them: of what
    `attention_mask` covers, it has read all but those.

    Raises:
        ValueError: a cache of states has read something, and no mask says how much.
    """
    layers = self_attention(cache).layers
    if not layers or any(isinstance(layer, CacheLayerMixin) for layer in layers):
        return cache.get_seq_length()
    if attention_mask is not None:
        return attention_mask.shape[1] - length
    if cache.has_previous_state():
        raise ValueError("The decoder's cache does not count what it has read: give the `attention_mask` of the whole text.")
    return 0


def map_layers(cache: Cache, function: Callable[[torch.Tensor], torch.Tensor]) -> Cache:
    """A cache of its own, whose layers hold what `function` makes of the keys and of the values of this one's."""
    if isinstance(cache, EncoderDecoderCache):
        return EncoderDecoderCache(
            *(map_layers(part, function) for part in (cache.self_attention_cache, cache.cross_attention_cache))
        )
    mapped = copy.copy(cache)
    mapped.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in cast(list[CacheLayerMixin], mapped.layers):
        if layer.is_initialized and layer.keys is not None:
            layer.keys, layer.values = (function(cast(torch.Tensor, states)) for states in (layer.keys, layer.values))
    return mapped


class SourceCache(Rows):
    """
    What a decoder keeps of a source that it has read without z: the one beginning of as many continuations as there are z.

    Args:
        cache (`Cache`): the keys and values, or an LSTM's states, of the source; also what cross-attention keeps of it.
    """

    def __init__(self, cache: Cache):
        self.cache = cache

    def tensors(self) -> list[torch.Tensor]:
        """All keys and values, or states, with a row for each source."""
        found: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            found.append(tensor)
            return tensor

        map_layers(self.cache, keep)
        return found

    def __len__(self) -> int:
        """Rows."""
        return len(self.tensors()[0])

    @property
    def nbytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        return type(self)(map_layers(self.cache, function))

    def fork(self) -> Cache:
        """A cache to go on from, which shares the source's tensors with this one and leaves them as they are."""
        return map_layers(self.cache, lambda tensor: tensor)


__all__ = ["SourceCache"]
