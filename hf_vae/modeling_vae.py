"""The text VAE: q(z|y), p(z) = N(0, I), p(y|z), and the ELBO between them. The base of the conditional models."""

from typing import Any, cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, initialization
from transformers.utils import logging

from .bag_of_words import BagOfWordsHead
from .checks import check_rows, float_latents
from .configuration_lstm import LSTMConfig
from .configuration_vae import VAEConfig
from .encoders import (
    build_encoder,
    check_attention_mask,
    check_length,
    check_mask,
    check_padding_side,
    check_tokens,
    pool,
    read_text,
)
from .fitted_prior import GaussianMixturePrior
from .gaussian import FREE_BITS, DiagonalGaussian, distance_to_capacity
from .gaussian_head import FixedScaleBatchNorm, GaussianHead
from .generation_options import LatentGenerationOptions, composite_generation_config, end_tokens
from .latent_generation import LatentGenerationMixin
from .modeling_latent_decoder import LatentDecoder
from .modeling_lstm import register_lstm
from .modeling_outputs import LatentOutput, VAEOutput
from .parts import has_adapter, own_configuration, refuse_looking_ahead, refuse_other_kinds, refuse_shared_weights
from .pipelines import LatentTextGenerationPipeline
from .pretrained_parts import PretrainedParts
from .vocabulary_loss import linear_nats, output_layer, sentence_nats, without_logits

logger = logging.get_logger(__name__)


