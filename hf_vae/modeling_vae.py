"""The text VAE: q(z|y), p(z) = N(0, I), p(y|z), and the ELBO between them. The base of the conditional models."""

from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, initialization

from .bag_of_words import BagOfWordsHead
from .checks import check_choice, check_rows, shaped_latents
from .composite import EncoderDecoderComposite
from .configuration_vae import VAEConfig
from .encoders import check_padding_side, read_text, read_vector
from .flow_prior import FlowPrior
from .fused_linear_cross_entropy import sequence_nll
from .generation_options import composite_generation_config
from .generation_vae import LatentGenerationMixin
from .given_vectors import check_given, read_embeddings
from .latent_attribute import LatentAttribute
from .latent_distribution import LatentDistribution
from .modeling_outputs import LatentOutput, VAEOutput
from .objective import charged_kl, kl_divergence, loss_per_token
from .posterior import FixedScaleBatchNorm, build_posterior
from .prior import GaussianMixturePrior, Prior, build_prior
from .resampler import Resampler, build_resampler
from .source import EncodedSource, check_source


class VAEModel(EncoderDecoderComposite, LatentGenerationMixin):
    r"""
    A variational autoencoder of text (Bowman et al. 2015; Li et al. 2020): an encoder proposes q(z|y), a causal LM that reads z
    models p(y|z), the prior is N(0, I).

    Args:
        config, encoder, decoder: as of [`EncoderDecoderComposite`].
    """

    output_class: type[VAEOutput] = VAEOutput

    def __init__(self, config: VAEConfig, encoder: PreTrainedModel | None = None, decoder: PreTrainedModel | None = None):
        super().__init__(config, encoder, decoder)
        config = self.config
        self.resampler = build_resampler(config, dtype=self.first_part.dtype)
        self.posterior_head = build_posterior(config, self.recognition_size, dtype=self.first_part.dtype)
        if config.bow_loss_weight:
            self.bow_head = BagOfWordsHead(
                config.total_latent_size,
                self.context_size,
                self.decoder.embedding_size,
                config.decoder.get_text_config().vocab_size,
                dtype=self.decoder.dtype,
            )
            self.decoder.heads_by_word.append(self.bow_head)
        self.prior_network: Prior | None = None
        if not config.prior_reads_source and config.prior_type != "fitted":
            self.prior_network = build_prior(config, source_size=0, dtype=self.first_part.dtype)
        self.fitted_prior: GaussianMixturePrior | FlowPrior | None = None
        if config.fitted_prior_components is not None:
            self.fitted_prior = GaussianMixturePrior(config.fitted_prior_components, config.total_latent_size)
        elif config.fitted_prior_flow is not None:
            self.fitted_prior = FlowPrior(config.total_latent_size, **config.fitted_prior_flow).freeze()
        self.latent_attributes = nn.ModuleDict(
            {name: LatentAttribute(config.total_latent_size, **spec) for name, spec in (config.latent_attributes or {}).items()}
        )
        # Buffers, because a Python number that changes at every step would recompile the graph. They follow from the step.
        self.kl_weight: torch.Tensor
        self.bow_weight: torch.Tensor
        for name in ("kl_weight", "bow_weight"):
            self.register_buffer(name, torch.ones((), dtype=torch.float32), persistent=False)
        self.post_init()
        self.generation_config = composite_generation_config(config, self.decoder.lm.generation_config)
        self.name_own_code()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            # Models are built without storage: what no checkpoint holds must be set here.
            initialization.ones_(self.kl_weight)
            initialization.ones_(self.bow_weight)
        elif isinstance(module, (FixedScaleBatchNorm, Resampler)):
            module.init_weights()
        elif isinstance(module, (GaussianMixturePrior, FlowPrior, LatentAttribute)):
            module.reset_parameters()

    @property
    def recognition_size(self) -> int:
        """Width of the vector, or of each vector, that the posterior's head reads."""
        return self.config.embedding_size or self.encoder_hidden_size

    @property
    def context_size(self) -> int:
        """Width of the one vector of x that auxiliary heads read; a VAE has no x."""
        return 0

    @property
    def posterior_modules(self) -> list[nn.Module]:
        """What makes q of an encoder's states."""
        return [self.posterior_head] if self.resampler is None else [self.resampler, self.posterior_head]

    @property
    def prior_modules(self) -> list[nn.Module]:
        """What makes p(z), or p(z|x) of what is read of x; nothing for N(0, I)."""
        return [] if self.prior_network is None else [cast(nn.Module, self.prior_network)]

    @property
    def inference_modules(self) -> list[nn.Module]:
        """What q alone uses, and p does not."""
        return self.posterior_modules if self.config.embedding_size is not None else [*self.posterior_modules, self.encoder]

    @property
    def latent_modules(self) -> list[nn.Module]:
        """What only the distributions of z use: nothing of it takes part if z is given."""
        return [*self.inference_modules, *self.prior_modules]

    def read_source(
        self,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        with_prior: bool = True,
    ) -> EncodedSource:
        """
        What is given besides y: here at most a prompt in the decoder's vocabulary, `(batch, prompt)`.

        Args:
            with_prior (`bool`, defaults to `True`): whether the prior is to read it too.
        """
        return EncodedSource(prompt_input_ids=prompt_input_ids, prompt_attention_mask=prompt_attention_mask)

    def encode(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        source: EncodedSource | None = None,
        embeddings: torch.Tensor | None = None,
    ) -> LatentOutput:
        """
        The posterior q(z|y).

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, source)`): y in the encoder's vocabulary.
            attention_mask (`torch.Tensor` of shape `(batch, source)`, *optional*): 0 on padding.
            source ([`EncodedSource`], *optional*): what `read_source` gives; this q does not depend on it.
            embeddings (`torch.Tensor` of shape `(batch, embedding_size)`): the vector of y, of a model with an `embedding_size`,
                in the place of tokens.

        Returns:
            [`LatentOutput`] whose `latent_dist` has one row per example.

        Raises:
            ValueError: no input, a row of padding only, more tokens than the encoder holds, tokens for a model that reads vectors
                or the reverse, or vectors that are not what the configuration says.
        """
        check_given(self.config, input_ids, embeddings)
        if self.config.embedding_size is not None:
            return LatentOutput(latent_dist=self.posterior_head(read_embeddings(embeddings, self.config, self.dtype)))
        if input_ids is None:
            raise ValueError("`input_ids` is missing: q(z|y) reads y.")
        read = self.read_for_posterior("input_ids", input_ids, attention_mask, token_type_ids)
        return LatentOutput(latent_dist=self.posterior_head(read))

    def read_for_posterior(
        self,
        name: str,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        What q reads of a text that the caller calls `name`: one vector `(batch, hidden)`, or `(batch, num_latents, hidden)`.

        Raises:
            ValueError: as [`VAEModel.encode`].
        """
        text = (input_ids, attention_mask, token_type_ids)
        if self.resampler is None:
            return read_vector(name, self.encoder, self.config.vector_pooling, *text)
        check_padding_side(name.replace("input_ids", "attention_mask"), attention_mask)
        hidden_states, _ = read_text(name, self.encoder, *text)
        return self.resampler(hidden_states, attention_mask)

    def prior(self, source: EncodedSource | None = None, batch_size: int | None = None, **x: Any) -> LatentOutput:
        """
        The prior of each row: p(z|x), or p(z) in `batch_size` rows.

        Args:
            source ([`EncodedSource`], *optional*): what `read_source` has made of x.
            batch_size (`int`, *optional*): rows; by default those of x. A prior that reads no x needs it if there is no x.
            x: in the place of `source`, the arguments of `read_source`.

        Raises:
            ValueError: x is missing and the prior reads it, or nothing says how many rows there are.
        """
        if source is not None:
            check_source(source)
        elif self.config.prior_reads_source or x:
            source = self.read_source(**x)
        batch_size = len(source or ()) if batch_size is None else batch_size
        if not batch_size:
            raise ValueError("Neither x nor `batch_size` is given: say how many rows of the prior are wanted.")
        return LatentOutput(latent_dist=self.prior_named("prior")(source, batch_size, self.device))

    def prior_named(self, latent_source: str) -> Prior | GaussianMixturePrior | FlowPrior:
        """
        The prior that `generate(latent_source=…)` names.

        Raises:
            ValueError: no such prior, or a model without a fitted one.
        """
        check_choice("latent_source", latent_source, ("prior", "fitted_prior"))
        if latent_source == "prior" and self.config.prior_type != "fitted":
            return cast(Prior, self.prior_network)
        if self.fitted_prior is None:
            raise ValueError(
                "`latent_source` is 'fitted_prior', and this model has none: fit one with `hf_vae.latent_space.fit_prior` or "
                "`fit_flow_prior` and keep it with `model.set_fitted_prior`."
            )
        return self.fitted_prior

    def set_fitted_prior(self, prior: GaussianMixturePrior | FlowPrior) -> None:
        """
        Keeps a prior that was fitted to this model's codes: it is saved with the model, and
        `generate(latent_source="fitted_prior")` draws from it. With `config.prior_type="fitted"` it is the model's p(z).

        Raises:
            ValueError: no such prior, or one over another number of dimensions.
        """
        if not isinstance(prior, (GaussianMixturePrior, FlowPrior)):
            raise ValueError(
                f"`prior` is a {type(prior).__name__}; fit a `GaussianMixturePrior` with `hf_vae.latent_space.fit_prior`, or a "
                "`FlowPrior` with `fit_flow_prior`."
            )
        if prior.latent_size != self.config.total_latent_size:
            raise ValueError(f"`prior` is over {prior.latent_size} dimensions; the model's z has {self.config.total_latent_size}.")
        if isinstance(prior, FlowPrior):
            self.config.fitted_prior_components, self.config.fitted_prior_flow = None, prior.freeze().sizes
        else:
            self.config.fitted_prior_components, self.config.fitted_prior_flow = prior.num_components, None
        self.fitted_prior = prior.to(self.device)

    def set_attribute(self, name: str, attribute: LatentAttribute) -> None:
        """
        Keeps p(a|z) that was fitted to this model's codes: it is saved with the model, and `generate(attributes={name: value})`
        draws z that has it. One of the same name is replaced.

        Raises:
            ValueError: no such attribute, one over another number of dimensions, or a name that cannot be a module's.
        """
        if not isinstance(attribute, LatentAttribute):
            raise ValueError(
                f"`attribute` is a {type(attribute).__name__}; fit a `LatentAttribute` with `hf_vae.latent_space.fit_attribute`."
            )
        if attribute.latent_size != self.config.total_latent_size:
            raise ValueError(
                f"`attribute` is over {attribute.latent_size} dimensions, the model's z has {self.config.total_latent_size}."
            )
        if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise ValueError(f"`name` is {name!r}; give a word of letters, digits and `_` that is no method of a PyTorch module.")
        self.config.latent_attributes = {**(self.config.latent_attributes or {}), name: attribute.spec}
        self.latent_attributes[name] = attribute.to(self.device)

    def condition(self, source: EncodedSource | None = None, **x: Any) -> dict[str, Any]:
        """
        What the decoder is given besides z and the start token, by name, one row per example.

        Args:
            source ([`EncodedSource`], *optional*): what `read_source` has made of x.
            x: in the place of `source`, the arguments of `read_source`.
        """
        source = self.read_source(**x, with_prior=False) if source is None else check_source(source)
        given = {"prompt_input_ids": source.prompt_input_ids, "prompt_attention_mask": source.prompt_attention_mask}
        return {name: tensor for name, tensor in given.items() if tensor is not None}

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
        embeddings: torch.Tensor | None = None,
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
                no KL, and the loss is the reconstruction's, in training with the bag of words' if the model has one.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*): target tokens of the whole accumulated batch over all
                processes, as the Trainer counts them; defaults to those of `labels`.
            output_logits (`bool`, *optional*): defaults to `True` in evaluation mode only.
            embeddings (`(batch, embedding_size)`): the vector of y, of a model with an `embedding_size`, in the place of tokens.

        Returns:
            [`VAEOutput`]. In training β is `kl_weight`, free bits or a capacity apply, and the bag-of-words loss is added; in
            evaluation the loss is the true negative ELBO.

        Raises:
            ValueError: `labels` are missing, or an input is malformed.
        """
        labels = self.check_labels(labels)
        check_given(self.config, input_ids, embeddings)
        given = {"input_ids": input_ids, "embeddings": embeddings, "prompt_input_ids": prompt_input_ids}
        check_rows(labels.shape[0], attention_mask=attention_mask, **given)
        source = self.read_source(prompt_input_ids, prompt_attention_mask)
        posterior = prior = None
        if latents is None:
            posterior = self.encode(input_ids, attention_mask, token_type_ids, source, embeddings).latent_dist
            prior = self.prior(source, labels.shape[0]).latent_dist
        conditioning = self.condition(source)
        return self.objective(labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict)

    def objective(
        self,
        labels: torch.LongTensor,
        latents: torch.Tensor | None,
        posterior: LatentDistribution | None,
        prior: LatentDistribution | None,
        conditioning: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
        output_logits: bool | None = None,
        return_dict: bool | None = None,
    ) -> VAEOutput | tuple:
        """
        The loss from q, p and what the decoder is given; or from given `latents`, and then q and p are `None`. What
        [`~VAEModel.forward`] of every model of the family ends with.
        """
        if latents is None:
            latents = cast(LatentDistribution, posterior).sample()
        latents = shaped_latents(latents, len(labels), self.config.total_latent_size).to(labels.device)
        output = self.output_class()
        with_logits = not self.training if output_logits is None else output_logits
        objective = self.reconstruction_nll(latents, labels, conditioning, output, with_logits)
        if posterior is not None and prior is not None:
            kl = kl_divergence(posterior, prior, latents)
            output.kl = kl.sum(-1)
            output.keep_parameters("posterior", posterior)
            output.keep_parameters("prior", prior)
            objective = objective + (self.kl_weight * charged_kl(kl, self.config) if self.training else output.kl)
        if self.config.bow_loss_weight:
            output.bow_loss = self.bow_head(latents, self.context_vector(conditioning), labels)
            if self.training:
                objective = objective + self.charged_bow(output.bow_loss)
        if self.training and prior is not None:
            objective = self.training_objective(objective, output, labels, prior, conditioning)
        output.loss = loss_per_token(objective, labels, num_items_in_batch)
        # In the order of the fields, by which the Trainer hands outputs on, and not in the order in which they were computed.
        output = type(output)(**output)
        return output.to_tuple() if return_dict is False else output

    def reconstruction_nll(
        self,
        latents: torch.Tensor,
        labels: torch.LongTensor,
        conditioning: dict[str, Any],
        output: VAEOutput,
        with_logits: bool = False,
    ) -> torch.Tensor:
        """-log p(y|x,z) as the objective charges it, nats per sentence `(batch,)`; `output` gets its terms, and logits if asked."""
        if with_logits:
            output.logits = self.decode(latents, labels, **conditioning)
            output.reconstruction_loss = sequence_nll(output.logits, labels)
        else:
            output.reconstruction_loss = self.nll(latents, labels, **conditioning)
        return output.reconstruction_loss

    def charged_bow(self, bow_loss: torch.Tensor) -> torch.Tensor:
        """What training charges for the bag of words, `(batch,)`, nats per sentence."""
        return self.config.bow_loss_weight * self.bow_weight * bow_loss

    def training_objective(
        self,
        objective: torch.Tensor,
        output: VAEOutput,
        labels: torch.LongTensor,
        prior: LatentDistribution,
        conditioning: dict[str, Any],
    ) -> torch.Tensor:
        """What training minimises, `(batch,)`, given the negative ELBO with all that the configuration does to it."""
        return objective

    def context_vector(self, conditioning: dict[str, Any]) -> torch.Tensor | None:
        """One vector `(batch, context_size)` of x, for auxiliary heads; a VAE has no x."""
        return None


__all__ = ["LatentOutput", "VAEModel", "VAEOutput"]
