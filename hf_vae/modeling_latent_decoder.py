"""p(y|x,z): any causal language model, reading a latent."""

import inspect
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
)
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from .checks import check_choice
from .compat import CACHE, cache_parameter, takes_cache
from .encoders import check_length, longest_text, reserved_positions
from .latent_injection import GROWING, LATENT_INJECTIONS, DecoderShape, LatentInjection, build_injections, layer_kinds
from .modeling_lstm import kept_positions


def runs_on_the_cpu(model: PreTrainedModel) -> bool:
    """Whether a forward pass can be tried here: `model` has all its weights, in main memory, and an attention for it."""
    here = all(each.device.type == "cpu" and each.is_floating_point() and each.numel() for each in model.parameters())
    return here and model.config._attn_implementation in ("eager", "sdpa", None)


class LatentDecoder(PreTrainedModel, GenerationMixin):
    r"""
    A causal LM that reads `latents`, in one or several of the ways of `latent_injection.py`: `embedding`, `memory`, `prefix`.

    Masks and positions stay the LM's own, and generation stays GenerationMixin's: `latents` is one more tensor that it repeats for
    beams and hands to every step. What `memory` and `prefix` have put into a cache stays there, and so does what cross-attention
    has read: a generation that goes on from a returned cache needs the same z and the same source.

    Args:
        config (`PreTrainedConfig`): the LM's own configuration, shared with it.
        latent_size (`int`): dimensions of z.
        lm (`PreTrainedModel`, *optional*): the language model; built from `config` if it is not given.
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
            check_choice("latent_injection", way, tuple(LATENT_INJECTIONS))
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
        self.supports_cross_attention = "encoder_hidden_states" in parameters
        self.takes_logits_to_keep = "logits_to_keep" in parameters
        self.position_offset = reserved_positions(lm) if self.takes_position_ids else 0
        has_positions = getattr(lm.config.get_text_config(decoder=True), "max_position_embeddings", None) is not None
        self.counts_padding = has_positions and not self.takes_position_ids
        self.shape = DecoderShape(lm, prefix_length)
        self.recurrent = self.shape.recurrent
        self.embedding_size = self.shape.embedding_size
        # What else has a row for each word, in the model around this one.
        self.heads_by_word: list[Any] = []
        self.latent_injection = build_injections(latent_injection, latent_size, self.shape)
        self.has_state = any(way.has_state for way in self.injections)
        self.prefix_length = sum(way.prefix_length for way in self.injections)
        # Positions in front of the first token that only z fills.
        self.num_latent_positions = self.prefix_length + int(self.has_state and not self.recurrent)
        self.post_init()

    @property
    def injections(self) -> list[LatentInjection]:
        """The ways in for z."""
        return cast(list[LatentInjection], list(self.latent_injection.values()))

    @property
    def longest_text(self) -> int | None:
        """Most tokens that the LM was built for, beside what z fills; `None`: any number."""
        return longest_text(self.config, self.num_latent_positions + self.position_offset)

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

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        for way in self.injections:
            # Module by module, because transformers passes over modules that have no weights of their own.
            if any(module is each for each in way.modules()):
                way.init_weights(module)

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
        for way in self.injections:
            inputs_embeds = way.embed(inputs_embeds, latents)
        asked_for_cache = cache is not None or use_cache is not False
        # Asked of the cache only if the answer matters: one of fixed size counts in a tensor, which would break the graph.
        in_front = self.has_state or self.prefix_length or self.position_offset or initial_state is not None
        starts = in_front and (cache is None or cache.get_seq_length() == 0)
        if self.num_latent_positions and cache is not None and not set(layer_kinds(cache)) <= GROWING:
            raise ValueError(
                "`latent_injection` names 'memory' or 'prefix', which need a cache that grows: leave `cache_implementation` unset."
            )
        if self.counts_padding and attention_mask is not None:
            self._check_padding(attention_mask)
        if reserved := self.num_latent_positions + self.position_offset:
            if starts:
                mask = inputs_embeds.new_ones(inputs_embeds.shape[:2]) if attention_mask is None else attention_mask
                check_length("What the decoder reads", mask, self.config, reserved)
            position_ids = self._positions(inputs_embeds, attention_mask, position_ids, cache) + reserved
            if attention_mask is not None:
                attention_mask = nn.functional.pad(attention_mask, (self.num_latent_positions, 0), value=1)
        if starts and (self.has_state or initial_state is not None):
            cache = self._begin_from_states(latents, initial_state, cache)
        if starts and self.prefix_length:
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
        prefixes = (way.prefix(latents) for way in self.injections)
        return torch.cat([prefix for prefix in prefixes if prefix is not None], dim=1)

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
        past = 0 if cache is None else max(cache.get_seq_length() - self.num_latent_positions, 0)
        return torch.arange(past, past + length, device=inputs_embeds.device).unsqueeze(0)

    def _begin_from_states(self, latents: torch.Tensor, initial_state: torch.Tensor | None, cache: Cache | None) -> Cache:
        """What z, and for an LSTM the source, gives every layer, put in the cache before anything is read."""
        if initial_state is not None and not self.recurrent:
            raise ValueError(f"`initial_state` is for recurrent decoders; {type(self.lm).__name__} has no state to start from.")
        cache = DynamicCache(config=self.config) if cache is None else cache
        states = [state for way in self.injections if (state := way.state(latents)) is not None]
        states += [] if initial_state is None else [initial_state.to(latents)]
        return self.shape.write_states(self.lm, states, cache)

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
            next_sequence_length += self.num_latent_positions if cache.get_seq_length() else 0
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            inputs_embeds=inputs_embeds,
            **{CACHE: cache},
            **kwargs,
        )


__all__ = ["LatentDecoder"]
