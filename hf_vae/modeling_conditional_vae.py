"""What all conditional models share: q(z|x,y) reads the pair, p(y|x,z) sees the source x."""

import copy
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from .checks import check_rows, rows_of
from .configuration_conditional_vae import ConditionalVAEConfig
from .encoders import build_encoder, check_padding_side, pool, read_text
from .gaussian import DiagonalGaussian
from .gaussian_head import PriorNetwork
from .generation_options import LatentGenerationOptions
from .modeling_outputs import LatentOutput, VAEOutput
from .modeling_vae import VAEModel


@dataclass
class SourceStates:
    """
    What an encoder has made of x.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch, source, hidden)`): its last layer's.
        pooler_output (`torch.Tensor` of shape `(batch, hidden)`, *optional*): its pooler's, where it has one.
        attention_mask (`torch.Tensor` of shape `(batch, source)`, *optional*): 0 on padding.
        pooling (`str`): how one vector is made of them.
    """

    hidden_states: torch.Tensor
    pooler_output: torch.Tensor | None
    attention_mask: torch.Tensor | None
    pooling: str

    @property
    def vector(self) -> torch.Tensor:
        """One vector of each x, `(batch, source_size)`."""
        return pool(self.pooling, self.hidden_states, self.pooler_output, self.attention_mask)


def hide_tokens(tokens: torch.Tensor, mask: torch.Tensor | None, rate: float) -> torch.Tensor:
    """
    An attention mask `(batch, length)` that hides each token of `tokens` with probability `rate`, for a model that is to do
    without them; a row that would have lost all of them keeps all.
    """
    mask = torch.ones_like(tokens) if mask is None else mask
    kept = mask * (torch.rand(mask.shape, device=mask.device) >= rate).to(mask)
    return torch.where(kept.any(-1, keepdim=True), kept, mask)


