"""Any causal language model behind one signature: what it takes, and its own pass."""

import inspect

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
from transformers.modeling_outputs import CausalLMOutputWithPast

from .compat import CACHE, cache_parameter
from .encoders import reserved_positions
from .modeling_lstm import kept_positions
from .source_cache import SHAREABLE, layer_kinds


def count_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions of the tokens of a text, `(rows, length)`, from its first one on, as `generate` counts them: padding takes none."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


class WrappedLM(PreTrainedModel):
    """
    A causal LM and what has to be known of it.

    Args:
        config (`PreTrainedConfig`): the LM's own configuration, shared with it.
        lm (`PreTrainedModel`, *optional*): the language model; built from `config` if it is not given.

    Raises:
        ValueError: no causal LM, or one that takes no embeddings or no cache.
    """

    base_model_prefix = "lm"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: PreTrainedConfig, lm: PreTrainedModel | None = None):
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
        # Assisted generation takes tokens back, which an LM that has compressed them cannot; generation asks the wrapper.
        self._is_stateful = lm._is_stateful
        self.cache_name = cache_name
        self.takes_position_ids = "position_ids" in parameters
        self.supports_cross_attention = "encoder_hidden_states" in parameters
        self.takes_logits_to_keep = "logits_to_keep" in parameters
        self.position_offset = reserved_positions(lm) if self.takes_position_ids else 0
        has_positions = getattr(lm.config.get_text_config(decoder=True), "max_position_embeddings", None) is not None
        self.counts_padding = has_positions and not self.takes_position_ids
        # What of a source that was read once only one continuation could go on from.
        unshared = set(layer_kinds(DynamicCache(config=lm.config))) - SHAREABLE
        self.unshared_layers = sorted(kind.__name__ for kind in unshared)

    @property
    def shares_source(self) -> bool:
        """Whether a source that was read once serves several continuations."""
        return not self.unshared_layers

    @property
    def encoder_states_size(self) -> int:
        """Width of the encoder's states that the LM reads by cross-attention."""
        text_config = self.config.get_text_config(decoder=True)
        return getattr(text_config, "cross_attention_hidden_size", None) or text_config.hidden_size

    def get_input_embeddings(self) -> nn.Module:
        return self.lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.lm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module):
        self.lm.set_output_embeddings(value)

    def read(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        cache: Cache | None,
        use_cache: bool | None,
        logits_to_keep: int | torch.Tensor,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """The LM's own pass, with those of the arguments that it takes."""
        if self.takes_position_ids:
            kwargs["position_ids"] = position_ids
        if "encoder_hidden_states" in kwargs and cache is not None and not isinstance(cache, EncoderDecoderCache):
            # `generate` knows the LM as one without an encoder. The cache that the LM returns is the one that it goes on with.
            cache = EncoderDecoderCache(cache, DynamicCache())
        kwargs[self.cache_name] = cache
        if self.takes_logits_to_keep:
            kwargs["logits_to_keep"] = logits_to_keep
        outputs = self.lm(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=use_cache, return_dict=True, **kwargs
        )
        if not self.takes_logits_to_keep:
            outputs.logits = outputs.logits[:, kept_positions(logits_to_keep)]
        return outputs

    def check_padding(self, attention_mask: torch.Tensor | None) -> None:
        """Raises a `ValueError` if padding stands in front of tokens of an LM that counts it as positions."""
        if attention_mask is None or not self.counts_padding or torch.compiler.is_compiling():
            return
        if bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()):
            raise ValueError(
                f"`attention_mask` has padding in front of tokens, which {type(self.lm).__name__} counts as positions: give it "
                "prompts of one length at a time."
            )


__all__ = ["WrappedLM"]
