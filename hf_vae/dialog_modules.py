"""The parts of a dialogue model: an encoder of turns, an embedding of what else is known, and the acts of a reply."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from .checks import check_finite


class TurnEncoder(nn.Module):
    """
    A GRU over turns, each read as its vector and a bit for its speaker (Zhao et al. 2017, section 4.2).

    Args:
        hidden_size (`int`): width of a turn's vector and of the state.
        dtype (`torch.dtype`): of the weights.
    """

    def __init__(self, hidden_size: int, dtype: torch.dtype):
        super().__init__()
        self.gru = nn.GRU(hidden_size + 1, hidden_size, batch_first=True, dtype=dtype)

    def forward(self, turns: torch.Tensor, same_speaker: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            turns (`torch.Tensor` of shape `(batch, turns, hidden_size)`): each turn's vector.
            same_speaker (`torch.Tensor` of shape `(batch, turns)`): 1 if it is the one who replies.
            mask (`torch.Tensor` of shape `(batch, turns)`): 0 on padding, which follows the turns.

        Returns:
            The state after each turn, `(batch, turns, hidden_size)`, and after the last one, `(batch, hidden_size)`.
        """
        states, _ = self.gru(torch.cat([turns, same_speaker.unsqueeze(-1).to(turns)], dim=-1))
        # Padding comes last and the GRU reads forwards, so no state that is used has seen any.
        return states, states[torch.arange(len(states), device=states.device), mask.long().sum(-1) - 1]


class MetaFeatures(nn.Module):
    """
    What is known of a dialogue besides its turns: an embedding for each categorical feature, numbers as they are.

    Args:
        categories (`list[int]`): number of values of each categorical feature.
        embedding_size (`int`): width of each one's embedding.
        num_values (`int`): how many numbers there are.
        dtype (`torch.dtype`): of the weights.
    """

    def __init__(self, categories: list[int], embedding_size: int, num_values: int, dtype: torch.dtype):
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(count, embedding_size, dtype=dtype) for count in categories])
        self.num_values, self.dtype = num_values, dtype

    def forward(self, categories: torch.Tensor | None, values: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            categories (`torch.LongTensor` of shape `(batch, categorical features)`): the number of each one's value.
            values (`torch.Tensor` of shape `(batch, num_values)`): the numbers.

        Returns:
            `torch.Tensor` of shape `(batch, meta_size)`.

        Raises:
            ValueError: features are missing, are too many, or have a value that was not configured.
        """
        parts = []
        for name, given, width in (
            ("meta_categories", categories, len(self.embeddings)),
            ("meta_values", values, self.num_values),
        ):
            found = 0 if given is None else given.shape[-1]
            if found != width:
                raise ValueError(f"`{name}` has {found} feature(s) a row; the model is configured for {width}.")
        if categories is not None:
            for index, embedding in enumerate(cast(Iterable[nn.Embedding], self.embeddings)):
                column = categories[:, index]
                if column.is_floating_point() or column.dtype is torch.bool:
                    raise ValueError(f"`meta_categories` holds {column.dtype}; it counts values: give whole numbers.")
                if not torch.compiler.is_compiling() and not 0 <= int(column.min()) <= int(column.max()) < embedding.num_embeddings:
                    raise ValueError(
                        f"`meta_categories[:, {index}]` is between {int(column.min())} and {int(column.max())}; the model is "
                        f"configured for {embedding.num_embeddings} values, from 0 on."
                    )
                parts.append(embedding(column))
        if values is not None:
            check_finite("`meta_values`", values, "leave out what is not known of a dialogue, or give it a number")
            parts.append(values.to(self.dtype))
        return torch.cat(parts, dim=-1)


class ActHead(nn.Module):
    """
    Acts of a reply: p(a|x,z), a layer with a tanh over z and one vector of x, and the embeddings that the decoder and q read (Zhao
    et al. 2017, section 4.3).

    Args:
        latent_size (`int`): dimensions of z.
        context_size (`int`): width of x's vector.
        hidden_size (`int`): width of the hidden layer.
        num_acts (`int`): acts.
        embedding_size (`int`): width of an act's embedding.
        dtype (`torch.dtype`): of the weights.
    """

    def __init__(
        self, latent_size: int, context_size: int, hidden_size: int, num_acts: int, embedding_size: int, dtype: torch.dtype
    ):
        super().__init__()
        self.hidden = nn.Linear(latent_size + context_size, hidden_size, dtype=dtype)
        self.output = nn.Linear(hidden_size, num_acts, dtype=dtype)
        self.embedding = nn.Embedding(num_acts, embedding_size, dtype=dtype)

    def forward(self, latents: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """log p(a|x,z): `(rows, latent_size)`, `(rows, context_size)` to `(rows, num_acts)`, float32."""
        return self.output(torch.tanh(self.hidden(torch.cat([latents.to(context), context], dim=-1)))).float().log_softmax(-1)

    def embed(self, act_labels: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
        """
        `(rows, embedding_size)`: the embeddings of `act_labels`, and if they are -100 the rows of `unknown`.

        Raises:
            ValueError: an act that the model does not have.
        """
        known = act_labels != -100
        if not torch.compiler.is_compiling() and bool(
            (known & ((act_labels < 0) | (act_labels >= self.output.out_features))).any()
        ):
            raise ValueError(
                f"`act_labels` holds {sorted(set(act_labels.tolist()))}; the model is configured for {self.output.out_features} "
                "acts, from 0 on, and -100 if it is not known."
            )
        return torch.where(known.unsqueeze(-1), self.embedding(act_labels.clamp(min=0)), unknown)

    def expected(self, log_probs: torch.Tensor) -> torch.Tensor:
        """The mean of the embeddings under p(a|x,z), `(rows, embedding_size)`."""
        return log_probs.exp().to(self.embedding.weight.dtype) @ self.embedding.weight


__all__ = ["ActHead", "MetaFeatures", "TurnEncoder"]
