"""How z enters the decoder: each way in is a class."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from typing import ClassVar, cast

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, initialization
from transformers.cache_utils import Cache, DynamicLayer

from .compat import head_shapes, is_activation_checkpointing
from .configuration_vae import LATENT_INJECTION_TYPES
from .modeling_lstm import LSTMStateLayer
from .source_cache import layer_kinds, self_attention

# Of the scale at which a fresh embedding is drawn, the share by which z moves one in a pretrained decoder at first. The attention
# of such a decoder rests on its first token: at the whole scale, z in that token's embedding with z's own position in front cost
# 0.3 nats a token, at this share 0.03. An optimizer of Adam's kind covers the distance in its first few steps.
PRETRAINED_SHARE = 1 / 32


class DecoderShape:
    """
    What a way in has to know of the language model that z enters.

    Args:
        lm (`PreTrainedModel`): a causal LM.
        prefix_length (`int`): `config.prefix_length`.
        is_pretrained (`bool`, defaults to `False`): whether the LM can write already.
        num_latents (`int`, defaults to 1): vectors that z consists of.
        beside_size (`int`, defaults to 0): numbers that enter behind z and are no part of it.

    Attributes:
        embedding_size (`int`): width of an embedding.
        layer_kinds (`list[type]`): what a cache keeps for each layer.
        recurrent (`bool`): whether the LM has states in the place of keys and values.
    """

    def __init__(
        self, lm: PreTrainedModel, prefix_length: int, is_pretrained: bool = False, num_latents: int = 1, beside_size: int = 0
    ):
        self.num_latents, self.beside_size = num_latents, beside_size
        self.name, self.dtype, self.prefix_length = type(lm).__name__, lm.dtype, prefix_length
        self.text_config: PreTrainedConfig = lm.config.get_text_config(decoder=True)
        self.embedding_size: int = cast(nn.Embedding, lm.get_input_embeddings()).weight.shape[-1]
        self.layer_kinds = layer_kinds(DynamicCache(config=lm.config))
        self.recurrent = set(self.layer_kinds) == {LSTMStateLayer}
        # The scale at which a fresh embedding is drawn.
        self.initializer_range = getattr(lm.config.get_text_config(), "initializer_range", None) or 0.02
        # How far a z from N(0, I) moves an embedding at first.
        self.latent_range = self.initializer_range * (PRETRAINED_SHARE if is_pretrained else 1.0)

        # Width of what the LM's head reads; 0 if it has none.
        lm_head = lm.get_output_embeddings()
        self.head_size: int = cast(nn.Linear, lm_head).weight.shape[-1] if hasattr(lm_head, "weight") else 0

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """Shape of one row of each layer's c, if the LM is an LSTM, or of the key of one position."""
        num_layers = len(self.layer_kinds)
        if self.recurrent:
            return [(self.text_config.hidden_size,)] * num_layers
        heads, sizes = ([shape] * num_layers if isinstance(shape, int) else shape for shape in head_shapes(self.text_config))
        if getattr(self.text_config, "multi_query", False) and not getattr(self.text_config, "new_decoder_architecture", False):
            # Falcon's name for one head of keys and values.
            heads = [1] * num_layers
        return [(count, 1, size) for count, size in zip(heads, sizes)]

    @property
    def state_size(self) -> int:
        """Numbers in the states of all layers together."""
        return sum(map(math.prod, self.state_shapes))

    def check_layers(self, way: str) -> None:
        """Raises a `ValueError` if z cannot be put in front of everything that the LM reads."""
        kinds = set(self.layer_kinds)
        if kinds not in ({DynamicLayer}, {LSTMStateLayer}):
            raise ValueError(
                f"`latent_injection` names {way!r}, which needs a decoder whose every layer attends to everything before it; "
                f"{self.name} has layers that forget or compress ({', '.join(sorted(kind.__name__ for kind in kinds))}"
                "). Choose 'embedding', which works with any decoder."
            )

    def check_checkpointing(self, lm: PreTrainedModel) -> None:
        """Raises a `ValueError` under gradient checkpointing, which would drop the cache by which z enters."""
        if lm.training and not self.recurrent and is_activation_checkpointing(lm):
            raise ValueError(
                "`latent_injection` names 'memory', or 'prefix' behind a source, and gradient checkpointing drops the cache that "
                "holds it: turn `gradient_checkpointing` off, or choose 'embedding'."
            )

    def write_states(self, states: Iterable[torch.Tensor], cache: Cache) -> Cache:
        """
        Puts the sum of `states`, each `(rows, state_size)`, behind what `cache` has read: added to the c of an LSTM, to whose h its
        tanh is added (Bowman et al. 2015, whose LSTM has read nothing yet), else as one position, whose key is its value too (Li
        et al. 2020). States of shape `(rows, positions, state_size)` are several positions, and one of a single position is added
        to each of them.
        """
        layers = self_attention(cache)
        total = reduce(torch.add, [each if each.ndim == 3 else each.unsqueeze(1) for each in states])
        flat = total.split(list(map(math.prod, self.state_shapes)), dim=-1)
        for layer, (part, shape) in enumerate(zip(flat, self.state_shapes)):
            # Positions stand in the last place but one of a key, and an LSTM's c has no more than one.
            several = part.unflatten(-1, shape).unbind(1)
            state = several[0] if self.recurrent else torch.cat(several, dim=-2)
            if not self.recurrent:
                layers.update(state, state, layer)
            elif (read := cast(LSTMStateLayer, layers.layers[layer])).is_initialized:
                layers.update(read.keys + state.tanh(), read.values + state, layer, 0)
            else:
                layers.update(state.tanh(), state, layer, 0)
        return cache


