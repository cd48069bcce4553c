"""How several latent vectors enter the decoder: the ways of `latent_injection.py`, for a z that consists of vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import initialization

from .latent_injection import LATENT_INJECTIONS, DecoderShape, LatentInjection, MemoryInjection, PrefixInjection
from .resampler import attend, beside, count_heads


class VectorInjection(LatentInjection):
    """
    Base of the ways in that tell the vectors of z apart. What enters beside z, such as the act of a reply, is read with each.

    Args:
        latent_size (`int`): numbers in all vectors together, and in what enters beside them.
        shape ([`DecoderShape`]): of the language model, with the number of the vectors.

    Attributes:
        vector_size (`int`): width of one vector with what is read with it.
    """

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__(latent_size, shape)
        self.num_latents, self.beside_size = shape.num_latents, shape.beside_size
        self.vector_size = (latent_size - self.beside_size) // self.num_latents + self.beside_size

    def vectors(self, latents: torch.Tensor) -> torch.Tensor:
        """The flat z `(rows, latent_size)` as `(rows, num_latents, vector_size)`."""
        own, further = latents.tensor_split([latents.shape[-1] - self.beside_size], dim=-1)
        return beside(own.unflatten(-1, (self.num_latents, -1)), further)


class PlacedInjection(VectorInjection):
    """Base of those that give each vector a place: one projection serves all vectors, and a learned one is added for each place."""

    def __init__(self, latent_size: int, shape: DecoderShape, size: int):
        super().__init__(latent_size, shape)
        self.projection = nn.Linear(self.vector_size, size, bias=False, dtype=shape.dtype)
        self.places = nn.Embedding(self.num_latents, size, dtype=shape.dtype)

    def placed(self, latents: torch.Tensor) -> torch.Tensor:
        return self.projection(self.vectors(latents)) + self.places.weight


class SoftTokens(PlacedInjection):
    """Each vector stands in front of the tokens as one embedding. For the same decoders as [`PrefixInjection`]."""

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__(latent_size, shape, shape.embedding_size)
        self.prefix_length = self.num_latents

    @classmethod
    def check(cls, shape: DecoderShape) -> None:
        PrefixInjection.check(shape)

    def init_weights(self, module: nn.Module) -> None:
        super().init_weights(module)
        if module is self.places:
            # As the bias of `PrefixInjection`, without which the embeddings of z = 0 would be 0.
            initialization.normal_(self.places.weight, std=self.initializer_range)

    def prefix(self, latents: torch.Tensor) -> torch.Tensor:
        return self.placed(latents)


class MemorySlots(PlacedInjection):
    """
    In front of the first token every layer holds one more position for each vector, as [`MemoryInjection`] has one for z. For the
    same decoders, but for LSTMs, whose initial state is made of all vectors together.
    """

    has_state = True

    def __init__(self, latent_size: int, shape: DecoderShape):
        # What is refused may have no such states.
        self.check(shape)
        super().__init__(latent_size, shape, shape.state_size)
        self.state_length = self.num_latents

    @classmethod
    def check(cls, shape: DecoderShape) -> None:
        MemoryInjection.check(shape)

    def init_weights(self, module: nn.Module) -> None:
        super().init_weights(module)
        if module is self.places:
            initialization.normal_(self.places.weight, std=self.latent_range)

    def state(self, latents: torch.Tensor) -> torch.Tensor:
        return self.placed(latents)


class EmbeddingAttention(VectorInjection):
    r"""
    Every token's embedding attends to the vectors, and what it has seen is added to it: right with any decoder and any cache. The
    query is a projection of the normalised embedding, the key of vector \(i\) is \(K z_i + p_i\) with a learned \(p_i\), and its
    value \(V z_i\). Heads may look at different vectors.
    """

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__(latent_size, shape)
        size = shape.embedding_size
        self.num_heads = count_heads(size, shape.text_config)
        self.norm = nn.LayerNorm(size, dtype=shape.dtype)
        self.to_queries = nn.Linear(size, size, bias=False, dtype=shape.dtype)
        self.to_keys = nn.Linear(self.vector_size, size, bias=False, dtype=shape.dtype)
        self.places = nn.Embedding(self.num_latents, size, dtype=shape.dtype)
        self.projection = nn.Linear(self.vector_size, size, dtype=shape.dtype)

    def init_weights(self, module: nn.Module) -> None:
        super().init_weights(module)
        # Scores of variance 1, half of it by what a vector says and half by its place: each head begins with another mixture.
        if module is self.to_queries:
            initialization.normal_(self.to_queries.weight, std=self.to_queries.in_features**-0.5)
        elif module is self.to_keys:
            initialization.normal_(self.to_keys.weight, std=(2 * self.vector_size) ** -0.5)
        elif module is self.places:
            initialization.normal_(self.places.weight, std=0.5**0.5)

    def embed(self, inputs_embeds: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        vectors = self.vectors(latents)
        keys = self.to_keys(vectors) + self.places.weight
        seen = attend(self.to_queries(self.norm(inputs_embeds)), keys, self.projection(vectors), self.num_heads)
        return inputs_embeds + seen


# The ways in that tell vectors apart, by their names in `LATENT_INJECTIONS`. Any other reads them side by side: `logits` has a gate
# for each number of each vector.
VECTOR_INJECTIONS: dict[str, type[VectorInjection]] = {
    "embedding": EmbeddingAttention,
    "memory": MemorySlots,
    "prefix": SoftTokens,
}


def build_injections(names: Iterable[str], latent_size: int, shape: DecoderShape) -> nn.ModuleDict:
    """The ways in of these names, in the order of `LATENT_INJECTIONS`."""
    classes: dict[str, Any] = dict(LATENT_INJECTIONS)
    if shape.num_latents > 1:
        classes.update(VECTOR_INJECTIONS)
        if shape.recurrent:
            # The state from which an LSTM starts has no places.
            classes["memory"] = MemoryInjection
    chosen = set(names)
    return nn.ModuleDict({name: each(latent_size, shape) for name, each in classes.items() if name in chosen})


__all__ = ["EmbeddingAttention", "MemorySlots", "SoftTokens"]
