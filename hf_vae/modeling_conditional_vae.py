"""What all conditional models share: q(z|x,y) reads the pair, p(y|x,z) sees the source x."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .checks import check_rows
from .configuration_conditional_vae import ConditionalVAEConfig
from .cross_attention_check import check_cross_attention
from .encoders import build_encoder, check_padding_side, pool, read_text, read_visible
from .gaussian import DiagonalGaussian
from .latent_distribution import LatentDistribution
from .modeling_outputs import ConditionalVAEOutput, LatentOutput, VAEOutput
from .modeling_vae import VAEModel
from .objective import hybrid, kl_divergence
from .prior import build_prior
from .source import EncodedSource, check_source, hide_tokens


class ConditionalVAEModel(VAEModel):
    r"""
    Base of the conditional models: q(z|x,y), p(z|x) or N(0, I), p(y|x,z). The decoder sees x as `config.source_conditioning`
    says. If the decoder or the prior reads x through an encoder, it is the one that serves q, or with `tie_encoders=False` a
    `source_encoder` of their own.
    """

    config: ConditionalVAEConfig
    output_class = ConditionalVAEOutput

    def __init__(
        self,
        config: ConditionalVAEConfig,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ):
        super().__init__(config, encoder, decoder)
        config = self.config
        if config.source_conditioning != "prompt":
            able = {"cross_attention": self.decoder.supports_cross_attention, "initial_state": self.decoder.recurrent}
            if not able[config.source_conditioning]:
                lacks = {"cross_attention": "cross-attention", "initial_state": "state to start from"}[config.source_conditioning]
                raise ValueError(
                    f"`source_conditioning={config.source_conditioning!r}`: {type(self.decoder.lm).__name__} has no {lacks}. "
                    "Choose 'prompt', which works with any decoder."
                )
            read = self.source_size if config.source_conditioning == "initial_state" else self.encoder_hidden_size
            if config.source_conditioning == "cross_attention":
                check_cross_attention(self.decoder)
            self.source_projection = nn.Linear(read, self.projection_size, dtype=self.encoder.dtype)
        if not config.tie_encoders:
            pooling = config.vector_pooling if self.pools_source else "mean"
            self.source_encoder = build_encoder(copy.deepcopy(config.encoder), pooling, dtype=self.encoder.dtype)
            if encoder is not None:
                # A copy of what was pretrained; a pooler, which nothing reads here, stays behind.
                self.source_encoder.load_state_dict(encoder.state_dict(), strict=False)
        if config.prior_reads_source:
            self.prior_network = build_prior(config, self.source_size, dtype=self.encoder.dtype)
        if not config.has_posterior:
            # Nothing is drawn from q, and distributed training waits for the gradient of every weight that is trained.
            for module in self.inference_modules:
                module.requires_grad_(False)
        self.post_init()

    @staticmethod
    def prepare_decoder_config(config: ConditionalVAEConfig) -> None:
        VAEModel.prepare_decoder_config(config)
        if config.source_conditioning == "cross_attention":
            config.decoder.add_cross_attention = True

    def check_parts(self) -> None:
        super().check_parts()
        if self.config.tie_encoders:
            return
        of_q, of_source = (part.config.get_text_config().vocab_size for part in (self.encoder, self.source_encoder))
        if of_q != of_source:
            raise ValueError(
                f"`model.encoder` has a vocabulary of {of_q} tokens and `model.source_encoder` of {of_source}, and one tokenizer "
                "serves both: call `resize_token_embeddings` of both."
            )

    def add_prior_network(self) -> None:
        """
        Puts a fresh p(z|x) in the place of N(0, I), and says so in the configuration. `fit_conditional_prior` of `hf_vae.training`
        does it, and trains it.

        Raises:
            ValueError: the prior is not N(0, I).
        """
        if self.config.prior_type != "standard":
            raise ValueError(f"`prior_type` is {self.config.prior_type!r}; p(z|x) takes the place of 'standard', N(0, I), alone.")
        self.config.prior_type = "conditional"
        self.prior_network = build_prior(self.config, self.source_size, dtype=self.encoder.dtype).to(self.device)

    @property
    def source_readers(self) -> frozenset[str]:
        """Who reads x through an encoder: the `"prior"`, the `"decoder"`, both or nobody."""
        readers = {"prior": self.config.prior_reads_source, "decoder": self.config.source_conditioning != "prompt"}
        return frozenset(name for name, reads in readers.items() if reads)

    @property
    def encodes_source_for_y(self) -> bool:
        """Whether p(y|x,z) needs x as an encoder reads it."""
        return bool(self.source_readers - {"prior", "posterior"})

    @property
    def pools_source(self) -> bool:
        """Whether anybody reads one vector of x. Cross-attention reads every state instead."""
        return bool(self.source_readers - {"decoder"}) or self.config.source_conditioning == "initial_state"

    @property
    def reads_source_states(self) -> bool:
        """Whether anybody reads every state of x: the decoder's cross-attention, or the queries of a prior of several vectors."""
        return self.config.source_conditioning == "cross_attention" or self.resampler is not None

    def read_source(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        with_prior: bool = True,
    ) -> EncodedSource:
        """
        x, encoded once for all that read it. In training `config.source_noise` hides tokens from them.

        Args:
            input_ids, attention_mask (`(batch, source)`): x in the encoder's vocabulary; needed if the prior or the decoder
                reads it through an encoder.
            prompt_input_ids, prompt_attention_mask (`(batch, prompt)`): x in the decoder's vocabulary; needed with
                `source_conditioning="prompt"`.
            with_prior (`bool`, defaults to `True`): whether the prior is to read it too.

        Raises:
            ValueError: `input_ids` are missing, a row is padding only, or longer than the encoder holds.
        """
        source = self._visible_source(input_ids, attention_mask, prompt_input_ids, prompt_attention_mask)
        if not self.source_readers - (set() if with_prior else {"prior"}):
            return source
        if input_ids is None:
            raise ValueError("`input_ids` is missing: an encoder reads the source, for the prior or for the decoder.")
        encoder = self.encoder if self.config.tie_encoders else self.source_encoder
        if not self.reads_source_states:
            source.vector = read_visible("input_ids", encoder, self.config.vector_pooling, input_ids, source.attention_mask)
            return source
        source.hidden_states, pooler_output = read_text("input_ids", encoder, input_ids, source.attention_mask)
        if self.pools_source:
            source.vector = pool(self.config.vector_pooling, source.hidden_states, pooler_output, source.attention_mask)
        return source

    def _visible_source(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        prompt_input_ids: torch.Tensor | None,
        prompt_attention_mask: torch.Tensor | None,
    ) -> EncodedSource:
        """x before it is encoded: its masks, in training without the tokens that `config.source_noise` hides, and its prompt."""
        check_padding_side("attention_mask", attention_mask)
        rate = self.config.source_noise if self.training else 0.0

        def visible(tokens: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor | None:
            return mask if tokens is None or not rate else hide_tokens(tokens, mask, rate)

        return EncodedSource(
            attention_mask=visible(input_ids, attention_mask),
            prompt_input_ids=prompt_input_ids,
            prompt_attention_mask=visible(prompt_input_ids, prompt_attention_mask),
        )

    def encode(
        self,
        posterior_input_ids: torch.LongTensor | None = None,
        posterior_attention_mask: torch.Tensor | None = None,
        posterior_token_type_ids: torch.LongTensor | None = None,
        source: EncodedSource | None = None,
    ) -> LatentOutput:
        """
        The recognition network q(z|x,y).

        Args:
            posterior_input_ids (`torch.LongTensor` of shape `(batch, pair)`): x and y together, in the encoder's vocabulary.
            posterior_attention_mask (`torch.Tensor` of shape `(batch, pair)`, *optional*): 0 on padding.
            posterior_token_type_ids (`torch.LongTensor` of shape `(batch, pair)`, *optional*): which of the two a token is of.
            source ([`EncodedSource`], *optional*): what `read_source` gives; this q reads x in the pair, and needs no more of it.

        Returns:
            [`LatentOutput`] whose `latent_dist` has one row per example.

        Raises:
            ValueError: the pair is missing, a row is padding only, or longer than the encoder holds.
        """
        if posterior_input_ids is None:
            raise ValueError(
                "`posterior_input_ids` is missing: q(z|x,y) reads source and target together. The processor makes it if "
                "`text_target` is given."
            )
        if self.config.pooling == "target" and posterior_token_type_ids is None:
            raise ValueError(
                "`posterior_token_type_ids` is missing, which says which tokens of the pair are the target's: with "
                "`pooling='target'` q reads those. The processor makes it with any fast tokenizer; with another choose 'mean'."
            )
        pair = (posterior_input_ids, posterior_attention_mask, posterior_token_type_ids)
        read = self.read_for_posterior("posterior_input_ids", *pair)
        return LatentOutput(latent_dist=self.posterior_head(read))

    def condition(self, source: EncodedSource | None = None, **x: Any) -> dict[str, Any]:
        """
        How the decoder sees x, one row per example: as the prompt, as the states of the encoder that reads it, or as the state to
        start from. Arguments as of [`VAEModel.condition`].

        Raises:
            ValueError: x is missing in the form that `config.source_conditioning` asks for.
        """
        source = self.read_source(**x, with_prior=False) if source is None else check_source(source)
        if self.config.source_conditioning == "prompt":
            if source.prompt_input_ids is None:
                raise ValueError("`prompt_input_ids` is missing: with `source_conditioning='prompt'` it is the source.")
            return super().condition(source)
        if self.config.source_conditioning == "initial_state":
            return {"initial_state": self.source_projection(source.vector).to(self.decoder.dtype)}
        mask = source.attention_mask
        projected = self.source_projection(source.hidden_states).to(self.decoder.dtype)
        mask = projected.new_ones(projected.shape[:2], dtype=torch.long) if mask is None else mask
        return {"encoder_hidden_states": projected, "encoder_attention_mask": mask}

    @property
    def shares_encoder(self) -> bool:
        """Whether the encoder of q also reads x for somebody else."""
        return self.config.tie_encoders and bool(self.source_readers)

    @property
    def inference_modules(self) -> list[nn.Module]:
        # If x is read through q's encoder, that encoder is a part of p.
        return self.posterior_modules if self.shares_encoder else [*self.posterior_modules, self.encoder]

    @property
    def latent_modules(self) -> list[nn.Module]:
        modules = [*self.posterior_modules, *self.prior_modules]
        serves_y = self.encodes_source_for_y
        if not (serves_y and self.config.tie_encoders):
            modules.append(self.encoder)
        if not (serves_y or self.config.tie_encoders):
            modules.append(self.source_encoder)
        return modules

    @property
    def source_size(self) -> int:
        """Width of the one vector of x that a conditional prior reads."""
        return self.encoder_hidden_size

    @property
    def projection_size(self) -> int:
        """Width of what the decoder is given of x if it reads it through an encoder: its state, or one of the encoder's."""
        if self.config.source_conditioning == "initial_state":
            return self.decoder.shape.state_size
        return self.decoder.encoder_states_size

    @property
    def context_size(self) -> int:
        return self.projection_size

    def context_vector(self, conditioning: dict[str, Any]) -> torch.Tensor:
        """What the decoder sees of x before it reads it: the mean of the prompt's embeddings or encoder's states, or its state."""
        if self.config.source_conditioning == "initial_state":
            return conditioning["initial_state"]
        if self.config.source_conditioning == "prompt":
            states = self.decoder.get_input_embeddings()(conditioning["prompt_input_ids"])
            return pool("mean", states, None, conditioning.get("prompt_attention_mask"))
        return pool("mean", conditioning["encoder_hidden_states"], None, conditioning["encoder_attention_mask"])

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
        labels = self.check_labels(labels)
        check_rows(labels.shape[0], input_ids=input_ids, prompt_input_ids=prompt_input_ids, posterior_input_ids=posterior_input_ids)
        x = (input_ids, attention_mask, prompt_input_ids, prompt_attention_mask)
        source = self.read_source(*x, with_prior=latents is None)
        posterior = prior = None
        if latents is None:
            posterior = prior = self.prior(source, labels.shape[0]).latent_dist
            if self.config.has_posterior:
                pair = (posterior_input_ids, posterior_attention_mask, posterior_token_type_ids)
                posterior = self.encode(*pair, source).latent_dist
        conditioning = self.condition(source)
        return self.objective(labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict)

    def training_objective(
        self,
        objective: torch.Tensor,
        output: Any,
        labels: torch.LongTensor,
        prior: LatentDistribution,
        conditioning: dict[str, Any],
    ) -> torch.Tensor:
        if self.config.objective == "hybrid":
            latents = prior.sample()
            gsnn = self.reconstruction_nll(latents, labels, conditioning, self.output_class())
            output.prior_reconstruction_loss = gsnn
            if self.config.bow_loss_weight:
                gsnn = gsnn + self.charged_bow(self.bow_head(latents, self.context_vector(conditioning), labels))
            objective = hybrid(objective, gsnn, self.config.hybrid_alpha)
        if self.config.prior_regularization:
            standard = DiagonalGaussian.standard(len(prior), self.config.total_latent_size, prior.device)
            output.prior_kl = kl_divergence(prior, standard).sum(-1)
            objective = objective + self.config.prior_regularization * output.prior_kl
        return objective


__all__ = ["ConditionalVAEModel"]
