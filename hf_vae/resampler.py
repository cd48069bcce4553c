"""Several vectors of one text: learned queries attend to what an encoder has made of it."""

import math

import torch
from torch import nn
from transformers import PreTrainedConfig, initialization

from .configuration_vae import ATTENTION_POOLINGS, VAEConfig


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, num_heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Attention in several heads (Vaswani et al. 2017) without its projections.

    Args:
        queries (`torch.Tensor` of shape `(rows, queries, width)`).
        keys (`torch.Tensor` of shape `(rows, keys, width)`): of rows 1 they are every row's.
        values (`torch.Tensor` of shape `(rows, keys, other width)`): the same.
        num_heads (`int`): a divisor of both widths.
        mask (`torch.Tensor` of shape `(rows, queries or 1, keys)`, *optional*): as that of
            `torch.nn.functional.scaled_dot_product_attention`, `False` where nobody is to look or numbers that are added to the
            scores; the same in each head.

    Returns:
        `(rows, queries, other width)`.
    """
    rows = queries.shape[0]
    heads = (each.unflatten(-1, (num_heads, -1)).transpose(1, 2) for each in (queries, keys, values))
    query, key, value = (each.expand(rows, -1, -1, -1) for each in heads)
    seen = None if mask is None else mask.unsqueeze(1)
    if seen is not None and seen.is_floating_point():
        # Under autocast the projections compute in another type than the states have.
        seen = seen.to(query.dtype)
    return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)


def places_in_text(num_queries: int, mask: torch.Tensor) -> torch.Tensor:
    r"""
    Where in a text of `num_queries` equal shares each of its tokens stands: token \(t\) of \(T\), counted from a half on, at
    \(k t / T\), which is in share \(\lfloor k t / T \rfloor\).

    Args:
        num_queries (`int`): \(k\).
        mask (`torch.Tensor` of shape `(rows, length)`): 0 on padding.

    Returns:
        `(rows, length)`, of no meaning on padding.
    """
    seen = mask.bool()
    return num_queries * (seen.cumsum(dim=1) - 0.5) / seen.sum(dim=1, keepdim=True)


def shares(num_queries: int, mask: torch.Tensor) -> torch.Tensor:
    r"""
    What is added to a query's scores so that it attends to its share of a text above all, as Yang et al. (2018, "Modeling Localness
    for Self-Attention Networks") do around a place that they predict. With \(k\) queries, and \(t\) of \(T\) tokens
    read, it is \(-\frac12 (i - k t / T)^2\), both counted from a half on ([`places_in_text`]): a Gaussian window of the width of a
    share.

    Args:
        num_queries (`int`).
        mask (`torch.Tensor` of shape `(rows, length)`): 0 on padding.

    Returns:
        `(rows, num_queries, length)`, minus infinity on padding.
    """
    middles = torch.arange(num_queries, device=mask.device) + 0.5
    distances = middles.unsqueeze(1) - places_in_text(num_queries, mask).unsqueeze(1)
    return (-0.5 * distances.square()).masked_fill(~mask.bool().unsqueeze(1), -math.inf)


def beside(vectors: torch.Tensor, *further: torch.Tensor) -> torch.Tensor:
    """`vectors` `(rows, width)` or `(rows, vectors, width)`, each with what `further`, `(rows, more)`, has of its row behind it."""
    if vectors.ndim == 3:
        further = tuple(each.unsqueeze(1).expand(-1, vectors.shape[1], -1) for each in further)
    return torch.cat([vectors, *(each.to(vectors) for each in further)], dim=-1)


def count_heads(size: int, config: PreTrainedConfig) -> int:
    """How many heads serve a width of `size`: as many as the model of `config` has, if they divide it."""
    heads = getattr(config.get_text_config(), "num_attention_heads", None)
    # Some have another number in each layer, and an LSTM has none.
    return math.gcd(size, heads if isinstance(heads, int) else 4)


class Resampler(nn.Module):
    r"""
    As many vectors of a text as there are queries, however long the text is: pooling by multi-head attention (Lee et al. 2019,
    section 3.2). Perceiver (Jaegle et al. 2021), Flamingo's resampler (Alayrac et al. 2022) and the Q-Former (Li et al. 2023) read
    so too. With the queries \(S\) and the states \(X\) it is \(\mathrm{LN}(H + \mathrm{MLP}(H))\) of
    \(H = \mathrm{LN}(S + \mathrm{Attention}(S, X, X))\).

    Args:
        hidden_size (`int`): width of a state, and of each vector.
        num_queries (`int`): vectors of a text.
        num_heads (`int`): a divisor of `hidden_size`.
        dtype (`torch.dtype`): of the weights.
        is_local (`bool`, defaults to `False`): whether each query attends to its share of the text above all ([`shares`]).
    """

    def __init__(self, hidden_size: int, num_queries: int, num_heads: int, dtype: torch.dtype, is_local: bool = False):
        super().__init__()
        self.num_heads, self.is_local = num_heads, is_local
        self.queries = nn.Parameter(torch.empty(num_queries, hidden_size, dtype=dtype))
        self.to_queries, self.to_keys, self.to_values, self.to_output = (
            nn.Linear(hidden_size, hidden_size, dtype=dtype) for _ in range(4)
        )
        self.attention_norm, self.norm = (nn.LayerNorm(hidden_size, dtype=dtype) for _ in range(2))
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size, dtype=dtype), nn.GELU(), nn.Linear(4 * hidden_size, hidden_size, dtype=dtype)
        )
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Queries that differ from the first step on, and layers that keep the scale of what they read."""
        initialization.normal_(self.queries)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                initialization.normal_(module.weight, std=module.in_features**-0.5)
                initialization.zeros_(module.bias)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(batch, length, hidden_size)`).
            mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 0 on padding, which no query sees.

        Returns:
            `(batch, num_queries, hidden_size)`.
        """
        queries = self.queries.expand(states.shape[0], -1, -1)
        visible = None if mask is None else mask.bool().unsqueeze(1)
        if self.is_local:
            visible = shares(len(self.queries), states.new_ones(states.shape[:2]) if mask is None else mask)
        seen = attend(self.to_queries(queries), self.to_keys(states), self.to_values(states), self.num_heads, visible)
        hidden = self.attention_norm(queries + self.to_output(seen))
        return self.norm(hidden + self.mlp(hidden))


def build_resampler(config: VAEConfig, dtype: torch.dtype) -> Resampler | None:
    """A learned query for each vector of z, over the states of the encoder; `None` if its `pooling` makes one vector by a rule."""
    if config.pooling not in ATTENTION_POOLINGS:
        return None
    size = config.encoder.get_text_config().hidden_size
    heads = count_heads(size, config.encoder)
    return Resampler(size, config.num_latents, heads, dtype, is_local=config.pooling == "local_attention")


__all__ = ["Resampler"]