class ConditionalVAEModel(VAEModel):
    r"""
    Base of the conditional models: q(z|x,y), p(z|x) or N(0, I), p(y|x,z). The decoder sees x as `config.source_conditioning`
    says. Where the decoder or the prior reads x through an encoder, it is the one that serves q, or with `tie_encoders=False` a
    `source_encoder` of their own.
    """

    config: ConditionalVAEConfig

    def __init__(
        self,
        config: ConditionalVAEConfig,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ):
        super().__init__(config, encoder, decoder)
        config = self.config
        if config.source_conditioning != "prompt":
            able = {"cross_attention": self.decoder.takes_encoder_states, "initial_state": self.decoder.recurrent}
            if not able[config.source_conditioning]:
                lacks = {"cross_attention": "cross-attention", "initial_state": "state to start from"}[config.source_conditioning]
                raise ValueError(
                    f"`source_conditioning={config.source_conditioning!r}`: {type(self.decoder.lm).__name__} has no {lacks}. "
                    "Choose 'prompt', which works with any decoder."
                )
            read = self.source_size if config.source_conditioning == "initial_state" else self.encoder_hidden_size
            if config.source_conditioning == "cross_attention":
                self.decoder.check_cross_attention()
            self.source_projection = nn.Linear(read, self.projection_size, dtype=self.encoder.dtype)
        if not config.tie_encoders:
            pooling = config.pooling if self.pools_source else "mean"
            self.source_encoder = build_encoder(copy.deepcopy(config.encoder), pooling, dtype=self.encoder.dtype)
            if encoder is not None:
                # A copy of what was pretrained; a pooler, which nothing reads here, stays behind.
                self.source_encoder.load_state_dict(encoder.state_dict(), strict=False)
        if config.prior_type == "conditional":
            self.prior_network = PriorNetwork(self.source_size, config.latent_size, dtype=self.encoder.dtype)
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

    # p(z|x) ---------------------------------------------------------------------------------------------------------------

    def prior(
        self, batch_size: int, input_ids: torch.LongTensor | None = None, attention_mask: torch.Tensor | None = None
    ) -> LatentOutput:
        """
        The prior of each row: p(z|x) of a network that reads x, or N(0, I) with `config.prior_type="standard"`.

        Args:
            batch_size (`int`): rows.
            input_ids, attention_mask (`(batch, source)`): x in the encoder's vocabulary; N(0, I) needs none.

        Raises:
            ValueError: `input_ids` are missing where the prior reads them.
        """
        source = self.read_source(input_ids, attention_mask) if self.config.prior_type == "conditional" else None
        return self._prior(batch_size, source)

    def _prior(self, batch_size: int, source: SourceStates | None) -> LatentOutput:
        if self.config.prior_type == "standard":
            return super().prior(batch_size)
        return LatentOutput(latent_dist=self.prior_network(cast(SourceStates, source).vector))

    def read_source(self, input_ids: torch.LongTensor | None, attention_mask: torch.Tensor | None = None) -> SourceStates:
        """
        x as the encoder of the prior and of the decoder reads it.

        Raises:
            ValueError: `input_ids` are missing, a row is padding only, or longer than the encoder holds.
        """
        if input_ids is None:
            raise ValueError("`input_ids` is missing: an encoder reads the source, for the prior or for the decoder.")
        encoder = self.encoder if self.config.tie_encoders else self.source_encoder
        return SourceStates(*read_text("input_ids", encoder, input_ids, attention_mask), attention_mask, self.config.pooling)

    # p(y|x,z) -------------------------------------------------------------------------------------------------------------

    @property
    def decoder_reads_encoder(self) -> bool:
        """Whether the decoder sees x through an encoder, and not as its prompt."""
        return self.config.source_conditioning != "prompt"

    @property
    def shares_encoder(self) -> bool:
        """Whether the encoder of q(z|x,y) also reads x for the decoder or the prior."""
        return self.config.tie_encoders and (self.decoder_reads_encoder or self.config.prior_type == "conditional")

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
        source = self.read_source(input_ids, attention_mask) if self.decoder_reads_encoder else None
        return self._condition(prompt_input_ids, prompt_attention_mask, source)

    def _condition(self, prompt_input_ids, prompt_attention_mask, source: SourceStates | None) -> dict[str, torch.Tensor]:
        if not self.decoder_reads_encoder:
            self._check_prompt(prompt_input_ids)
            return super().condition(prompt_input_ids, prompt_attention_mask)
        source = cast(SourceStates, source)
        if self.config.source_conditioning == "initial_state":
            return {"initial_state": self.source_projection(source.vector).to(self.decoder.dtype)}
        mask = source.attention_mask
        projected = self.source_projection(source.hidden_states).to(self.decoder.dtype)
        mask = projected.new_ones(projected.shape[:2], dtype=torch.long) if mask is None else mask
        return {"encoder_hidden_states": projected, "encoder_attention_mask": mask}

    def _check_prompt(self, prompt_input_ids: torch.Tensor | None) -> None:
        if prompt_input_ids is None:
            raise ValueError("`prompt_input_ids` is missing: with `source_conditioning='prompt'` it is the source.")

    @property
    def inference_modules(self) -> list[nn.Module]:
        # Where the decoder or the prior reads x through q's encoder, that encoder is a part of p.
        return [self.posterior] if self.shares_encoder else [self.posterior, self.encoder]

    @property
    def latent_modules(self) -> list[nn.Module]:
        modules: list[nn.Module] = [self.posterior]
        if self.config.prior_type == "conditional":
            modules.append(self.prior_network)
        if not (self.encodes_source_for_y and self.config.tie_encoders):
            modules.append(self.encoder)
        if not (self.encodes_source_for_y or self.config.tie_encoders):
            modules.append(self.source_encoder)
        return modules

    @property
    def encodes_source_for_y(self) -> bool:
        """Whether p(y|x,z) needs x as an encoder reads it."""
        return self.decoder_reads_encoder

    @property
    def pools_source(self) -> bool:
        """Whether anything reads one vector of x."""
        return self.config.source_conditioning == "initial_state" or self.config.prior_type == "conditional"

    @property
    def source_size(self) -> int:
        """Width of the one vector of x that a conditional prior reads."""
        return self.encoder_hidden_size

    @property
    def projection_size(self) -> int:
        """Width of what the decoder is given of x where it reads it through an encoder: its state, or one of the encoder's."""
        if self.config.source_conditioning == "initial_state":
            return sum(map(math.prod, self.decoder.state_shapes))
        return self.decoder.encoder_states_size

    @property
    def context_size(self) -> int:
        return self.projection_size

    def _context_vector(self, conditioning: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the decoder sees of x before it reads it: the mean of the prompt's embeddings or encoder's states, or its state."""
        if self.config.source_conditioning == "initial_state":
            return conditioning["initial_state"]
        if self.config.source_conditioning == "prompt":
            states = self.decoder.get_input_embeddings()(conditioning["prompt_input_ids"])
            return pool("mean", states, None, conditioning.get("prompt_attention_mask"))
        return pool("mean", conditioning["encoder_hidden_states"], None, conditioning["encoder_attention_mask"])

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

        In training `config.source_noise` hides tokens of x from all that reads it but q.

        Returns:
            [`VAEOutput`].

        Raises:
            ValueError: `labels`, the pair or the source is missing, or an input is malformed.
        """
        labels = self._check_labels(labels)
        check_rows(labels.shape[0], input_ids=input_ids, prompt_input_ids=prompt_input_ids, posterior_input_ids=posterior_input_ids)
        check_padding_side("attention_mask", attention_mask)
        attention_mask = self._hide_source(input_ids, attention_mask)
        prompt_attention_mask = self._hide_source(prompt_input_ids, prompt_attention_mask)
        draws = latents is None
        source = self._source(draws, input_ids, attention_mask)
        posterior = prior = None
        if draws:
            prior = self._prior(labels.shape[0], source).latent_dist
            posterior = prior
            if self.config.has_posterior:
                posterior = self.encode(posterior_input_ids, posterior_attention_mask, posterior_token_type_ids).latent_dist
        conditioning = self._condition(prompt_input_ids, prompt_attention_mask, source)
        return self._objective(labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict)

    def _hide_source(self, tokens: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor | None:
        """`mask`, and in training without the tokens of x that `config.source_noise` hides."""
        if tokens is None or not (self.training and self.config.source_noise):
            return mask
        return hide_tokens(tokens, mask, self.config.source_noise)

    def _source(self, needs_prior: bool, input_ids, attention_mask) -> SourceStates | None:
        """x, encoded once for the prior and the decoder, where either reads it."""
        needed = self.decoder_reads_encoder or (needs_prior and self.config.prior_type == "conditional")
        return self.read_source(input_ids, attention_mask) if needed else None

    def _training_objective(self, objective, output, labels, prior, conditioning) -> torch.Tensor:
        if self.config.objective == "hybrid":
            from_prior = VAEOutput()
            alpha = self.config.hybrid_alpha
            objective = alpha * objective + (1 - alpha) * self._generation_nats(prior.sample(), labels, conditioning, from_prior)
            output.prior_reconstruction_loss = from_prior.reconstruction_loss
        if self.config.prior_regularization:
            standard = DiagonalGaussian.standard(len(prior.mean), self.config.latent_size, prior.mean.device)
            output.prior_kl = prior.kl(standard).sum(-1)
            objective = objective + self.config.prior_regularization * output.prior_kl
        return objective

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
        average_latents: int | None = None,
        generator: torch.Generator | None = None,
        generation_config: GenerationConfig | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ):
        """
        Texts given x, each decoded from its own z: as [`VAEModel.generate`], but the default `latent_source` is the prior, and
        the posterior needs `posterior_input_ids`, the pair whose z is wanted. x is encoded once, however many sequences.

        Args:
            average_latents (`int`, *optional*): write one text for each input, greedily, under the mean of p(y|x,z) over so many z
                (Sohn et al. 2015, section 3), in place of one text for each z.
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
            average_latents,
        )
        if not self.decoder_reads_encoder:
            self._check_prompt(prompt_input_ids)
        batch = rows_of(prompt_input_ids=prompt_input_ids, input_ids=input_ids, posterior_input_ids=posterior_input_ids) or 0
        check_padding_side("attention_mask", attention_mask)
        latent_source = options.latent_source or "prior"
        source = self._source(latents is None and latent_source == "prior", input_ids, attention_mask)
        latents = self._settle_latents(
            latents,
            latent_source,
            batch,
            options,
            posterior=lambda: self.encode(posterior_input_ids, posterior_attention_mask, posterior_token_type_ids).latent_dist,
            prior=lambda: self._prior(batch, source).latent_dist,
        )
        conditioning = self._condition(prompt_input_ids, prompt_attention_mask, source)
        return self._generate(latents, batch, conditioning, options, model_kwargs)


__all__ = ["ConditionalVAEModel"]
