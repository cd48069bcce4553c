"""From z to text: what `generate` does once it knows where z comes from, the same for every model of the family."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from transformers import LogitsProcessorList
from transformers.generation import GenerationMixin
from transformers.utils import ModelOutput, logging

from .assistants import assistant_of
from .checks import check_count, check_finite, float_latents, rows_of
from .configuration_vae import VAEConfig, check_token
from .encoders import check_length
from .fitted_prior import GaussianMixturePrior
from .gaussian import DiagonalGaussian
from .generation_options import AverageOverLatents, LatentGenerationOptions, RefuseNaN
from .modeling_latent_decoder import LatentDecoder
from .modeling_lstm import check_cache_implementation

logger = logging.get_logger(__name__)
# Of a model whose `generation_config` says no length, if its decoder holds as many.
DEFAULT_NEW_TOKENS = 128


class LatentGenerationMixin(GenerationMixin):
    """Draws z as the options say and has the decoder write a text for each; of a model that says what the decoder reads besides."""

    config: VAEConfig
    decoder: LatentDecoder
    device: torch.device
    fitted_prior: GaussianMixturePrior | None
    # What the decoder reads: x by name; of z and x, its latent and the rest; of the rest, `[prompt, start]`, its mask and states.
    condition: Callable[..., dict[str, torch.Tensor]]
    _decoder_latents: Callable[..., tuple[torch.Tensor, dict[str, Any]]]
    _decoder_context: Callable[..., tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]

    def _settle_latents(
        self,
        latents: torch.Tensor | None,
        source: str,
        batch: int,
        options: LatentGenerationOptions,
        posterior: Callable[[], DiagonalGaussian],
        prior: Callable[[], DiagonalGaussian],
    ) -> torch.Tensor:
        """The z of each sequence to return: the `latents` given, or drawn from `source`. Only the one asked for is computed."""
        if latents is not None:
            latents = options.accept(latents, batch, self.config.latent_size)
            check_finite("`latents`", latents, "give finite numbers")
            return latents
        if source == "fitted_prior":
            latents = self._draw_from_fitted_prior(batch, options)
        else:
            latents = options.draw(posterior() if source == "posterior" else prior())
        check_finite(f"z from `latent_source='{source}'`", latents, "the model's weights hold NaN, or what it reads does")
        return latents

    def _draw_from_fitted_prior(self, batch: int, options: LatentGenerationOptions) -> torch.Tensor:
        """One z for each sequence to return, from the prior that was fitted after training."""
        if self.fitted_prior is None:
            raise ValueError(
                "`latent_source` is 'fitted_prior', and this model has none: fit one with `hf_vae.latent_space.fit_prior` and keep "
                "it with `model.set_fitted_prior`."
            )
        return self.fitted_prior.sample(batch * (options.num_return_sequences or 1), options.generator, options.latent_temperature)

    @staticmethod
    def _batch_size(latents: torch.Tensor | None, num_samples: int | None, **given: torch.Tensor | None) -> int:
        rows = rows_of(**given)
        if num_samples is not None:
            if rows is not None or latents is not None:
                raise ValueError("`num_samples` is for drawing from the prior without input; use `num_return_sequences`.")
            check_count("num_samples", num_samples)
            return num_samples
        return rows or rows_of(latents=latents) or 1

    def _generate(self, latents, batch, conditioning, options, model_kwargs):
        if self.decoder.recurrent:
            check_cache_implementation(options.config.cache_implementation)
        latents = latents.to(self.device)
        decoder_latents, context_ids, context_mask, states = self._before_the_first_word(latents, batch, conditioning)
        check_token("pad_token_id", options.config.pad_token_id, self.config.decoder)
        # Padding in front takes no position.
        longest = int(context_mask.sum(-1).max())
        options.config.max_new_tokens = self._new_tokens(options.config.max_new_tokens, longest)
        step = options.average_latents or 1
        processors = [RefuseNaN(max(options.config.num_beams or 1, options.config.num_return_sequences or 1))]
        processors += model_kwargs.get("logits_processor") or ()
        if step > 1:
            processors.append(AverageOverLatents(step))
        model_kwargs["logits_processor"] = LogitsProcessorList(processors)
        if self.config.inputless:
            model_kwargs.update(unread_from=context_ids.shape[1], unread_token_id=self.config.word_dropout_token_id)
        assistant = model_kwargs.pop("assistant_model", None)
        if assistant is not None:
            model_kwargs["assistant_model"] = assistant_of(assistant, self.decoder, reads_more=bool(states))
        output = self.decoder.generate(
            input_ids=context_ids,
            attention_mask=context_mask,
            latents=decoder_latents,
            generation_config=options.config,
            **states,
            **model_kwargs,
        )
        prompt = context_ids.shape[1] - 1
        if isinstance(output, ModelOutput):
            output.sequences = output.sequences[::step, prompt:]
            output["latents"] = latents
            return output
        return output[::step, prompt:]

    def _new_tokens(self, asked_for: int | None, context: int) -> int:
        """How many tokens may follow `context` ones: as many as are asked for, if the decoder holds them."""
        longest = self.decoder.longest_text
        # The last one is written and not read.
        room = math.inf if longest is None else max(longest - context + 1, 1)
        if asked_for is None:
            return int(min(max(room - 1, 1), DEFAULT_NEW_TOKENS))
        if asked_for > room:
            logger.warning(
                f"`max_new_tokens` is {asked_for}, and behind {context} tokens of prompt and start token the decoder has room for "
                f"{room}: the texts end there at the latest."
            )
        return int(min(asked_for, room))

    def _before_the_first_word(self, latents, batch: int, conditioning) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict]:
        """For each of `latents`: what the decoder reads as its latent, `[prompt, start]`, its mask, and what it reads besides."""
        rows = latents.shape[0]
        repeated = {name: tensor.repeat_interleave(rows // batch, 0) for name, tensor in conditioning.items()}
        decoder_latents, repeated = self._decoder_latents(latents, **repeated)
        context_ids, context_mask, states = self._decoder_context(rows, **repeated)
        check_length("prompt and start token together", context_mask, self.config.decoder)
        return decoder_latents, context_ids, context_mask, states

    @torch.no_grad()
    def prompt_embeds(self, latents: torch.Tensor, **inputs) -> torch.Tensor:
        """
        z as a prompt for servers that take embeddings in the place of tokens: with `latent_injection="prefix"` alone, the decoder's
        language model by itself, given these, writes what [`~VAEModel.generate`] writes.

        Args:
            latents (`torch.Tensor` of shape `(rows, latent_size)`): z, one for each text to write.
            inputs: what the processor makes of what is given, for a model that is given something; one row, or one for each of
                `latents`, or for as many of them in a row each.

        Returns:
            `torch.Tensor` of shape `(rows, prefix_length + prompt + 1, embedding size)`: z's embeddings, the prompt's and the start
            token's, in the decoder's dtype.

        Raises:
            ValueError: z or x reaches the decoder in another way than through its prompt, the decoder is inputless, `latents` have
                another shape, or prompts are of different lengths.
        """
        if self.config.latent_injection != ["prefix"]:
            raise ValueError(
                f"`latent_injection` is {self.config.latent_injection}: only with 'prefix' alone does z reach the decoder as its "
                "prompt. Train the model so, or generate with `generate`."
            )
        if self.config.inputless:
            raise ValueError(
                "`word_dropout` is 1: the decoder reads no words, and a server would have it read them. Use `generate`."
            )
        latents = float_latents(latents)
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_size:
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}; expected (rows, {self.config.latent_size}).")
        conditioning = self.condition(**inputs)
        batch = next(iter(conditioning.values())).shape[0] if conditioning else 1
        if latents.shape[0] % batch:
            raise ValueError(f"`latents` has {latents.shape[0]} rows, and there are {batch} inputs: give each as many.")
        latents, ids, mask, states = self._before_the_first_word(latents.to(self.device), batch, conditioning)
        if states:
            raise ValueError(f"The decoder reads {' and '.join(states)} besides its prompt; a server has no place for that.")
        if not mask.all():
            raise ValueError("`prompt_attention_mask` has padding, and a prompt of embeddings no mask: give prompts of one length.")
        return self.decoder.prompt_embeds(cast(torch.LongTensor, ids), latents)