class VAEModel(PretrainedParts, PreTrainedModel, LatentGenerationMixin):
    r"""
    A variational autoencoder of text (Bowman et al. 2015; Li et al. 2020): an encoder proposes q(z|y), a causal LM that reads z
    models p(y|z), the prior is N(0, I).

    Args:
        config ([`VAEConfig`]): configuration; `config.encoder` and `config.decoder` become those of the parts.
        encoder (`PreTrainedModel`, *optional*): any `AutoModel` encoder, built from `config.encoder` where not given.
        decoder (`PreTrainedModel`, *optional*): any causal LM, built from `config.decoder` where not given.
    """

    config: VAEConfig
    main_input_name = "input_ids"
    pipeline_class: type[LatentTextGenerationPipeline] = LatentTextGenerationPipeline
    # The Trainer then hands `num_items_in_batch` to `forward` and leaves the division to it.
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: VAEConfig, encoder: PreTrainedModel | None = None, decoder: PreTrainedModel | None = None):
        expected = cast(type[VAEConfig], self.config_class).model_type
        if getattr(config, "model_type", None) != expected:
            raise ValueError(f"`config` is a {type(config).__name__}; {type(self).__name__} takes one of type {expected!r}.")
        refuse_other_kinds(encoder, decoder)
        config = own_configuration(config, encoder, decoder)
        for part in (config.encoder, config.decoder):
            # Without the package a configuration brings its own copy of `LSTMConfig` along, which no Auto class knows yet.
            if part.model_type == LSTMConfig.model_type:
                register_lstm(type(part))
        reads_both_ways = decoder is not None and not getattr(decoder.config, "is_decoder", True)
        self.prepare_decoder_config(config)
        super().__init__(config)
        self.encoder = build_encoder(config.encoder, config.pooling) if encoder is None else encoder
        self.decoder = LatentDecoder(
            config.decoder, config.decoder_latent_size, decoder, config.latent_injection, config.prefix_length
        )
        if reads_both_ways:
            refuse_looking_ahead(self.decoder.lm)
        # The very objects, so that whatever changes a part's configuration changes the composite's.
        config.encoder, config.decoder = self.encoder.config, self.decoder.config
        self.posterior = GaussianHead(
            self.recognition_size,
            config.latent_size,
            dtype=self.encoder.dtype,
            bias=config.posterior_bias,
            batch_norm_gamma=config.batch_norm_gamma,
        )
        if config.bow_loss_weight:
            self.bow = BagOfWordsHead(
                config.latent_size,
                self.context_size,
                self.decoder.embedding_size,
                config.decoder.get_text_config().vocab_size,
                dtype=self.decoder.dtype,
            )
            self.decoder.heads_by_word.append(self.bow)
        # Until a training has begun with what belongs together.
        self.parts_were_checked = False
        # Until the decoder is seen to do something to its output layer's logits.
        self.head_comes_last = True
        self.fitted_prior: GaussianMixturePrior | None = None
        if config.fitted_prior_components is not None:
            self.fitted_prior = GaussianMixturePrior(config.fitted_prior_components, config.latent_size)
        # A buffer, because it changes at every step and a Python number would recompile the graph; not in the checkpoint,
        # because it follows from the step.
        self.kl_weight: torch.Tensor
        self.register_buffer("kl_weight", torch.ones((), dtype=torch.float32), persistent=False)
        self.post_init()
        self.generation_config = composite_generation_config(config, self.decoder.lm.generation_config)
        if self._auto_class is not None:
            # Saving notes one Auto class of its own accord; this is the second one, and the pipeline.
            name = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
            config.auto_map = {"AutoModelForSeq2SeqLM": name, **(getattr(config, "auto_map", None) or {})}
            implementation = f"{self.pipeline_class.__module__.rpartition('.')[2]}.{self.pipeline_class.__name__}"
            task = {"impl": implementation, "pt": ["AutoModel"], "type": "text"}
            config.custom_pipelines = {self.pipeline_class.default_task: task}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            # Models are built without storage: what no checkpoint holds must be set here.
            initialization.ones_(self.kl_weight)
        elif isinstance(module, FixedScaleBatchNorm):
            module.init_weights()
        elif isinstance(module, GaussianMixturePrior):
            module.reset_parameters()

    def initialize_weights(self):
        # In a model that is not transformers' own, a module without tensors of its own counts as initialised, and what it would
        # set in its layers stays unset (Falcon-H1's multipliers, after loading). By itself each part is done right.
        for part in self.modules():
            if isinstance(part, PreTrainedModel) and not part.is_custom_code():
                part.initialize_weights()
        super().initialize_weights()

    @staticmethod
    def prepare_decoder_config(config: VAEConfig) -> None:
        """Asks the decoder's configuration for what this model needs of it, before the decoder is built."""
        if hasattr(config.decoder, "is_decoder"):
            # Models of BERT's kind otherwise look at the words that they are to predict.
            config.decoder.is_decoder = True

    @property
    def device(self) -> torch.device:
        # The weights of a part that is offloaded are nowhere until it runs; accelerate's hook knows where that will be.
        place = getattr(getattr(self, "_hf_hook", None), "execution_device", None)
        return next(self.parameters()).device if place is None else torch.device(place)

    @property
    def encoder_hidden_size(self) -> int:
        return self.config.encoder.get_text_config().hidden_size

    @property
    def recognition_size(self) -> int:
        """Width of the vector that the posterior's head reads."""
        return self.encoder_hidden_size

    @property
    def context_size(self) -> int:
        """Width of the one vector of x that auxiliary heads read; a VAE has no x."""
        return 0

    @property
    def inference_modules(self) -> list[nn.Module]:
        """What q alone uses, and p does not."""
        return [self.posterior, self.encoder]

    @property
    def latent_modules(self) -> list[nn.Module]:
        """What only the distributions of z use: nothing of it takes part where z is given."""
        return [self.posterior, self.encoder]

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module):
        self.decoder.set_output_embeddings(value)

    def resize_token_embeddings(self, *args, **kwargs):
        """
        Refused: encoder and decoder have a vocabulary each.

        Raises:
            NotImplementedError: always; it names what to call.
        """
        raise NotImplementedError(
            "Encoder and decoder have a vocabulary each: call `model.encoder.resize_token_embeddings` or "
            "`model.decoder.resize_token_embeddings`."
        )

    def check_parts(self) -> None:
        """
        Raises a `ValueError` if something was done to one part that the others have not followed: a vocabulary that was resized
        past its decoder, a weight that two came to have.
        """
        # Not `named_children`, which passes over a module that has two names.
        refuse_shared_weights({name: part for name, part in self._modules.items() if part is not None})
        self.config.validate_tokens()
        self.check_vocabulary()

    def check_vocabulary(self) -> None:
        """Raises a `ValueError` if the decoder's vocabulary was resized and the bag of words has not followed."""
        if not self.config.bow_loss_weight:
            return
        vocabulary = self.config.decoder.get_text_config().vocab_size
        if self.bow.words.out_features != vocabulary:
            raise ValueError(
                f"The decoder's vocabulary has {vocabulary} tokens and the bag of words {self.bow.words.out_features}: call "
                f"`model.decoder.resize_token_embeddings({vocabulary})`, which resizes both, before an optimizer is made."
            )

    def save_pretrained(self, save_directory, *args, **kwargs):
        """
        As `PreTrainedModel.save_pretrained`, without the parts in `config.frozen_parts`.

        Raises:
            ValueError: parts that do not go together, which could not be loaded as what they are.
        """
        self.check_parts()
        if has_adapter(self) and not self._hf_peft_config_loaded:
            raise ValueError(
                "A part of the model carries an adapter of peft, and its weights would not be found again: merge it "
                "(`merge_and_unload`), or save the `PeftModel` that holds it."
            )
        return super().save_pretrained(save_directory, *args, **kwargs)

    def _check_training(self, labels: torch.Tensor) -> None:
        """As a training begins: whether the parts go together, and a warning if no text that is generated would end."""
        if torch.compiler.is_compiling() or not self.training or self.parts_were_checked:
            return
        self.check_parts()
        last = [row[row != -100][-1].item() for row in labels]
        ends = end_tokens(self.generation_config.eos_token_id)
        if len(last) > 1 and len(set(last)) == 1 and last[0] not in ends:
            logger.warning(
                f"Every row of `labels` ends with token {last[0]}, and `generate` waits for {ends or 'none'}: no text would end. "
                f"Set `model.config.eos_token_id` and `model.generation_config.eos_token_id` to {last[0]}, the EOS of the "
                "processor's tokenizer, or end the labels with the model's EOS."
            )
        self.parts_were_checked = True

    # q(z|y) ---------------------------------------------------------------------------------------------------------------

    def encode(
        self,
        input_ids: torch.LongTensor | None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
    ) -> LatentOutput:
        """
        The posterior q(z|y).

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, source)`): y in the encoder's vocabulary.
            attention_mask (`torch.Tensor` of shape `(batch, source)`, *optional*): 0 on padding.

        Returns:
            [`LatentOutput`] whose `latent_dist` has one row per example.

        Raises:
            ValueError: no input, a row of padding only, or more tokens than the encoder holds.
        """
        if input_ids is None:
            raise ValueError("`input_ids` is missing: q(z|y) reads y.")
        return LatentOutput(latent_dist=self._posterior("input_ids", input_ids, attention_mask, token_type_ids))

    def _posterior(
        self,
        name: str,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
    ) -> DiagonalGaussian:
        check_padding_side(name.replace("input_ids", "attention_mask"), attention_mask)
        hidden_states, pooler_output = read_text(name, self.encoder, input_ids, attention_mask, token_type_ids)
        pooled = pool(self.config.pooling, hidden_states, pooler_output, attention_mask)
        return self.posterior(pooled)

    # p(z) -----------------------------------------------------------------------------------------------------------------

    def prior(self, batch_size: int) -> LatentOutput:
        """The prior N(0, I), `batch_size` rows of it."""
        return LatentOutput(latent_dist=DiagonalGaussian.standard(batch_size, self.config.latent_size, self.device))

    def set_fitted_prior(self, prior: GaussianMixturePrior) -> None:
        """
        Keeps a prior that was fitted to this model's codes: it is saved with the model, and
        `generate(latent_source="fitted_prior")` draws from it.

        Raises:
            ValueError: no such prior, or one over another number of dimensions.
        """
        if not isinstance(prior, GaussianMixturePrior):
            raise ValueError(
                f"`prior` is a {type(prior).__name__}; fit a `GaussianMixturePrior` with `hf_vae.latent_space.fit_prior`."
            )
        if prior.latent_size != self.config.latent_size:
            raise ValueError(f"`prior` is over {prior.latent_size} dimensions; the model's z has {self.config.latent_size}.")
        self.config.fitted_prior_components = prior.num_components
        self.fitted_prior = prior.to(self.device)

    # p(y|z) ---------------------------------------------------------------------------------------------------------------

    def decode(self, latents: torch.Tensor, labels: torch.LongTensor, **conditioning) -> torch.Tensor:
        """
        Logits of y given z, with teacher forcing. Of the words that the decoder reads, `config.word_dropout` of them are hidden in
        training; an inputless decoder (a rate of 1) reads none at any time.

        Args:
            latents (`torch.Tensor` of shape `(batch, latent_size)`).
            labels (`torch.LongTensor` of shape `(batch, target)`): y in the decoder's vocabulary, -100 on padding.
            conditioning: what else the decoder is given, as [`~VAEModel.forward`] names it.

        Returns:
            `torch.Tensor` of shape `(batch, target, vocab)`; `[:, t]` predicts `labels[:, t]`.

        Raises:
            ValueError: `latents`, `labels` or what else is given are malformed, or differ in their number of rows.
        """
        latents = self._check_latents(latents, labels)
        latents, conditioning = self._decoder_latents(latents, **conditioning)
        target = labels[:, :-1]
        observed = target != -100
        words = target.masked_fill(~observed, cast(int, self.config.pad_token_id))
        if self.config.inputless:
            words = words.masked_fill(observed, cast(int, self.config.word_dropout_token_id))
        elif self.training and self.config.word_dropout:
            dropped = torch.rand(words.shape, device=words.device) < self.config.word_dropout
            words = words.masked_fill(dropped & observed, cast(int, self.config.word_dropout_token_id))
        context_ids, context_mask, states = self._decoder_context(labels.shape[0], **conditioning)
        input_ids = torch.cat([context_ids, words], dim=1)
        attention_mask = torch.cat([context_mask, observed.to(context_mask)], dim=1)
        check_length("prompt, start token and target together", attention_mask, self.config.decoder)
        outputs = self.decoder(
            input_ids=input_ids,
            latents=latents,
            attention_mask=attention_mask,
            # Counted as `generate` counts them, whatever stands in front of the first token.
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=labels.shape[1],
            **states,
        )
        return outputs.logits

    def _check_latents(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One z for each of `labels`, where these are and in a float's precision."""
        latents = float_latents(latents)
        expected = (labels.shape[0], self.config.latent_size)
        if latents.shape != expected:
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}; expected {expected}.")
        return latents.to(labels.device)

    def nll(self, latents: torch.Tensor, labels: torch.LongTensor, **conditioning) -> torch.Tensor:
        """
        -log p(y|x,z) of each row, nats per sentence: arguments as of [`~VAEModel.decode`], result of shape `(batch,)`. Of a large
        vocabulary, only a few tokens' logits are ever held at once.
        """
        layer = output_layer(self.decoder.lm, labels) if self.head_comes_last else None
        if layer is not None:
            with without_logits(layer) as head:
                logits = self.decode(latents, labels, **conditioning)
            if head.are_all(logits, labels):
                return linear_nats(layer, cast(torch.Tensor, head.states), labels)
            self.head_comes_last = False
        return sentence_nats(self.decode(latents, labels, **conditioning), labels)

    def _decoder_latents(self, latents: torch.Tensor, **conditioning) -> tuple[torch.Tensor, dict[str, Any]]:
        """What the decoder reads as its latent, `(batch, config.decoder_latent_size)`, and the conditioning that is left."""
        return latents, conditioning

    def _decoder_context(
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

    # The objective --------------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_logits: bool | None = None,
        return_dict: bool | None = None,
    ) -> VAEOutput | tuple:
        r"""
        The negative ELBO, \(\sum_t -\log p(y_t|y_{<t},z) + \beta\,\mathrm{KL}(q(z|y) \,\|\, p(z))\) in nats per sentence with one
        sample of z, summed over the batch and divided once by the number of target tokens.

        Args:
            input_ids, attention_mask, token_type_ids (`(batch, source)`): y in the encoder's vocabulary.
            labels (`torch.LongTensor` of shape `(batch, target)`): y in the decoder's vocabulary with EOS, -100 on padding, not
                shifted.
            prompt_input_ids, prompt_attention_mask (`(batch, prompt)`, *optional*): a prompt in the decoder's vocabulary.
            latents (`torch.Tensor` of shape `(batch, latent_size)`, *optional*): decode this z; the encoder is not run, there is
                no KL, and the loss is the reconstruction's, in training with the bag of words' where the model has one.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*): target tokens of the whole accumulated batch over all
                processes, as the Trainer counts them; defaults to those of `labels`.
            output_logits (`bool`, *optional*): defaults to `True` in evaluation mode only.

        Returns:
            [`VAEOutput`]. In training β is `kl_weight`, free bits or a capacity apply, and the bag-of-words loss is added; in
            evaluation the loss is the true negative ELBO.

        Raises:
            ValueError: `labels` are missing, or an input is malformed.
        """
        labels = self._check_labels(labels)
        check_rows(labels.shape[0], input_ids=input_ids, attention_mask=attention_mask, prompt_input_ids=prompt_input_ids)
        posterior = prior = None
        if latents is None:
            posterior = self.encode(input_ids, attention_mask, token_type_ids).latent_dist
            prior = self.prior(labels.shape[0]).latent_dist
        conditioning = self.condition(prompt_input_ids, prompt_attention_mask)
        return self._objective(labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict)

    def condition(
        self, prompt_input_ids: torch.LongTensor | None = None, prompt_attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """What the decoder is given besides z and the start token, one row per example."""
        given = {"prompt_input_ids": prompt_input_ids, "prompt_attention_mask": prompt_attention_mask}
        return {name: tensor for name, tensor in given.items() if tensor is not None}

    def _objective(
        self, labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict
    ) -> VAEOutput | tuple:
        """`forward` from q and p, or from given `latents`, on: the same for every model of the family."""
        latents = posterior.sample() if latents is None else self._check_latents(latents, labels)
        output = VAEOutput()
        with_logits = not self.training if output_logits is None else output_logits
        objective = self._generation_nats(latents, labels, conditioning, output, with_logits)
        if posterior is not None:
            kl = posterior.kl(prior)
            output.kl = kl.sum(-1)
            output.posterior_mean, output.posterior_logvar = posterior.mean, posterior.logvar
            output.prior_mean, output.prior_logvar = prior.mean, prior.logvar
            objective = objective + (self.kl_weight * self._charged(kl) if self.training else output.kl)
        if self.config.bow_loss_weight:
            output.bow_loss = self.bow(latents, self._context_vector(conditioning), labels)
            if self.training:
                objective = objective + self.config.bow_loss_weight * output.bow_loss
        if self.training and posterior is not None:
            objective = self._training_objective(objective, output, labels, prior, conditioning)
        tokens = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        output.loss = objective.sum() / tokens
        # In the order of the fields, by which the Trainer hands outputs on, and not in the order in which they were computed.
        output = VAEOutput(**output)
        return output.to_tuple() if return_dict is False else output

    def _generation_nats(self, latents, labels, conditioning, output: VAEOutput, with_logits: bool = False) -> torch.Tensor:
        """What is charged for y given z, nats per sentence `(batch,)`; `output` gets its parts."""
        if with_logits:
            output.logits = self.decode(latents, labels, **conditioning)
            output.reconstruction_loss = sentence_nats(output.logits, labels)
        else:
            output.reconstruction_loss = VAEModel.nll(self, latents, labels, **conditioning)
        return output.reconstruction_loss

    def _training_objective(self, objective, output, labels, prior, conditioning) -> torch.Tensor:
        """What training minimises, `(batch,)`, given the negative ELBO with all that the configuration does to it."""
        return objective

    def _charged(self, kl: torch.Tensor) -> torch.Tensor:
        """What training charges for a KL of shape `(batch, latent_size)`: shape `(batch,)`, nats per sentence."""
        if self.config.capacity is not None:
            return distance_to_capacity(kl, self.config.capacity)
        return FREE_BITS[self.config.free_bits_per](kl, self.config.free_bits)

    def _context_vector(self, conditioning: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """One vector `(batch, context_size)` of x."""
        return None

    def _check_labels(self, labels: torch.LongTensor | None) -> torch.LongTensor:
        if labels is None:
            raise ValueError(
                "`labels` is missing: the objective needs y. (With `label_smoothing_factor` or `compute_loss_func` the Trainer "
                "takes `labels` away before the model sees them; an ELBO has no label smoothing, leave both unset.) To generate "
                "text, call `generate`."
            )
        check_tokens("labels", labels, self.decoder.config)
        if not torch.compiler.is_compiling():
            self.check_vocabulary()
            empty = (labels == -100).all(-1).nonzero().flatten().tolist()
            if empty:
                raise ValueError(f"`labels` is all padding in row(s) {empty}: every row needs at least one token.")
        self._check_training(labels)
        return labels

    # Generation -----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        latent_source: str | None = None,
        latent_temperature: float | None = None,
        num_return_sequences: int | None = None,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
        generation_config: GenerationConfig | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ):
        r"""
        Texts, each decoded from its own z.

        Args:
            input_ids, attention_mask, token_type_ids (`(batch, source)`, *optional*): texts in the encoder's vocabulary.
            prompt_input_ids, prompt_attention_mask (`(batch, prompt)`, *optional*): a prompt in the decoder's vocabulary.
            latents (`torch.Tensor` of shape `(rows, latent_size)`, *optional*): the z to decode, one per returned sequence; or one
                per input, whose sequences then share it and differ by sampling or beams.
            latent_source (`str`, *optional*): `"posterior"` (default where there is input), `"prior"`, or `"fitted_prior"` where
                the model has one.
            latent_temperature (`float`, *optional*, defaults to 1.0): factor on the source's standard deviation; 0 decodes its
                mean.
            num_return_sequences (`int`, *optional*, defaults to 1): sequences per input, each with its own z, whatever the
                decoding; with beams, the best beam of each z.
            num_samples (`int`, *optional*, defaults to 1): without any input, how many draws from the prior.
            generator (`torch.Generator`, *optional*): source of the noise in z.
            generation_config (`GenerationConfig`, *optional*): defaults to the model's, where the latent options may stand too.
            labels: ignored; `Seq2SeqTrainer(predict_with_generate=True)` passes them.
            kwargs: everything else is GenerationMixin's. `max_length` counts the start token and the new tokens. Without it and
                without `max_new_tokens` the model's `generation_config` says the length; if it says none, it is 128 new tokens. A
                text ends where the decoder's positions do.

        Returns:
            What GenerationMixin returns, rows of one input next to each other: the start token and the new tokens, never the
            prompt. With `return_dict_in_generate` the z of each row is beside them, as `latents`.

        Raises:
            ValueError: an option out of range, or `latents` of a wrong shape.
        """
        options, model_kwargs = LatentGenerationOptions.settle(
            self.generation_config,
            generation_config,
            latents,
            latent_source,
            latent_temperature,
            num_return_sequences,
            generator,
            kwargs,
        )
        batch = self._batch_size(latents, num_samples, input_ids=input_ids, prompt_input_ids=prompt_input_ids)
        source = options.latent_source or ("prior" if input_ids is None else "posterior")
        latents = self._settle_latents(
            latents,
            source,
            batch,
            options,
            posterior=lambda: self.encode(input_ids, attention_mask, token_type_ids).latent_dist,
            prior=lambda: self.prior(batch).latent_dist,
        )
        conditioning = self.condition(prompt_input_ids, prompt_attention_mask)
        return self._generate(latents, batch, conditioning, options, model_kwargs)


__all__ = ["LatentOutput", "VAEModel", "VAEOutput"]
