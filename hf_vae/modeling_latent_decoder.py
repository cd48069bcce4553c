"""p(y|x,z): any causal language model, reading a latent."""

import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.cache_utils import Cache, DynamicLayer
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from .compat import CACHE, cache_parameter, head_shapes, is_activation_checkpointing, takes_cache
from .configuration_vae import LATENT_INJECTIONS, check_choice
from .encoders import check_length, longest_text, reserved_positions
from .modeling_lstm import LSTMStateLayer, kept_positions

# What a cache keeps for a layer that forgets nothing.
GROWING = {DynamicLayer, LSTMStateLayer}


def self_attention(cache: Cache) -> Cache:
    """The part of `cache` for what the LM itself has read; one with cross-attention keeps what it reads of a source beside it."""
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


def layer_kinds(cache: Cache) -> list[type]:
    """
    What `cache` keeps for each layer of what the LM itself has read. An LSTM's state counts as this copy's: where several models
    bring their code along, each copy has such a class, and transformers takes the last one read.
    """
    kinds = [type(layer) for layer in self_attention(cache).layers]
    return [LSTMStateLayer if getattr(kind, "_layer_type", None) == LSTMStateLayer._layer_type else kind for kind in kinds]


def runs_on_the_cpu(model: PreTrainedModel) -> bool:
    """Whether a forward pass can be tried here: `model` has all its weights, in main memory, and an attention for it."""
    here = all(each.device.type == "cpu" and each.is_floating_point() and each.numel() for each in model.parameters())
    return here and model.config._attn_implementation in ("eager", "sdpa", None)


