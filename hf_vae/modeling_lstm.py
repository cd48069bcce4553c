"""LSTMs as an ordinary encoder and an ordinary causal LM, so that the recurrent systems are one more pair of parts."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedModel, initialization
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .compat import CACHE, takes_cache
from .configuration_lstm import LSTMConfig


class LSTMStateLayer(CacheLayerMixin):
    """One layer's state, h in the place of an attention layer's keys and c in that of its values, `(rows, hidden_size)` each."""

    # Makes `DynamicCache(config=...)` build this layer for an `LSTMConfig`.
    _layer_type = "lstm"
    is_sliding = False
    keys: Any
    values: Any

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, tokens: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """The state h, c after `tokens` more tokens; 0 of them if it is an initial state."""
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        self.cumulative_length += tokens
        return key_states, value_states

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.keys, self.values = (state.repeat_interleave(repeats, 0) for state in (self.keys, self.values))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.is_initialized:
            self.keys, self.values = self.keys[indices], self.values[indices]


@dataclass
class LSTMModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.Tensor` of shape `(rows, length, hidden_size)`): the last layer's h at every token; 0 on padding.
        pooler_output (`torch.Tensor` of shape `(rows, hidden_size)`): h when the text has been read; of both directions.
        cache (`Cache`, *optional*): the state after the last token, with `use_cache`.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    cache: Cache | None = None


class LSTMPreTrainedModel(PreTrainedModel):
    config: LSTMConfig
    base_model_prefix = "model"
    _no_split_modules = ["LSTM"]
    # The state after a token does not hold the one before it, so assisted generation cannot take tokens back.
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, (nn.Embedding, nn.LSTM, nn.Linear)):
            for parameter in module.parameters(recurse=False):
                initialization.uniform_(parameter, -self.config.initializer_range, self.config.initializer_range)


class LSTM(nn.LSTM):
    """
    torch's LSTM, with a rate at which weights from one state to the next are dropped in training (Merity et al. 2018, section 3.1).

    The dropped ones take the weights' place inside `forward` only, behind the hooks by which others (FSDP) bring the weights there.
    """

    def __init__(self, recurrent_dropout: float, *args, **kwargs):
        self.recurrent_dropout = recurrent_dropout
        super().__init__(*args, **kwargs)

    def flatten_parameters(self) -> None:
        # cuDNN's one block of memory would be made anew, around the weights that are whole, whenever some are dropped.
        if not self.recurrent_dropout:
            super().flatten_parameters()

    def forward(self, input, hx=None):
        if not self.training or not self.recurrent_dropout:
            return super().forward(input, hx)
        whole = {name: weight for name, weight in self._parameters.items() if name.startswith("weight_hh")}
        try:
            for name, weight in whole.items():
                self._parameters[name] = nn.functional.dropout(weight, self.recurrent_dropout)
            return super().forward(input, hx)
        finally:
            self._parameters.update(whole)


class LSTMModel(LSTMPreTrainedModel):
    """An LSTM over tokens. Padding, wherever it stands, is never read."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.lstm = LSTM(
            config.recurrent_dropout,
            config.embedding_size,
            config.hidden_size // (2 if config.bidirectional else 1),
            num_layers=config.num_hidden_layers,
            batch_first=True,
            dropout=config.dropout if config.num_hidden_layers > 1 else 0.0,
            bidirectional=config.bidirectional,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @can_return_tuple
    @takes_cache
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> LSTMModelOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`, *optional*): tokens; or give `inputs_embeds`.
            attention_mask (`torch.Tensor` of shape `(rows, past + length)`, *optional*): 0 on padding, on either side.
            inputs_embeds (`torch.Tensor` of shape `(rows, length, embedding_size)`, *optional*).
            cache (`Cache`, *optional*): the state to go on from.
            use_cache (`bool`, *optional*): return the state, in `cache` where one was given; off by default.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds`, or a state for a bidirectional LSTM.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either `input_ids` or `inputs_embeds`, and not both.")
        if self.config.bidirectional and (use_cache or cache is not None):
            raise ValueError("A bidirectional LSTM reads a text whole: it has no state to go on from.")
        embedded = self.embedding_dropout(self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds)
        length = embedded.shape[1]
        mask = None if attention_mask is None else attention_mask[:, -length:].bool()
        state = self._initial_state(cache)
        if mask is None or bool(mask.all()):
            hidden_states, state = self.lstm(embedded, state)
            last = hidden_states[:, -1]
        else:
            hidden_states, last, state = self._read_ragged(embedded, mask, state, use_cache)
        if self.config.bidirectional:
            last = state[0][-2:].transpose(0, 1).flatten(1)
        if use_cache:
            cache = DynamicCache(config=self.config) if cache is None else cache
            for layer, (hidden, cell) in enumerate(zip(*state)):
                cache.update(hidden, cell, layer, length)
        return LSTMModelOutput(
            last_hidden_state=self.dropout(hidden_states),
            pooler_output=self.dropout(last),
            cache=cache if use_cache else None,
        )

    def _initial_state(self, cache: Cache | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        if cache is None or not cast(LSTMStateLayer, cache.layers[0]).is_initialized:
            return None
        layers = cast(list[LSTMStateLayer], cache.layers)
        return torch.stack([layer.keys for layer in layers]), torch.stack([layer.values for layer in layers])

    def _read_ragged(self, embedded, mask, state, use_cache):
        """As without padding: the tokens are moved to the front of their rows, read, and moved back."""
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        lengths = mask.sum(1)
        expanded = order.unsqueeze(-1)
        in_front = embedded.take_along_dim(expanded, 1)
        if use_cache or self.config.bidirectional:
            # Rows end at different steps, and the state at each one's end is wanted. A row of padding only reads one token here,
            # and is put right below.
            packed = pack_padded_sequence(in_front, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
            packed, after = self.lstm(packed, state)
            hidden_states, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask.shape[1])
            before = tuple(map(torch.zeros_like, after)) if state is None else state
            some = (lengths > 0).view(1, -1, 1)
            after = tuple(torch.where(some, new, old) for new, old in zip(after, before))
        else:
            # Nothing of what comes after a token reaches it, and this is a third faster than packing.
            hidden_states, after = self.lstm(in_front, state)
        last = hidden_states[torch.arange(len(mask), device=mask.device), (lengths - 1).clamp(min=0)]
        back = torch.empty_like(order).scatter_(1, order, torch.arange(mask.shape[1], device=mask.device).expand_as(order))
        hidden_states = hidden_states.take_along_dim(back.unsqueeze(-1), 1) * mask.unsqueeze(-1)
        return hidden_states, last * (lengths > 0).unsqueeze(-1), after


def check_cache_implementation(name: str | None) -> None:
    """Raises a `ValueError` where generation is asked for a cache of a certain kind."""
    if name is not None:
        raise ValueError(f"`cache_implementation` is {name!r}; an LSTM has a state, of which there is one kind: leave it unset.")


def kept_positions(logits_to_keep: int | torch.Tensor) -> slice | torch.Tensor:
    """Which positions' logits are meant: a number of them from the end, 0 for all, or those that the tensor names."""
    return slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep


class LSTMForCausalLM(LSTMPreTrainedModel, GenerationMixin):
    """An LSTM that predicts the next token."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: LSTMConfig):
        if config.bidirectional:
            raise ValueError("A causal LM cannot be `bidirectional`: it would look at the words that it is to predict.")
        super().__init__(config)
        self.model = LSTMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @can_return_tuple
    @takes_cache
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """
        As any causal LM's; inputs as [`LSTMModel.forward`]'s.

        Args:
            labels (`torch.LongTensor` of shape `(rows, length)`, *optional*): usually `input_ids`; -100 is not predicted. The
                shift by one happens inside.
            use_cache (`bool`, *optional*): defaults to the configuration's.
            logits_to_keep (`int` or `torch.Tensor`): how many of the last tokens to predict after, or which; 0 is all.
        """
        use_cache = self.config.use_cache if use_cache is None else use_cache
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            cache=cache,
            use_cache=use_cache,
            return_dict=True,
        )
        logits = self.lm_head(outputs.last_hidden_state[:, kept_positions(logits_to_keep)])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: outputs.cache})

    def generate(self, inputs=None, generation_config=None, *args, **kwargs):
        """
        GenerationMixin's.

        Raises:
            ValueError: `cache_implementation` is set, here or in a generation configuration.
        """
        # A configuration that leaves it open takes the model's.
        for asked in (kwargs.get("cache_implementation"), generation_config, self.generation_config):
            check_cache_implementation(asked if isinstance(asked, str) else getattr(asked, "cache_implementation", None))
        return super().generate(inputs, generation_config, *args, **kwargs)


def register_lstm(config_class: type[PreTrainedConfig]) -> None:
    """
    Lets the Auto classes build these models from configurations of `config_class`: [`LSTMConfig`], or the class of that name in
    another copy of `configuration_lstm.py`. A model that brings its code along has its configuration read by such a copy.
    """
    AutoModel.register(config_class, LSTMModel, exist_ok=True)
    AutoModelForCausalLM.register(config_class, LSTMForCausalLM, exist_ok=True)


register_lstm(LSTMConfig)

__all__ = ["LSTMForCausalLM", "LSTMModel"]
