"""The dialogue CVAE and its knowledge-guided form (Zhao et al. 2017)."""

from typing import Any, cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from .checks import check_rows
from .configuration_dialog_cvae import DialogCVAEConfig
from .dialog_modules import ActHead, MetaFeatures, TurnEncoder
from .encoders import (
    check_attention_mask,
    check_mask,
    check_tokens,
    longest_text,
    read_visible,
    reserved_positions,
)
from .modeling_conditional_vae import ConditionalVAEModel
from .modeling_outputs import DialogCVAEOutput, LatentOutput, VAEOutput
from .pipelines import DialogPipeline
from .resampler import beside
from .rows import match_rows, select_rows
from .source import EncodedSource, check_source

# Tokens that a reply has room for behind any context, if nothing says how long it may be.
LEAST_ROOM = 20


class DialogCVAEModel(ConditionalVAEModel):
    r"""
    Replies to a dialogue: p(z|x), q(z|x,y), p(y|x,z), where x is the turns so far and what else is known of the dialogue, y the
    next turn (Zhao et al. 2017). With `config.num_acts` the knowledge-guided form: p(a|x,z) chooses the act a of the reply,
    p(y|x,z,a) performs it, and q(z|x,y,a) sees it. In training the decoder reads the true act's embedding; if the act is not
    known, as in generation, the mean embedding under p(a|x,z).

    What the decoder reads as its latent is z, the act's embedding and the meta features side by side, so any causal LM can be the
    decoder.
    """

    config: DialogCVAEConfig
    output_class = DialogCVAEOutput
    pipeline_class = DialogPipeline

    def __init__(self, config: DialogCVAEConfig, encoder: PreTrainedModel | None = None, decoder: PreTrainedModel | None = None):
        super().__init__(config, encoder, decoder)
        config = self.config
        if config.context_encoding == "hierarchical":
            self.turn_encoder = TurnEncoder(self.encoder_hidden_size, dtype=self.encoder.dtype)
        if config.meta_size:
            self.meta_embedding = MetaFeatures(
                config.meta_categories or [], config.meta_embedding_size, config.num_meta_values, dtype=self.encoder.dtype
            )
        if config.num_acts is not None:
            self.act_head = ActHead(
                config.total_latent_size,
                self.context_size,
                config.act_hidden_size,
                config.num_acts,
                config.act_embedding_size,
                dtype=self.encoder.dtype,
            )
        if config.context_encoding == "hierarchical":
            # The Trainer collects its main input for metrics and pads one dimension, while turns in `input_ids` have two.
            has_prompt = config.source_conditioning == "prompt"
            self.main_input_name = "prompt_input_ids" if has_prompt else "posterior_input_ids"
        self.post_init()

    @property
    def source_readers(self) -> frozenset[str]:
        """Who reads the dialogue through an encoder: q does, and so may the prior, the decoder, the acts and the bag of words."""
        # Not by way of `super()`: a property of a base class breaks a compiled graph.
        readers = {
            "posterior": True,
            "prior": self.config.prior_reads_source,
            "decoder": self.config.source_conditioning != "prompt",
            "acts": self.config.num_acts is not None,
            "bow": bool(self.config.bow_loss_weight),
        }
        return frozenset(name for name, reads in readers.items() if reads)

    @property
    def source_size(self) -> int:
        return self.encoder_hidden_size + self.config.meta_size

    @property
    def context_size(self) -> int:
        return self.source_size

    @property
    def recognition_size(self) -> int:
        return self.encoder_hidden_size + self.source_size + self.config.act_size

    @property
    def latent_modules(self) -> list[nn.Module]:
        hierarchical = self.config.context_encoding == "hierarchical"
        turns = [self.turn_encoder] if hierarchical and not self.encodes_source_for_y else []
        return [*super().latent_modules, *turns]

    def longest_context(self, max_new_tokens: int | None = None, generation_config: GenerationConfig | None = None) -> int | None:
        """
        Most tokens of a context that encoder and decoder can read, so that the reply has room behind it.

        Args:
            max_new_tokens (`int`, *optional*): longest reply; by default as `generation_config` has it, or `LEAST_ROOM`.
            generation_config (`GenerationConfig`, *optional*): by default the model's.

        Returns:
            The number, or `None` if there is no limit.

        Raises:
            ValueError: the reply alone takes all of the decoder's positions.
        """
        if max_new_tokens is None:
            config = generation_config or cast(GenerationConfig, self.generation_config)
            # The start token counts in `max_length`.
            max_new_tokens = config.max_new_tokens or (config.max_length or LEAST_ROOM + 1) - 1
        limits = [longest_text(self.encoder.config, reserved_positions(self.encoder))]
        positions = self.decoder.longest_text
        if positions is not None and self.config.source_conditioning == "prompt":
            if positions <= max_new_tokens:
                raise ValueError(
                    f"`max_new_tokens` is {max_new_tokens}, and the decoder holds {positions} tokens: no room is left for the "
                    "dialogue. Lower it."
                )
            limits.append(positions - max_new_tokens)
        return min((limit for limit in limits if limit is not None), default=None)

    def read_source(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_input_ids: torch.LongTensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        same_speaker: torch.Tensor | None = None,
        meta_categories: torch.LongTensor | None = None,
        meta_values: torch.Tensor | None = None,
        with_prior: bool = True,
    ) -> EncodedSource:
        """
        The dialogue as the prior, q, the acts and the decoder read it.

        Args:
            input_ids, attention_mask (`(batch, source)`): the turns as one text; `(batch, turns, length)` with
                `context_encoding="hierarchical"`, where 0 in the mask of a whole turn says that there is none.
            prompt_input_ids, prompt_attention_mask, with_prior: as in [`ConditionalVAEModel.read_source`].
            same_speaker (`torch.Tensor` of shape `(batch, turns)`, *optional*): 1 if a turn's speaker is the one who replies;
                needed with `"hierarchical"`.
            meta_categories, meta_values (`(batch, features)`, *optional*): what else is known, as configured.

        Raises:
            ValueError: something is missing, malformed, padding only, or longer than the encoder holds.
        """
        if input_ids is None:
            raise ValueError("`input_ids` is missing: an encoder reads the dialogue's turns.")
        check_rows(len(input_ids), meta_categories=meta_categories, meta_values=meta_values)
        meta = None
        if self.config.meta_size:
            meta = self.meta_embedding(meta_categories, meta_values)
        elif meta_categories is not None or meta_values is not None:
            raise ValueError("`meta_categories` or `meta_values` are given, but the model is configured without any.")
        prompt = (prompt_input_ids, prompt_attention_mask)
        if self.config.context_encoding == "flat":
            source = super().read_source(input_ids, attention_mask, *prompt, with_prior)
        else:
            source = self._visible_source(input_ids, attention_mask, *prompt)
            self._read_turns(source, input_ids, same_speaker)
        if meta is not None:
            source.meta = meta
            source.vector = torch.cat([cast(torch.Tensor, source.vector), meta.to(source.vector)], dim=-1)
        return source

    def _read_turns(self, source: EncodedSource, input_ids: torch.Tensor, same_speaker: torch.Tensor | None) -> None:
        """Encodes each turn by itself and then the turns: `source`, which has the mask of the words, gets states of turns."""
        attention_mask = source.attention_mask
        if input_ids.ndim != 3:
            raise ValueError(
                f"`input_ids` has shape {tuple(input_ids.shape)}; with `context_encoding='hierarchical'` it is "
                "(batch, turns, length)."
            )
        if same_speaker is None or same_speaker.shape != input_ids.shape[:2]:
            found = None if same_speaker is None else tuple(same_speaker.shape)
            raise ValueError(f"`same_speaker` has shape {found}; expected one bit a turn, {tuple(input_ids.shape[:2])}.")
        check_tokens("input_ids", input_ids, self.encoder.config, dimensions=3)
        check_mask("attention_mask", attention_mask, input_ids)
        words = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = words.any(-1)
        check_attention_mask("attention_mask", mask)
        if not torch.compiler.is_compiling() and bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ValueError("`attention_mask` has a turn after one that is all padding; turns come first, padding after the last.")
        encoder = self.encoder if self.config.tie_encoders else self.source_encoder
        # Turns that are not there are not read: an encoder may not take a text of padding alone.
        vectors = read_visible("input_ids", encoder, self.config.vector_pooling, input_ids[mask], words[mask])
        turns = vectors.new_zeros(*mask.shape, vectors.shape[-1]).masked_scatter(mask.unsqueeze(-1), vectors)
        source.hidden_states, source.vector = self.turn_encoder(turns, same_speaker, mask)
        source.attention_mask = mask.long()

    def encode(
        self,
        posterior_input_ids: torch.LongTensor | None = None,
        posterior_attention_mask: torch.Tensor | None = None,
        posterior_token_type_ids: torch.LongTensor | None = None,
        source: EncodedSource | None = None,
        act_labels: torch.LongTensor | None = None,
        **x: Any,
    ) -> LatentOutput:
        """
        The recognition network q(z|x,y), or q(z|x,y,a) with acts: one linear layer over the vectors of the dialogue, of what holds
        the reply, and of the act, 0 if it is not known.

        Args:
            posterior_input_ids, posterior_attention_mask, posterior_token_type_ids (`(batch, length)`): turns and reply together;
                the reply by itself with `context_encoding="hierarchical"`.
            source ([`EncodedSource`], *optional*): what `read_source` has made of the dialogue.
            act_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): the reply's act, -100 if it is not known.
            x: in the place of `source`, the arguments of `read_source`.

        Raises:
            ValueError: an input is missing or malformed.
        """
        if posterior_input_ids is None:
            raise ValueError(
                "`posterior_input_ids` is missing: q(z|x,y) reads the reply. The processor makes it if `text_target` is given."
            )
        source = self.read_source(**x) if source is None else check_source(source)
        check_rows(len(source), posterior_input_ids=posterior_input_ids)
        self._check_acts(act_labels, len(source))
        pair = (posterior_input_ids, posterior_attention_mask, posterior_token_type_ids)
        read = self.read_for_posterior("posterior_input_ids", *pair)
        parts = [cast(torch.Tensor, source.vector)]
        if self.config.num_acts is not None:
            unknown = read.new_zeros(len(read), self.config.act_size)
            parts.append(unknown if act_labels is None else self.act_head.embed(act_labels, unknown))
        return LatentOutput(latent_dist=self.posterior_head(beside(read, *parts)))

    def _check_acts(self, act_labels: torch.Tensor | None, rows: int) -> None:
        if act_labels is not None and self.config.num_acts is None:
            raise ValueError("`act_labels` are given, but the model is configured without acts (`num_acts`).")
        if act_labels is not None:
            check_rows(rows, act_labels=act_labels)
            if act_labels.ndim != 1 or act_labels.is_floating_point() or act_labels.dtype is torch.bool:
                raise ValueError(
                    f"`act_labels` has shape {tuple(act_labels.shape)} and holds {act_labels.dtype}; give one whole number for "
                    "each dialogue."
                )

    def condition(
        self, source: EncodedSource | None = None, act_labels: torch.LongTensor | None = None, **x: Any
    ) -> dict[str, Any]:
        """
        What the decoder and the acts are given of x, one row per example; and the acts that are asked for.

        Args:
            source ([`EncodedSource`], *optional*): what `read_source` has made of the dialogue.
            act_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): the reply's act, -100 if it is not known.
            x: in the place of `source`, the arguments of `read_source`.
        """
        source = self.read_source(**x) if source is None else check_source(source)
        self._check_acts(act_labels, len(source))
        further = {"context": source.vector, "meta": source.meta, "act_labels": act_labels}
        return {**super().condition(source), **{name: each for name, each in further.items() if each is not None}}

    def context_vector(self, conditioning: dict[str, Any]) -> torch.Tensor:
        return conditioning["context"]

    def predict_acts(self, latents: torch.Tensor, context: torch.Tensor, **conditioning) -> torch.Tensor:
        """
        log p(a|x,z), `(rows, num_acts)`.

        Args:
            latents (`torch.Tensor` of shape `(rows, latent_size)`).
            context (`torch.Tensor` of shape `(rows, context_size)`): x's vector, as [`~DialogCVAEModel.condition`] gives it;
                whatever else it gives is not read.

        Raises:
            ValueError: a model without acts.
        """
        if self.config.num_acts is None:
            raise ValueError("The model is configured without acts (`num_acts`), so it predicts none.")
        return self.act_head(latents, context)

    def decoder_latents(self, latents, context=None, meta=None, act_labels=None, act_log_probs=None, **conditioning):
        """z, the embedding of the act, or the mean embedding under p(a|x,z) if it is not known, and the meta features."""
        # Of several z for each row, each has what its row has.
        context, meta, act_labels, act_log_probs = (
            each if each is None else match_rows(each, len(latents)) for each in (context, meta, act_labels, act_log_probs)
        )
        parts = [latents]
        if self.config.num_acts is not None:
            act_log_probs = self.act_head(latents, context) if act_log_probs is None else act_log_probs
            expected = self.act_head.expected(act_log_probs)
            parts.append(expected if act_labels is None else self.act_head.embed(act_labels, expected))
        if meta is not None:
            parts.append(meta)
        return torch.cat([part.to(latents) for part in parts], dim=-1), conditioning

    def nll(self, latents: torch.Tensor, labels: torch.LongTensor, **conditioning) -> torch.Tensor:
        """
        -log p(y|x,z) of each z, nats per sentence. With acts it is -log Σ_a p(a|x,z) p(y|x,z,a), by going through all of them; if
        `conditioning` has `act_labels`, it is -log p(y|x,z,a) of those, or of the mean embedding if the act is -100.
        """
        if self.config.num_acts is None or "act_labels" in conditioning:
            return super().nll(latents, labels, **conditioning)
        if "act_log_probs" not in conditioning:
            conditioning["act_log_probs"] = self.act_head(latents, match_rows(conditioning["context"], len(latents)))
        joint = []
        for act, log_prob in enumerate(match_rows(conditioning["act_log_probs"], len(latents)).unbind(-1)):
            act_labels = torch.full((len(labels),), act, device=labels.device)
            joint.append(log_prob - super().nll(latents, labels, act_labels=act_labels, **conditioning))
        return -torch.stack(joint).logsumexp(0)

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
        same_speaker: torch.Tensor | None = None,
        meta_categories: torch.LongTensor | None = None,
        meta_values: torch.Tensor | None = None,
        act_labels: torch.LongTensor | None = None,
        latents: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_logits: bool | None = None,
        return_dict: bool | None = None,
    ) -> VAEOutput | tuple:
        r"""
        The negative conditional ELBO, as [`ConditionalVAEModel.forward`], and with acts that of y and a together:
        \(-\log p(y|x,z,a) - \log p(a|x,z) + \beta\,\mathrm{KL}(q(z|x,y,a) \,\|\, p(z|x))\) (Zhao et al. 2017, equation 6).

        Args:
            act_labels (`torch.LongTensor` of shape `(batch,)`, *optional*): the act of y. Where it is -100 or not given, training
                decodes with the mean embedding under p(a|x,z), and evaluation sums over all acts: -log Σ_a p(a|x,z) p(y|x,z,a).
            same_speaker, meta_categories, meta_values: as in [`~DialogCVAEModel.read_source`].

        The other arguments are [`ConditionalVAEModel.forward`]'s.

        Returns:
            [`VAEOutput`]; with acts, `reconstruction_loss` is -log p(y,a|x,z), of which `act_loss` is -log p(a|x,z), 0 if the
            act is not known, and `act_log_probs` is log p(·|x,z).

        Raises:
            ValueError: an input is missing or malformed.
        """
        labels = self.check_labels(labels)
        check_rows(labels.shape[0], input_ids=input_ids, prompt_input_ids=prompt_input_ids)
        x = (input_ids, attention_mask, prompt_input_ids, prompt_attention_mask, same_speaker, meta_categories, meta_values)
        source = self.read_source(*x, with_prior=latents is None)
        posterior = prior = None
        if latents is None:
            posterior = prior = self.prior(source, labels.shape[0]).latent_dist
            if self.config.has_posterior:
                reply = (posterior_input_ids, posterior_attention_mask, posterior_token_type_ids)
                posterior = self.encode(*reply, source, act_labels).latent_dist
        conditioning = self.condition(source, act_labels)
        return self.objective(labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict)

    def reconstruction_nll(self, latents, labels, conditioning, output: Any, with_logits: bool = False) -> torch.Tensor:
        """-log p(y,a|x,z), nats per sentence `(batch,)`; if a is not known, -log p(y|x,z), in training of the mean embedding."""
        if self.config.num_acts is None:
            return super().reconstruction_nll(latents, labels, conditioning, output, with_logits)
        act_labels = conditioning.get("act_labels")
        if act_labels is None:
            act_labels = torch.full((len(labels),), -100, device=labels.device)
        # Once for the decoder, the loss and the sum over acts.
        act_log_probs = self.act_head(latents, conditioning["context"])
        conditioning = {**conditioning, "act_labels": act_labels, "act_log_probs": act_log_probs}
        nll = super().reconstruction_nll(latents, labels, conditioning, output, with_logits)
        unknown = act_labels == -100
        if not self.training and bool(unknown.any()):
            rest = select_rows({name: each for name, each in conditioning.items() if name != "act_labels"}, unknown)
            nll = nll.masked_scatter(unknown, self.nll(latents[unknown], labels[unknown], **rest))
        output.act_log_probs = act_log_probs
        output.act_loss = nn.functional.nll_loss(act_log_probs, act_labels, ignore_index=-100, reduction="none")
        output.reconstruction_loss = nll + output.act_loss
        return output.reconstruction_loss


__all__ = ["DialogCVAEModel"]
