"""p(y|x,z): what the decoder is given besides z, and the likelihood of y."""

from typing import Any, cast

import torch

from .checks import check_rows, shaped_latents
from .compat import CACHE
from .configuration_vae import VAEConfig
from .encoders import check_attention_mask, check_length, check_mask, check_tokens
from .fused_linear_cross_entropy import fusable_lm_head, fused_linear_cross_entropy, sequence_nll, with_fake_logits
from .modeling_latent_decoder import LatentDecoder
from .rows import match_rows
from .source_cache import SourceCache
from .wrapped_lm import count_positions

# Numbers that the head reads in a pass which several z share; in float32 they take 256 MiB.
MANY_STATES = 2**26


class LatentDecodingMixin:
    """Decodes with teacher forcing, given z and what `condition` gives of x. `[prompt, start, y]` is what the decoder reads."""

    config: VAEConfig
    decoder: LatentDecoder
    device: torch.device
    training: bool
    # Set to False once the LM is seen to change its output layer's logits, which rules out the fused loss.
    lm_head_is_final = True

    def decode(
        self, latents: torch.Tensor, labels: torch.LongTensor, source_cache: SourceCache | None = None, **conditioning
    ) -> torch.Tensor:
        """
        Logits of y given z, with teacher forcing. Of the words that the decoder reads, `config.word_dropout` of them are hidden in
        training; an inputless decoder (a rate of 1) reads none at any time.

        Args:
            latents (`torch.Tensor` of shape `(batch, latent_size)`): if no layer of the decoder reads z, as with
                `latent_injection="logits"`, there may be several for each row of `labels`, in succession,
                `(batch · samples, latent_size)`; the layers then read y once for all of them.
            labels (`torch.LongTensor` of shape `(batch, target)`): y in the decoder's vocabulary, -100 on padding.
            source_cache ([`SourceCache`], *optional*): what [`~VAEModel.prefill`] has read of x, of as many rows.
            conditioning: what else the decoder is given, as [`~VAEModel.forward`] names it.

        Returns:
            `torch.Tensor` with a row for each z, `(batch, target, vocab)`; `[:, t]` predicts `labels[:, t]`.

        Raises:
            ValueError: `latents`, `labels` or what else is given are malformed, or differ in their number of rows.
        """
        latents = shaped_latents(latents, None, self.config.total_latent_size).to(labels.device)
        several = not self.decoder.layers_read_latents and len(labels) and len(latents)
        if len(latents) != len(labels) and not (several and len(latents) % len(labels) == 0):
            expected = f"({len(labels)}, {self.config.total_latent_size}){' or a multiple of its rows' if several else ''}"
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}; expected {expected}.")
        latents, conditioning = self.decoder_latents(latents, **conditioning)
        target = labels[:, :-1]
        observed = target != -100
        words = target.masked_fill(~observed, cast(int, self.config.pad_token_id))
        if self.config.inputless:
            words = words.masked_fill(observed, cast(int, self.config.word_dropout_token_id))
        elif self.training and self.config.word_dropout:
            dropped = torch.rand(words.shape, device=words.device) < self.config.word_dropout
            words = words.masked_fill(dropped & observed, cast(int, self.config.word_dropout_token_id))
        context_ids, context_mask, states = self.decoder_prompt(labels.shape[0], **conditioning)
        attention_mask = torch.cat([context_mask, observed.to(context_mask)], dim=1)
        check_length("prompt, start token and target together", attention_mask, self.config.decoder)
        source_length, cache, read = self.source_length(context_ids), None, 0
        if source_cache is not None:
            if len(source_cache) != len(labels):
                raise ValueError(
                    f"`source_cache` has {len(source_cache)} row(s) and `labels` {len(labels)}: repeat its rows as theirs."
                )
            cache, read = source_cache.fork(), source_length
        outputs = self.decoder(
            input_ids=torch.cat([context_ids, words], dim=1)[:, read:],
            latents=latents,
            attention_mask=attention_mask,
            # Whatever stands in front of the first token.
            position_ids=count_positions(attention_mask)[:, read:],
            source_length=source_length,
            use_cache=False,
            logits_to_keep=labels.shape[1],
            **{CACHE: cache},
            **states,
        )
        return outputs.logits

    def nll(self, latents: torch.Tensor, labels: torch.LongTensor, **conditioning) -> torch.Tensor:
        """
        -log p(y|x,z) of each z, nats per sentence: arguments as of [`~VAEModel.decode`], result with one for each z. Of a large
        vocabulary, only a few tokens' logits are ever held at once.
        """
        lm_head = self._final_lm_head(labels)
        if lm_head is not None:
            with with_fake_logits(lm_head) as call:
                logits = self.decode(latents, labels, **conditioning)
            of_each = match_rows(labels, len(latents))
            if call.is_untouched(logits, of_each):
                return fused_linear_cross_entropy(lm_head, cast(torch.Tensor, call.hidden_states), of_each)
            self.lm_head_is_final = False
        logits = self.decode(latents, labels, **conditioning)
        return sequence_nll(logits, cast(torch.LongTensor, match_rows(labels, len(logits))))

    def latents_per_pass(self, labels: torch.LongTensor) -> int:
        """
        How many z for each row of `labels` [`~VAEModel.nll`] is best given at once: 1, unless no layer reads z and nobody holds all
        logits. Then as many as `MANY_STATES` allows share one pass of the layers. Known once the decoder has scored something.
        """
        if self.decoder.layers_read_latents or self._final_lm_head(labels) is None:
            return 1
        return max(1, MANY_STATES // (labels.numel() * self.decoder.shape.head_size))

    def _final_lm_head(self, labels: torch.LongTensor) -> torch.nn.Linear | None:
        return fusable_lm_head(self.decoder.lm, labels) if self.lm_head_is_final else None

    def decoder_latents(self, latents: torch.Tensor, **conditioning: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """What the decoder reads as its latent, `(batch, config.decoder_latent_size)`, and the conditioning that is left."""
        return latents, conditioning

    def decoder_prompt(
        self,
        batch_size: int,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        **states,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """`[prompt, start]`, its mask, and what the decoder reads besides tokens."""
        if not self.training and not torch.compiler.is_compiling():
            # In training once, with `check_parts`.
            self.config.validate_tokens()
        start = torch.full((batch_size, 1), cast(int, self.config.decoder_start_token_id), device=self.device)
        if prompt_input_ids is None:
            return start, torch.ones_like(start), states
        if prompt_attention_mask is None:
            prompt_attention_mask = torch.ones_like(prompt_input_ids)
        check_tokens("prompt_input_ids", prompt_input_ids, self.decoder.config)
        check_mask("prompt_attention_mask", prompt_attention_mask, prompt_input_ids)
        check_attention_mask("prompt_attention_mask", prompt_attention_mask)
        check_rows(batch_size, prompt_input_ids=prompt_input_ids)
        mask = torch.cat([prompt_attention_mask, torch.ones_like(start)], dim=1)
        return torch.cat([prompt_input_ids, start], dim=1), mask, states

    def source_length(self, context: torch.Tensor) -> int:
        """How many tokens of `context`, `[prompt, start]` of shape `(rows, length)`, are read without z: the prompt's, or none."""
        return context.shape[1] - 1 if self.config.latent_placement == "after_source" else 0

    def prefill(self, conditioning: dict[str, Any]) -> dict[str, Any]:
        """
        `conditioning` with a `source_cache`: the decoder has read of x what does not depend on z, once for all z that `decode`,
        `nll` and `generate` are given with it. That is the prompt with `latent_placement="after_source"`, and the encoder's states
        with cross-attention. Without either, or with a decoder that cannot share what it reads, it returns `conditioning` itself.

        Args:
            conditioning (`dict`): what [`~VAEModel.condition`] gives. `hf_vae.rows.repeat_rows` repeats its rows for several z.
        """
        by_cross_attention = conditioning.get("encoder_hidden_states")
        with_prompt = self.config.latent_placement == "after_source" and "prompt_input_ids" in conditioning
        if not self.decoder.shares_source or not (with_prompt or by_cross_attention is not None):
            return conditioning
        tokens = mask = None
        if with_prompt:
            prompt = {name: conditioning.get(name) for name in ("prompt_input_ids", "prompt_attention_mask")}
            tokens, mask, _ = self.decoder_prompt(len(conditioning["prompt_input_ids"]), **prompt)
            # Without the start token, which is the first to read z.
            tokens, mask = tokens[:, :-1], mask[:, :-1]
        states = {name: conditioning.get(name) for name in ("encoder_hidden_states", "encoder_attention_mask")}
        return {**conditioning, "source_cache": self.decoder.prefill(tokens, mask, **states)}


__all__ = ["LatentDecodingMixin"]