class LatentDecoder(PreTrainedModel, GenerationMixin):
    r"""
    A causal LM that reads `latents`, in one or several ways:

    - `embedding`: a projection of z is added to every token's embedding. Right with any decoder and any cache.
    - `memory` (Li et al. 2020, section 3.1): in front of the first token every layer holds one more position, whose key and value
      are both one projection of z. Decoders whose every layer attends to everything. An LSTM's memory is its initial state
      (Bowman et al. 2015): c is the projection, h its tanh.
    - `prefix`: projections of z stand in front of the tokens as `prefix_length` embeddings. The same decoders.

    Masks and positions stay the LM's own, and generation stays GenerationMixin's: `latents` is one more tensor that it repeats for
    beams and hands to every step. What `memory` and `prefix` have put into a cache stays there, and so does what cross-attention
    has read: a generation that goes on from a returned cache needs the same z and the same source.

    Args:
        config (`PreTrainedConfig`): the LM's own configuration, shared with it.
        latent_size (`int`): dimensions of z.
        lm (`PreTrainedModel`, *optional*): the language model; built from `config` where it is not given.
        latent_injection (`Sequence[str]`, defaults to `("embedding",)`): the ways in.
        prefix_length (`int`, defaults to 4): embeddings that stand for z with `prefix`.

    Raises:
        ValueError: a way in that does not exist or that this LM does not have.
    """

    base_model_prefix = "lm"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(
        self,
        config: PreTrainedConfig,
        latent_size: int,
        lm: PreTrainedModel | None = None,
        latent_injection: Sequence[str] = ("embedding",),
        prefix_length: int = 4,
    ):
        for way in latent_injection:
            check_choice("latent_injection", way, LATENT_INJECTIONS)
        if lm is None and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and getattr(config, "auto_map", None) is None:
            raise ValueError(
                f"The decoder's {type(config).__name__} has no causal LM under `AutoModelForCausalLM`; choose a family that has "
                "one."
            )
        # The LM comes first: it settles the attention in the configuration that both share.
        lm = AutoModelForCausalLM.from_config(config) if lm is None else lm
        parameters = inspect.signature(type(lm).forward).parameters
        if "inputs_embeds" not in parameters:
            raise ValueError(
                f"The decoder {type(lm).__name__} takes no `inputs_embeds`, so a latent cannot be added to its embeddings; "
                "choose a causal LM that does."
            )
        cache_name = cache_parameter(lm)
        if cache_name is None:
            raise ValueError(
                f"The decoder {type(lm).__name__} takes no cache under the name `{CACHE}`, so generation cannot go on from what it "
                "has read; choose a causal LM that does."
            )
        # A mixture of experts has settled its experts too, and they are not this wrapper's to check.
        experts = lm.config._experts_implementation_internal
        lm.config._experts_implementation_internal = None
        super().__init__(lm.config)
        lm.config._experts_implementation_internal = experts
        self.lm = lm
        self.latent_size = latent_size
        # Assisted generation takes tokens back, which an LM that has compressed them cannot; generation asks the wrapper.
        self._is_stateful = lm._is_stateful
        self.cache_name = cache_name
        self.takes_position_ids = "position_ids" in parameters
        self.takes_encoder_states = "encoder_hidden_states" in parameters
        self.takes_logits_to_keep = "logits_to_keep" in parameters
        self.first_position = reserved_positions(lm) if self.takes_position_ids else 0
        has_positions = getattr(lm.config.get_text_config(decoder=True), "max_position_embeddings", None) is not None
        self.counts_padding = has_positions and not self.takes_position_ids
        # What a cache keeps for each layer.
        self.layer_kinds = layer_kinds(DynamicCache(config=self.config))
        self.recurrent = set(self.layer_kinds) == {LSTMStateLayer}
        # What else has a row for each word, in the model around this one.
        self.heads_by_word: list[Any] = []
        # Positions in front of the first token that only z fills.
        self.num_slots = 0
        self.embedding_size = cast(nn.Embedding, lm.get_input_embeddings()).weight.shape[-1]
        if "embedding" in latent_injection:
            self.project = nn.Linear(latent_size, self.embedding_size, dtype=lm.dtype)
        if "memory" in latent_injection:
            self._check_way("memory")
            self.memory = nn.Linear(latent_size, sum(map(math.prod, self.state_shapes)), bias=False, dtype=lm.dtype)
            self.num_slots += 0 if self.recurrent else 1
        if "prefix" in latent_injection:
            self._check_way("prefix")
            self.prefix = nn.Linear(latent_size, prefix_length * self.embedding_size, dtype=lm.dtype)
            self.num_slots += prefix_length
        self.post_init()

    def _check_way(self, way: str) -> None:
        """Raises where z cannot be put in front of everything that the LM reads."""
        text_config = self.config.get_text_config(decoder=True)
        kinds = set(self.layer_kinds)
        if kinds not in ({DynamicLayer}, {LSTMStateLayer}):
            raise ValueError(
                f"`latent_injection` names {way!r}, which needs a decoder whose every layer attends to everything before it; "
                f"{type(self.lm).__name__} has layers that forget or compress ({', '.join(sorted(kind.__name__ for kind in kinds))}"
                "). Choose 'embedding', which works with any decoder."
            )
        if way == "memory" and getattr(text_config, "kv_lora_rank", None) is not None:
            raise ValueError(
                f"`latent_injection` names 'memory', but {type(self.lm).__name__} caches keys and values in a compressed form "
                "that a latent cannot take. Choose 'embedding' or 'prefix'."
            )

    @property
    def longest_text(self) -> int | None:
        """Most tokens that the LM was built for, beside what z fills; `None`: any number."""
        return longest_text(self.config, self.num_slots + self.first_position)

    @property
    def encoder_states_size(self) -> int:
        """Width of the encoder's states that the LM reads by cross-attention."""
        text_config = self.config.get_text_config(decoder=True)
        return getattr(text_config, "cross_attention_hidden_size", None) or text_config.hidden_size

    @torch.no_grad()
    def check_cross_attention(self) -> None:
        """
        Reads two tokens beside an encoder's states, at once and one after the other, so that an LM whose cross-attention cannot
        serve is refused before anything is trained. An LM that cannot run where it is built is not tried.

        Raises:
            ValueError: it fails, or the two differ.
        """
        if not runs_on_the_cpu(self.lm):
            return
        trained = self.training
        self.eval()
        try:
            at_once, in_steps = self._two_tokens_beside_a_source()
            # Another order of the same sums rounds otherwise.
            tolerance = torch.finfo(self.dtype).eps ** 0.5 * at_once.abs().max()
            serves, cause = bool((at_once - in_steps).abs().max() <= tolerance), None
        except Exception as error:
            serves, cause = False, error
        finally:
            self.train(trained)
        if not serves:
            raise ValueError(
                f"`source_conditioning='cross_attention'`: {type(self.lm).__name__} fails at cross-attention with a cache. It was "
                "built without cross-attention, or its class in this version of transformers raises an error, or gives other "
                "numbers with a cache than without. Choose 'prompt', or another decoder."
            ) from cause

    def _two_tokens_beside_a_source(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `(1, 2, vocab)` of two tokens that are read at once, without a cache, and of the same in two steps with one."""
        latents = torch.zeros(1, self.latent_size)
        # Two that differ: an LM that looks ahead reads the same twice otherwise.
        tokens, mask = torch.arange(2).unsqueeze(0), torch.ones(1, 2, dtype=torch.long)
        states = (torch.arange(3.0).unsqueeze(1) + torch.arange(self.encoder_states_size)).sin().to(self.dtype)
        source = {"encoder_hidden_states": states.unsqueeze(0), "encoder_attention_mask": torch.ones(1, 3, dtype=torch.long)}
        at_once = self(tokens, latents, mask, use_cache=False, **source).logits
        cache = DynamicCache(config=self.config)
        first = self(tokens[:, :1], latents, mask[:, :1], cache=cache, use_cache=True, **source)
        second = self(tokens[:, 1:], latents, mask, cache=first[CACHE], use_cache=True, **source)
        return at_once, torch.cat([first.logits, second.logits], dim=1)

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """Shape of one row of each layer's c, of an LSTM, or key of one position."""
        num_layers = len(self.layer_kinds)
        text_config = self.config.get_text_config(decoder=True)
        if self.recurrent:
            return [(text_config.hidden_size,)] * num_layers
        heads, sizes = ([shape] * num_layers if isinstance(shape, int) else shape for shape in head_shapes(text_config))
        if getattr(text_config, "multi_query", False) and not getattr(text_config, "new_decoder_architecture", False):
            # Falcon's name for one head of keys and values.
            heads = [1] * num_layers
        return [(count, 1, size) for count, size in zip(heads, sizes)]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        new = (getattr(self, name, None) for name in ("project", "memory", "prefix"))
        if isinstance(module, nn.Linear) and any(module is each for each in new):
            # A draw from N(0, I) then moves an embedding by the scale at which a fresh embedding is drawn: a pretrained
            # decoder, whose embeddings have grown, is hardly disturbed, and the latent has a gradient from the first step.
            std = getattr(self.config.get_text_config(), "initializer_range", None) or 0.02
            initialization.normal_(module.weight, std=std / module.in_features**0.5)
            if module is getattr(self, "prefix", None):
                # With z = 0 the embeddings would be 0, where the gradient of a deep stack of RMS norms is infinite.
                initialization.normal_(module.bias, std=std)

    def get_input_embeddings(self) -> nn.Module:
        return self.lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.lm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module):
        self.lm.set_output_embeddings(value)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """As `PreTrainedModel.resize_token_embeddings`; what else has a row for each word follows."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        for head in self.heads_by_word:
            head.resize(self.config.get_text_config().vocab_size)
        return embeddings

    @can_return_tuple
    @takes_cache
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        latents: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        initial_state: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """
        One pass of the LM over `input_ids` of shape `(rows, length)`, given `latents` of shape `(rows, latent_size)`. A recurrent
        LM takes an `initial_state` too, of shape `(rows, sum of its layers' widths)`: the c that it starts from, added to z's.

        Returns the LM's own output. Its logits at a token predict the next one, as in any causal LM; attentions, hidden states and
        the cache also hold the positions that z fills.

        Raises:
            ValueError: `latents` are missing, there are more tokens than positions beside those that z fills, padding stands
                in front of tokens of an LM that counts its positions over it, or `memory` or `prefix` meet a cache of fixed size
                or gradient checkpointing, which cannot hold them.
        """
        if latents is None:
            raise ValueError("`latents` is missing: the decoder models p(y|x,z) and needs a z of shape (rows, latent_size).")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        # Follow the embeddings' dtype: quantised weights report an integer one.
        latents = latents.to(inputs_embeds)
        if hasattr(self, "project"):
            inputs_embeds = inputs_embeds + self.project(latents).unsqueeze(1)
        asked_for_cache = cache is not None or use_cache is not False
        # Asked of the cache only where the answer matters: one of fixed size counts in a tensor, which would break the graph.
        in_front = hasattr(self, "memory") or hasattr(self, "prefix") or self.first_position or initial_state is not None
        starts = in_front and (cache is None or cache.get_seq_length() == 0)
        if self.num_slots and cache is not None and not set(layer_kinds(cache)) <= GROWING:
            raise ValueError(
                "`latent_injection` names 'memory' or 'prefix', which need a cache that grows: leave `cache_implementation` unset."
            )
        if self.counts_padding and attention_mask is not None:
            self._check_padding(attention_mask)
        if reserved := self.num_slots + self.first_position:
            if starts:
                mask = inputs_embeds.new_ones(inputs_embeds.shape[:2]) if attention_mask is None else attention_mask
                check_length("What the decoder reads", mask, self.config, reserved)
            position_ids = self._positions(inputs_embeds, attention_mask, position_ids, cache) + reserved
            if attention_mask is not None:
                attention_mask = nn.functional.pad(attention_mask, (self.num_slots, 0), value=1)
        if starts and (hasattr(self, "memory") or initial_state is not None):
            cache = self._write_memory(latents, initial_state, cache)
        if hasattr(self, "prefix") and starts:
            prefix = self._prefix(latents)
            inputs_embeds = torch.cat([prefix, inputs_embeds], dim=1)
            slots = torch.arange(reserved - prefix.shape[1], reserved, device=latents.device)
            tokens = cast(torch.Tensor, position_ids)
            position_ids = torch.cat([slots.expand(len(latents), -1), tokens.expand(len(latents), -1)], dim=1)
            if isinstance(logits_to_keep, torch.Tensor):
                logits_to_keep = logits_to_keep + prefix.shape[1]
            elif logits_to_keep == 0:
                logits_to_keep = inputs_embeds.shape[1] - prefix.shape[1]
        if self.takes_position_ids:
            kwargs["position_ids"] = position_ids
        if encoder_hidden_states is not None:
            kwargs.update(encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask)
            if cache is not None and not isinstance(cache, EncoderDecoderCache):
                # `generate` knows the LM as one without an encoder. The cache that the LM returns is the one that it goes on with.
                cache = EncoderDecoderCache(cache, DynamicCache())
        kwargs[self.cache_name] = cache
        if self.takes_logits_to_keep:
            kwargs["logits_to_keep"] = logits_to_keep
        outputs = self.lm(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        if not self.takes_logits_to_keep:
            outputs.logits = outputs.logits[:, kept_positions(logits_to_keep)]
        if not asked_for_cache:
            # What carried the memory in. An output forgets no item that is set to None.
            outputs = type(outputs)(**{name: value for name, value in outputs.items() if name != CACHE})
        return outputs

    def prompt_embeds(self, input_ids: torch.LongTensor, latents: torch.Tensor) -> torch.Tensor:
        """`(rows, prefix_length + length, embedding size)`: what the LM is given of z, with `prefix`, and of the tokens."""
        tokens = self.get_input_embeddings()(input_ids)
        return torch.cat([self._prefix(latents.to(tokens)), tokens], dim=1)

    def _prefix(self, latents: torch.Tensor) -> torch.Tensor:
        return self.prefix(latents).unflatten(-1, (-1, self.embedding_size))

    def _check_padding(self, attention_mask: torch.Tensor) -> None:
        if not torch.compiler.is_compiling() and bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()):
            raise ValueError(
                f"`attention_mask` has padding in front of tokens, which {type(self.lm).__name__} counts as positions: give it "
                "prompts of one length at a time."
            )

    def _positions(self, inputs_embeds, attention_mask, position_ids, cache) -> torch.Tensor:
        """Of the tokens, counted from the first one, as `generate` counts them."""
        if position_ids is not None:
            return position_ids
        length = inputs_embeds.shape[1]
        if attention_mask is not None:
            return (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -length:]
        past = 0 if cache is None else max(cache.get_seq_length() - self.num_slots, 0)
        return torch.arange(past, past + length, device=inputs_embeds.device).unsqueeze(0)

    def _write_memory(self, latents: torch.Tensor, initial_state: torch.Tensor | None, cache: Cache | None) -> Cache:
        """What z, and for an LSTM whoever else, gives every layer, put where the layer looks for what came before."""
        if initial_state is not None and not self.recurrent:
            raise ValueError(f"`initial_state` is for recurrent decoders; {type(self.lm).__name__} has no state to start from.")
        if self.training and not self.recurrent and is_activation_checkpointing(self.lm):
            raise ValueError(
                "`latent_injection` names 'memory', and gradient checkpointing drops the cache that holds it: turn "
                "`gradient_checkpointing` off, or choose 'embedding'."
            )
        cache = DynamicCache(config=self.config) if cache is None else cache
        layers = self_attention(cache)
        given = [self.memory(latents)] if hasattr(self, "memory") else []
        given += [] if initial_state is None else [initial_state.to(latents)]
        flat = torch.stack(given).sum(0).split(list(map(math.prod, self.state_shapes)), dim=-1)
        for layer, (part, shape) in enumerate(zip(flat, self.state_shapes)):
            state = part.unflatten(-1, shape)
            if self.recurrent:
                layers.update(state.tanh(), state, layer, 0)
            else:
                layers.update(state, state, layer)
        return cache

    @takes_cache
    def prepare_inputs_for_generation(
        self,
        input_ids,
        next_sequence_length=None,
        cache=None,
        inputs_embeds=None,
        unread_from=None,
        unread_token_id=None,
        **kwargs,
    ):
        """
        GenerationMixin's, for whom the cache has z's positions too. From the position `unread_from` on, `unread_token_id` is read
        in the place of the words.
        """
        # `inputs_embeds` stands here by name because generation looks for it before it takes any.
        if unread_from is not None:
            written = torch.arange(input_ids.shape[1], device=input_ids.device) >= unread_from
            input_ids = input_ids.masked_fill(written, unread_token_id)
        if next_sequence_length is not None and kwargs.get("is_first_iteration") and cache is not None:
            # Told from the length of the cache, in which z has positions of its own.
            next_sequence_length += self.num_slots if cache.get_seq_length() else 0
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            inputs_embeds=inputs_embeds,
            **{CACHE: cache},
            **kwargs,
        )


__all__ = ["LatentDecoder"]
