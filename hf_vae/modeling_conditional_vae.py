"""What all conditional models share: q(z|x,y) reads the pair, p(y|x,z) sees the source x."""

import math

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from .configuration_conditional_vae import ConditionalVAEConfig
from .encoders import build_encoder, pool, read_text
from .generation_options import LatentGenerationOptions
from .modeling_vae import LatentOutput, VAEModel, VAEOutput, sentence_nats


class ConditionalVAEModel(VAEModel):
    r"""
    Base of the conditional models: q(z|x,y), the prior N(0, I), p(y|x,z). The decoder sees x as `config.source_conditioning`
    says; unless as a prompt, through the encoder that serves q, or its own `source_encoder` (`tie_encoders=False`).
    """

    config: ConditionalVAEConfig

    def __init__(
        self,
        config: ConditionalVAEConfig,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ):
        super().__init__(config, encoder, decoder)
        if config.source_conditioning != "prompt":
            able = {"cross_attention": self.decoder.takes_encoder_states, "initial_state": self.decoder.recurrent}
            if not able[config.source_conditioning]:
                lacks = {"cross_attention": "cross-attention", "initial_state": "state to start from"}[config.source_conditioning]
                raise ValueError(
                    f"`source_conditioning={config.source_conditioning!r}`: {type(self.decoder.lm).__name__} has no {lacks}. "
                    "Choose 'prompt', which works with any decoder."
                )
            if not config.tie_encoders:
                reads_pooled = config.source_conditioning == "initial_state"
                pooling = config.pooling if reads_pooled else "mean"
                self.source_encoder = build_encoder(config.encoder, pooling, dtype=self.encoder.dtype)
                if encoder is not None:
                    # A copy of what was pretrained; a pooler, which nothing reads here, stays behind.
                    self.source_encoder.load_state_dict(encoder.state_dict(), strict=False)
            self.source_projection = nn.Linear(self.encoder_hidden_size, self.context_size, dtype=self.encoder.dtype)
            self.post_init()

    @staticmethod
    def prepare_decoder_config(config: ConditionalVAEConfig) -> None:
        VAEModel.prepare_decoder_config(config)
        if config.source_conditioning == "cross_attention":
            config.decoder.add_cross_attention = True

    # q(z|x,y) -------------------------------------------------------------------------------------------------------------

    def encode(
        self,
        posterior_input_ids: torch.LongTensor | None,
        posterior_attention_mask: torch.Tensor | None = None,
        posterior_token_type_ids: torch.LongTensor | None = None,
    ) -> LatentOutput:
        """
        The recognition network q(z|x,y).

        Args:
            posterior_input_ids (`torch.LongTensor` of shape `(batch, pair)`): x and y together, in the encoder's vocabulary.
            posterior_attention_mask (`torch.Tensor` of shape `(batch, pair)`, *optional*): 0 on padding.
            posterior_token_type_ids (`torch.LongTensor` of shape `(batch, pair)`, *optional*): which of the two a token is of.

        Returns:
            [`LatentOutput`] whose `latent_dist` has one row per example.

        Raises:
            ValueError: the pair is missing, a row is padding only, or longer than the encoder holds.
        """
        if posterior_input_ids is None:
            raise ValueError(
                "`posterior_input_ids` is missing: q(z|x,y) reads source and target together. The processor makes it where "
                "`text_target` is given."
            )
        return LatentOutput(
            latent_dist=self._posterior(
                "posterior_input_ids", posterior_input_ids, posterior_attention_mask, posterior_token_type_ids
            )
        )

    # p(y|x,z) -------------------------------------------------------------------------------------------------------------

    def condition(
        self,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """
        How the decoder sees x, one row per example: as the prompt, as the states of the encoder that reads it, or as the state to
        start from.

        Raises:
            ValueError: x is missing in the form that `config.source_conditioning` asks for.
        """
        source = self._source(prompt_input_ids, input_ids)
        if self.config.source_conditioning == "prompt":
            return super().condition(prompt_input_ids, prompt_attention_mask)
        encoder = self.encoder if self.config.tie_encoders else self.source_encoder
        states, pooler_output = read_text("input_ids", encoder, source, attention_mask)
        if self.config.source_conditioning == "initial_state":
            pooled = pool(self.config.pooling, states, pooler_output, attention_mask)
            return {"initial_state": self.source_projection(pooled).to(self.decoder.dtype)}
        mask = torch.ones_like(source) if attention_mask is None else attention_mask
        projected = self.source_projection(states).to(self.decoder.dtype)
        return {"encoder_hidden_states": projected, "encoder_attention_mask": mask}

    @property
    def context_size(self) -> int:
        if self.config.source_conditioning == "initial_state":
            return sum(map(math.prod, self.decoder.state_shapes))
        return self.decoder.embedding_size

    def _context_vector(self, conditioning: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the decoder sees of x before it reads it: the mean of the prompt's embeddings or encoder's states, or its state."""
        if self.config.source_conditioning == "initial_state":
            return conditioning["initial_state"]
        if self.config.source_conditioning == "prompt":
            states = self.decoder.get_input_embeddings()(conditioning["prompt_input_ids"])
            return pool("mean", states, None, conditioning.get("prompt_attention_mask"))
        return pool("mean", conditioning["encoder_hidden_states"], None, conditioning["encoder_attention_mask"])

    def _source(self, prompt_input_ids: torch.Tensor | None, input_ids: torch.Tensor | None) -> torch.Tensor:
        """x in the form that the decoder sees."""
        conditioning = self.config.source_conditioning
        name, source = ("prompt_input_ids", prompt_input_ids) if conditioning == "prompt" else ("input_ids", input_ids)
        if source is None:
            raise ValueError(f"`{name}` is missing: with `source_conditioning={conditioning!r}` it is the source.")
        return source

    # The objective --------------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        posterior_input_ids: torch.LongTensor | None = None,
        posterior_attention_mask: torch.Tensor | None = None,
        posterior_token_type_ids: torch.LongTensor | None = None,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_logits: bool | None = None,
        return_dict: bool | None = None,
    ) -> VAEOutput | tuple:
        r"""
        The negative conditional ELBO, \(-\log p(y|x,z) + \beta\,\mathrm{KL}(q(z|x,y) \,\|\, p(z))\) with one sample of z, scaled as
        [`VAEModel.forward`] says. With `config.objective="gsnn"`, q is the prior; with `"hybrid"` training adds a second sample of
        z, from the prior (Sohn et al. 2015).

        Args:
            input_ids, attention_mask (`(batch, source)`): x in the encoder's vocabulary.
            posterior_input_ids, posterior_attention_mask, posterior_token_type_ids (`(batch, pair)`): x and y together.
            prompt_input_ids, prompt_attention_mask (`(batch, prompt)`): x in the decoder's vocabulary.
            labels, latents, num_items_in_batch, output_logits: as in [`VAEModel.forward`].

        Returns:
            [`VAEOutput`].

        Raises:
            ValueError: `labels`, the pair or the source is missing, or an input is malformed.
        """
        labels = self._check_labels(labels)
        posterior = prior = None
        if latents is None:
            prior = self.prior(labels.shape[0]).latent_dist
            posterior = prior
            if self.config.objective != "gsnn":
                posterior = self.encode(posterior_input_ids, posterior_attention_mask, posterior_token_type_ids).latent_dist
        conditioning = self.condition(prompt_input_ids, prompt_attention_mask, input_ids, attention_mask)
        return self._objective(labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict)

    def _training_objective(self, objective, output, labels, prior, conditioning) -> torch.Tensor:
        if self.config.objective != "hybrid":
            return objective
        logits = self.decode(prior.sample(), labels, **conditioning)
        output.prior_reconstruction_loss = sentence_nats(logits, labels)
        alpha = self.config.hybrid_alpha
        return alpha * objective + (1 - alpha) * output.prior_reconstruction_loss

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        posterior_input_ids: torch.LongTensor | None = None,
        posterior_attention_mask: torch.Tensor | None = None,
        posterior_token_type_ids: torch.LongTensor | None = None,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        latent_source: str | None = None,
        latent_temperature: float | None = None,
        num_return_sequences: int | None = None,
        generator: torch.Generator | None = None,
        generation_config: GenerationConfig | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ):
        """
        Texts given x, each decoded from its own z: as [`VAEModel.generate`], but the default `latent_source` is the prior, and
        the posterior needs `posterior_input_ids`, the pair whose z is wanted. x is encoded once, however many sequences.
        """
        options, model_kwargs = LatentGenerationOptions.settle(
            self.generation_config, generation_config, latents, latent_source, latent_temperature, num_return_sequences, kwargs
        )
        batch = self._source(prompt_input_ids, input_ids).shape[0]
        if latents is not None:
            latents = options.accept(latents, batch, self.config.latent_size)
        elif options.latent_source == "posterior":
            posterior = self.encode(posterior_input_ids, posterior_attention_mask, posterior_token_type_ids).latent_dist
            latents = options.draw(posterior, generator)
        else:
            latents = self._draw_from_prior(batch, options, generator)
        conditioning = self.condition(prompt_input_ids, prompt_attention_mask, input_ids, attention_mask)
        return self._generate(latents, batch, conditioning, options, model_kwargs)


__all__ = ["ConditionalVAEModel"]
