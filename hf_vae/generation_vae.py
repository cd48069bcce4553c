"""`generate`, once for every model of the family: where z comes from, and then a text for each z."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import GenerationMixin
from transformers.utils import ModelOutput, logging

from .assistants import assistant_of
from .calls import call_with
from .checks import check_count, check_finite, check_token, rows_of, shaped_latents
from .compat import CACHE
from .decoding_vae import LatentDecodingMixin
from .encoders import check_length
from .flow_prior import FlowPrior
from .generation_options import LatentGenerationOptions
from .given_vectors import check_given
from .latent_control import AttributeEnergy
from .latent_distribution import LatentDistribution
from .logits_processors import AverageOverLatents, RefuseNaN
from .modeling_lstm import check_cache_implementation
from .modeling_outputs import LatentOutput
from .prior import GaussianMixturePrior, Prior
from .rows import repeat_rows
from .source import EncodedSource, check_source

logger = logging.get_logger(__name__)
# Of a model whose `generation_config` says no length, if its decoder holds as many.
DEFAULT_NEW_TOKENS = 128


class LatentGenerationMixin(LatentDecodingMixin, GenerationMixin):
    """Draws z and has the decoder write a text for each, for a model that has the verbs named here."""

    generation_config: GenerationConfig
    read_source: Callable[..., EncodedSource]
    encode: Callable[..., LatentOutput]
    prior_named: Callable[[str], Prior | GaussianMixturePrior | FlowPrior]
    condition: Callable[..., dict[str, torch.Tensor]]
    latent_attributes: nn.ModuleDict

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        latent_source: str | None = None,
        latent_temperature: float | None = None,
        latent_spread: str | None = None,
        num_return_sequences: int | None = None,
        num_samples: int | None = None,
        average_latents: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        attribute_weight: float | None = None,
        generator: torch.Generator | None = None,
        source: EncodedSource | None = None,
        generation_config: GenerationConfig | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ):
        r"""
        Texts, each decoded from its own z. x is encoded once, however many sequences.

        Args:
            input_ids, attention_mask (`(batch, source)`, *optional*): what the encoder reads. Of a VAE it is y, to be
                reconstructed, else x. A VAE with an `embedding_size` takes `embeddings` instead, `(batch, embedding_size)`.
            latents (`torch.Tensor` of shape `(rows, latent_size)`, *optional*): the z to decode, one per returned sequence; or one
                per input, whose sequences then share it and differ by sampling or beams.
            latent_source (`str`, *optional*): `"prior"`; `"posterior"`, the default of a VAE that was given input, for which a
                conditional model needs the pair (`posterior_input_ids`); or `"fitted_prior"` if the model has one.
            latent_temperature (`float`, *optional*, defaults to 1.0): factor on the source's standard deviation; 0 decodes its
                mean.
            latent_spread (`str`, *optional*, defaults to `"independent"`): how the z of one input lie to each other.
                `"quasi_random"` covers the prior evenly, `"repelled"` keeps them apart in all directions, `"antithetic"` gives
                pairs of opposites. By itself each z follows the prior all the same, so a mean over them has no bias.
            num_return_sequences (`int`, *optional*, defaults to 1): sequences per input, each with its own z, whatever the
                decoding; with beams, the best beam of each z.
            num_samples (`int`, *optional*, defaults to 1): without any input, how many draws from the prior.
            average_latents (`int`, *optional*): write one text for each input, greedily, under the mean of p(y|x,z) over this
                many z (Sohn et al. 2015, section 3), in place of one text for each z.
            attributes (`dict`, *optional*): what the texts are to be like, by the names of the attributes that `set_attribute`
                gave the model, such as `{"sentiment": "positive", "tense": "past"}`: z is drawn from p(z|x) Π p(a|z). A value is
                for all inputs; a list of them has one for each.
            attribute_weight (`float`, *optional*, defaults to 10.0): the power of p(a|z). With 1, z is drawn from p(z|x,a) itself,
                and texts near the border between two labels come too; more is clearer.
            generator (`torch.Generator`, *optional*): source of the noise in z.
            source ([`EncodedSource`], *optional*): what `read_source` has made of x, so that it need not be read again.
            generation_config (`GenerationConfig`, *optional*): defaults to the model's, where the latent options may stand too.
            labels: ignored; `Seq2SeqTrainer(predict_with_generate=True)` passes them.
            kwargs: what else `read_source`, `encode` and `condition` of this model take, such as `prompt_input_ids`, or of a
                dialogue `same_speaker` and `act_labels`, the acts that the replies are to perform. Everything else is
                GenerationMixin's. `max_length` counts the start token and the new tokens. Without it and without `max_new_tokens`
                the model's `generation_config` says the length; if it says none, it is 128 new tokens. A text ends at the latest
                where the decoder's positions do.

        Returns:
            What GenerationMixin returns, rows of one input next to each other: the start token and the new tokens, never the
            prompt. With `return_dict_in_generate` the z of each row is beside them, as `latents`; with `average_latents` all z of a
            row and the `logits` under each, in succession.

        Raises:
            ValueError: an option out of range, an input that is missing or malformed, or `latents` of a wrong shape.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        for method in (self.read_source, self.encode, self.condition):
            for name in inspect.signature(method).parameters:
                if name in kwargs and name not in ("source", "with_prior"):
                    inputs[name] = kwargs.pop(name)
        # A conditional model has no argument of that name.
        embeddings = inputs.get("embeddings", kwargs.get("embeddings"))
        check_given(self.config, input_ids, embeddings)
        if embeddings is not None:
            inputs["embeddings"] = embeddings.to(self.device)
        options, model_kwargs = LatentGenerationOptions.resolve(
            self.generation_config,
            generation_config,
            latents,
            latent_source,
            latent_temperature,
            latent_spread,
            num_return_sequences,
            generator,
            kwargs,
            average_latents,
        )
        if attributes is not None and latents is not None:
            raise ValueError("`latents` are given, and `attributes` would have no effect: leave one of them out.")
        if source is not None:
            check_source(source)
        batch = self._batch_size(inputs, source, latents, num_samples)
        asked_for = AttributeEnergy.of(self.latent_attributes, attributes, attribute_weight, batch)
        reads_y = not self.config.is_conditional and any(inputs.get(name) is not None for name in ("input_ids", "embeddings"))
        origin = options.latent_source or ("posterior" if reads_y else "prior")
        if source is None:
            source = call_with(self.read_source, inputs, with_prior=latents is None and origin == "prior")
        conditioning = call_with(self.condition, inputs, source=source)
        if latents is None:
            # Several draws without input are one prior's.
            rows = batch if num_samples is None else 1
            latents = options.sample(self._latent_distribution(origin, source, rows, inputs), batch // rows, asked_for)
            if asked_for is not None:
                asked_for.warn_if_missed(latents)
            check_finite(f"z from `latent_source='{origin}'`", latents, "the model's weights hold NaN, or what it reads does")
        else:
            latents = options.validate(latents, batch, self.config.total_latent_size)
            check_finite("`latents`", latents, "give finite numbers")
        return self._write(latents, batch, conditioning, options, model_kwargs)

    def _latent_distribution(
        self, latent_source: str, source: EncodedSource, batch: int, inputs: dict[str, Any]
    ) -> LatentDistribution:
        """What `latent_source` names, one row for each input."""
        if latent_source == "posterior":
            return call_with(self.encode, inputs, source=source).latent_dist
        return self.prior_named(latent_source)(source, batch, self.device)

    def _batch_size(
        self, inputs: dict[str, Any], source: EncodedSource | None, latents: torch.Tensor | None, num_samples: int | None
    ) -> int:
        """How many inputs there are; for a model without x, how many rows are asked for."""
        rows = rows_of(**{name: tensor for name, tensor in inputs.items() if name.endswith("input_ids") or name == "embeddings"})
        if rows is None and source:
            rows = len(source)
        if num_samples is not None:
            if rows is not None or latents is not None or self.config.is_conditional:
                raise ValueError("`num_samples` is for drawing from the prior without input; use `num_return_sequences`.")
            check_count("num_samples", num_samples)
            return num_samples
        if self.config.is_conditional:
            # Without x, `read_source` and `condition` say what is missing.
            return rows or 0
        return rows or rows_of(latents=latents) or 1

    def _write(self, latents: torch.Tensor, batch: int, conditioning: dict, options: LatentGenerationOptions, model_kwargs: dict):
        """The decoder's text for each of `latents`, several in succession for each of `batch` rows of `conditioning`."""
        if self.decoder.recurrent:
            check_cache_implementation(options.config.cache_implementation)
        latents = latents.to(self.device)
        config = options.config
        rows_each = max(config.num_beams or 1, config.num_return_sequences or 1)
        # No cache, a cache of a certain kind and a prompt that is read in pieces are generation's own: each row reads its source.
        asks_for_more = config.use_cache is False or config.cache_implementation or config.prefill_chunk_size
        if len(latents) * rows_each > batch and not asks_for_more:
            conditioning = self.prefill(conditioning)
        decoder_latents, context_ids, context_mask, states = self._prepare_decoder_inputs(latents, batch, conditioning)
        source_cache = states.pop("source_cache", None)
        if source_cache is not None:
            # Only if it must be: a copy of what was read of long sources is most of the memory.
            model_kwargs[CACHE] = (source_cache.repeat(rows_each) if rows_each > 1 else source_cache).cache
        check_token("pad_token_id", options.config.pad_token_id, self.config.decoder)
        # Padding in front takes no position.
        longest = int(context_mask.sum(-1).max())
        options.config.max_new_tokens = self._new_tokens(options.config.max_new_tokens, longest)
        step = options.average_latents or 1
        processors: list[Any] = [RefuseNaN(rows_each)]
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
            source_length=self.source_length(context_ids),
            generation_config=options.config,
            **states,
            **model_kwargs,
        )
        prompt = context_ids.shape[1] - 1
        if isinstance(output, ModelOutput):
            rows = len(output["sequences"])
            output["sequences"] = output["sequences"][::step, prompt:]
            if step > 1 and output.get("scores") is not None:
                # All z of a row have the scores of their mean.
                output["scores"] = tuple(each[::step] for each in output["scores"])
            # Outputs may share a z.
            output["latents"] = latents.repeat_interleave(rows // len(latents), 0)
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

    def _prepare_decoder_inputs(self, latents, batch: int, conditioning) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict]:
        """For each of `latents`: what the decoder reads as its latent, `[prompt, start]`, its mask, and what it reads besides."""
        rows = latents.shape[0]
        repeated = repeat_rows(conditioning, rows // batch)
        decoder_latents, repeated = self.decoder_latents(latents, **repeated)
        context_ids, context_mask, states = self.decoder_prompt(rows, **repeated)
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
            token's, in the decoder's dtype. With `latent_placement="after_source"` the prompt's come first, so a server that keeps
            what it has read of a prompt reads it once for all z.

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
        latents = shaped_latents(latents, None, self.config.total_latent_size)
        conditioning = self.condition(**inputs)
        batch = next(iter(conditioning.values())).shape[0] if conditioning else 1
        if latents.shape[0] % batch:
            raise ValueError(f"`latents` has {latents.shape[0]} rows, and there are {batch} inputs: give each as many.")
        latents, ids, mask, states = self._prepare_decoder_inputs(latents.to(self.device), batch, conditioning)
        if states:
            raise ValueError(f"The decoder reads {' and '.join(states)} besides its prompt; a server has no place for that.")
        if not mask.all():
            raise ValueError("`prompt_attention_mask` has padding, and a prompt of embeddings no mask: give prompts of one length.")
        return self.decoder.prompt_embeds(cast(torch.LongTensor, ids), latents, self.source_length(ids))
