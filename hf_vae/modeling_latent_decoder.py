"""p(y|x,z): any causal language model, reading a latent."""

import inspect
from typing import cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, initialization
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple


class LatentDecoder(PreTrainedModel, GenerationMixin):
    r"""
    A causal LM that adds a projection of `latents` to every token's embedding. Cache, masks and positions stay the LM's own, and
    generation stays GenerationMixin's: `latents` is one more tensor that it repeats for beams and hands to every step.

    Args:
        config (`PreTrainedConfig`): the LM's own configuration, shared with it.
        latent_size (`int`): dimensions of z.
        lm (`PreTrainedModel`, *optional*): the language model; built from `config` where it is not given.

    Raises:
        ValueError: the LM takes no `inputs_embeds`, so nothing can be added to its embeddings.
    """

    base_model_prefix = "lm"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: PreTrainedConfig, latent_size: int, lm: PreTrainedModel | None = None):
        # The LM comes first: it settles the attention in the configuration that both share.
        lm = AutoModelForCausalLM.from_config(config) if lm is None else lm
        parameters = inspect.signature(type(lm).forward).parameters
        if "inputs_embeds" not in parameters:
            raise ValueError(
                f"The decoder {type(lm).__name__} takes no `inputs_embeds`, so a latent cannot be added to its embeddings; "
                "choose a causal LM that does."
            )
        # A mixture of experts has settled its experts too, and they are not this wrapper's to check.
        experts = lm.config._experts_implementation_internal
        lm.config._experts_implementation_internal = None
        super().__init__(lm.config)
        lm.config._experts_implementation_internal = experts
        self.lm = lm
        embedding_size = cast(nn.Embedding, lm.get_input_embeddings()).weight.shape[-1]
        self.project = nn.Linear(latent_size, embedding_size, dtype=lm.dtype)
        self.takes_position_ids = "position_ids" in parameters
        self.takes_encoder_states = "encoder_hidden_states" in parameters
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self.project:
            # A draw from N(0, I) then moves an embedding by the scale at which a fresh embedding is drawn: a pretrained
            # decoder, whose embeddings have grown, is hardly disturbed, and the latent has a gradient from the first step.
            std = getattr(self.config.get_text_config(), "initializer_range", None) or 0.02
            initialization.normal_(module.weight, std=std / module.in_features**0.5)

    def get_input_embeddings(self) -> nn.Module:
        return self.lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.lm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module):
        self.lm.set_output_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        latents: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """
        One pass of the LM over `input_ids` of shape `(rows, length)`, given `latents` of shape `(rows, latent_size)`.

        Returns the LM's own output. Its logits at a token predict the next one, as in any causal LM.
        """
        if latents is None:
            raise ValueError("`latents` is missing: the decoder models p(y|x,z) and needs a z of shape (rows, latent_size).")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        # Follow the embeddings' dtype: quantised weights report an integer one.
        inputs_embeds = inputs_embeds + self.project(latents.to(inputs_embeds)).unsqueeze(1)
        if self.takes_position_ids:
            kwargs["position_ids"] = position_ids
        if encoder_hidden_states is not None:
            kwargs.update(encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask)
        return self.lm(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            return_dict=True,
            **kwargs,
        )


__all__ = ["LatentDecoder"]