class LatentInjection(nn.Module):
    """
    A way in for z. A subclass overrides one or several of `embed`, `state`, `prefix` and `head_input`, each of which does nothing
    here, and refuses in `check` the decoders that it cannot serve.

    Args:
        latent_size (`int`): numbers in z, of all its vectors together.
        shape ([`DecoderShape`]): of the language model that z enters.
    """

    # Whether `state` gives something: z then fills positions in front of the first token, or an LSTM's initial state.
    has_state: ClassVar[bool] = False

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__()
        self.check(shape)
        # Embeddings that stand for z in front of the first token, and positions that its state fills there.
        self.prefix_length, self.state_length = 0, int(self.has_state)
        self.initializer_range, self.latent_range = shape.initializer_range, shape.latent_range

    @property
    def changes_layers(self) -> bool:
        """Whether the LM's layers read z."""
        return self._overrides("embed", "state", "prefix")

    @property
    def changes_head_input(self) -> bool:
        """Whether the LM's head reads z."""
        return self._overrides("head_input")

    def _overrides(self, *names: str) -> bool:
        return any(getattr(type(self), name) is not getattr(LatentInjection, name) for name in names)

    @classmethod
    def check(cls, shape: DecoderShape) -> None:
        """Raises a `ValueError` if z cannot enter such a decoder this way."""

    def init_weights(self, module: nn.Module) -> None:
        """
        Draws the weights of one of its modules. A z from N(0, I) then moves an embedding by the scale at which a fresh embedding is
        drawn, or by a small share of it in a pretrained decoder, which is hardly disturbed. q has a gradient from the first step.
        """
        if isinstance(module, nn.Linear):
            initialization.normal_(module.weight, std=self.latent_range / module.in_features**0.5)

    def embed(self, inputs_embeds: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The tokens' embeddings `(rows, length, size)`, with z `(rows, latent_size)` in them."""
        return inputs_embeds

    def state(self, latents: torch.Tensor) -> torch.Tensor | None:
        """
        What every layer holds before it has read anything, `(rows, state_size)`, or `(rows, state_length, state_size)` for several
        positions; the states of several ways are added up.
        """
        return None

    def prefix(self, latents: torch.Tensor) -> torch.Tensor | None:
        """`prefix_length` embeddings in front of the first token, `(rows, prefix_length, size)`."""
        return None

    def head_input(self, hidden_states: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """What the LM's head reads at each position, `(rows, length, head_size)`, with z in it."""
        return hidden_states


class EmbeddingInjection(LatentInjection):
    """A projection of z is added to every token's embedding: right with any decoder and any cache."""

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__(latent_size, shape)
        self.projection = nn.Linear(latent_size, shape.embedding_size, dtype=shape.dtype)

    def embed(self, inputs_embeds: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return inputs_embeds + self.projection(latents).unsqueeze(1)


class MemoryInjection(LatentInjection):
    """
    In front of the first token every layer holds one more position, whose key and value are both one projection of z (Li et al.
    2020, section 3.1); an LSTM starts from it (Bowman et al. 2015). For decoders whose every layer attends to everything.
    """

    has_state = True

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__(latent_size, shape)
        self.projection = nn.Linear(latent_size, shape.state_size, bias=False, dtype=shape.dtype)

    @classmethod
    def check(cls, shape: DecoderShape) -> None:
        shape.check_layers("memory")
        if getattr(shape.text_config, "kv_lora_rank", None) is not None:
            raise ValueError(
                f"`latent_injection` names 'memory', but {shape.name} caches keys and values in a compressed form "
                "that a latent cannot take. Choose 'embedding' or 'prefix'."
            )

    def state(self, latents: torch.Tensor) -> torch.Tensor:
        return self.projection(latents)


class PrefixInjection(LatentInjection):
    """Projections of z stand in front of the tokens as `prefix_length` embeddings. For the same decoders as the memory."""

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__(latent_size, shape)
        self.prefix_length, self.embedding_size = shape.prefix_length, shape.embedding_size
        self.projection = nn.Linear(latent_size, shape.prefix_length * shape.embedding_size, dtype=shape.dtype)

    @classmethod
    def check(cls, shape: DecoderShape) -> None:
        shape.check_layers("prefix")

    def init_weights(self, module: nn.Module) -> None:
        super().init_weights(module)
        if module is self.projection:
            # With z = 0 the embeddings would be 0, where the gradient of a deep stack of RMS norms is infinite.
            initialization.normal_(self.projection.bias, std=self.initializer_range)

    def prefix(self, latents: torch.Tensor) -> torch.Tensor:
        return self.projection(latents).unflatten(-1, (-1, self.embedding_size))


class LogitsInjection(LatentInjection):
    r"""
    z is added to what the LM's head reads, and so what the head makes of it to the logits (Fang et al. 2021, whose name for it is
    softmax). z makes words likelier or less likely by a path that no layer of the decoder lies on, so a pretrained decoder, which
    has no need of z, learns to use it in its first steps, and what its layers know is not disturbed. Right with any decoder and any
    cache.

    Fang et al. add the same at every position, and so a word that z asks for is asked for again after it was written. Here each
    number of z has a gate that the hidden state \(h_t\) opens and shuts: the head reads
    \(h_t + W((1 + \tanh(G h_t + b)) \odot z)\). At first the gates stand at 1.
    """

    def __init__(self, latent_size: int, shape: DecoderShape):
        super().__init__(latent_size, shape)
        self.projection = nn.Linear(latent_size, shape.head_size, bias=False, dtype=shape.dtype)
        self.gate = nn.Linear(shape.head_size, latent_size, dtype=shape.dtype)

    @classmethod
    def check(cls, shape: DecoderShape) -> None:
        if not shape.head_size:
            raise ValueError(
                f"`latent_injection` names 'logits', and {shape.name} has no layer of its own that makes logits "
                "(`get_output_embeddings`). Choose 'embedding'."
            )

    def init_weights(self, module: nn.Module) -> None:
        super().init_weights(module)
        if module is self.gate:
            initialization.zeros_(module.weight)
            initialization.zeros_(module.bias)

    def head_input(self, hidden_states: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        gates = 1 + torch.tanh(self.gate(hidden_states))
        return hidden_states + self.projection(gates * latents.unsqueeze(1))


# What `config.latent_injection` may name.
LATENT_INJECTIONS: dict[str, type[LatentInjection]] = {
    "embedding": EmbeddingInjection,
    "memory": MemoryInjection,
    "prefix": PrefixInjection,
    "logits": LogitsInjection,
}


def register_latent_injection(name: str, injection_class: type[LatentInjection]) -> None:
    """
    Makes `injection_class` what `latent_injection=name` builds.

    Args:
        name (`str`): what a configuration calls it.
        injection_class (`type`): a subclass of [`LatentInjection`].
    """
    LATENT_INJECTIONS[name] = injection_class
    if name not in LATENT_INJECTION_TYPES:
        LATENT_INJECTION_TYPES.append(name)


__all__ = ["DecoderShape", "LatentInjection", "register_latent_injection"]
