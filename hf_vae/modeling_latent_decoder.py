"""p(y|x,z): any causal language model, reading a latent."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .checks import check_choice
from .compat import CACHE, takes_cache
from .encoders import check_length, longest_text
from .head_input import head_reads, open_head
from .latent_injection import LATENT_INJECTIONS, DecoderShape, LatentInjection
from .latent_vectors import build_injections
from .modeling_lstm import kept_positions
from .rows import match_rows
from .source_cache import GROWING, SourceCache, layer_kinds, num_read
from .wrapped_lm import WrappedLM, count_positions


def without_cache(outputs: ModelOutput) -> Any:
    """`outputs` without the cache: an output forgets no item that is set to None."""
    return type(outputs)(**{name: value for name, value in outputs.items() if name != CACHE})


def split_kept(logits_to_keep: int | torch.Tensor, ahead: int, length: int) -> tuple[torch.Tensor, int | torch.Tensor]:
    """Which of the first `ahead` of `length` tokens' logits `logits_to_keep` means, and which of the others'."""
    if isinstance(logits_to_keep, torch.Tensor):
        return logits_to_keep[logits_to_keep < ahead], logits_to_keep[logits_to_keep >= ahead] - ahead
    kept = logits_to_keep or length
    return torch.arange(min(max(length - kept, 0), ahead), ahead), min(kept, length - ahead)


class LatentDecoder(WrappedLM, GenerationMixin):
    r"""
    A causal LM that reads `latents`, in one or several of the ways of `latent_injection.py`: `embedding`, `memory`, `prefix`,
    `logits`.

    Masks and positions stay the LM's own, and generation stays GenerationMixin's: `latents` is one more tensor that it repeats for
    beams and hands to every step. What `memory` and `prefix` have put into a cache stays there, and so does what cross-attention
    has read: a generation that goes on from a returned cache needs the same z and the same source.

    Args:
        config (`PreTrainedConfig`): the LM's own configuration, shared with it.
        latent_size (`int`): numbers that it reads as its latent: z's, and what enters beside z.
        lm (`PreTrainedModel`, *optional*): the language model; built from `config` if it is not given.
        latent_injection (`Sequence[str]`, defaults to `("embedding",)`): the ways in.
        prefix_length (`int`, defaults to 4): embeddings that stand for z with `prefix`.
        num_latents (`int`, defaults to 1): vectors that z consists of.
        beside_size (`int`, defaults to 0): how many of the last of these numbers are not z's.

    Raises:
        ValueError: a way in that does not exist or that this LM does not have.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        latent_size: int,
        lm: PreTrainedModel | None = None,
        latent_injection: Sequence[str] = ("embedding",),
        prefix_length: int = 4,
        num_latents: int = 1,
        beside_size: int = 0,
    ):
        for way in latent_injection:
            check_choice("latent_injection", way, tuple(LATENT_INJECTIONS))
        super().__init__(config, lm)
        self.latent_size = latent_size
        # A language model that is given has been trained; z starts gently in it.
        self.shape = DecoderShape(self.lm, prefix_length, lm is not None, num_latents, beside_size)
        self.recurrent = self.shape.recurrent
        self.embedding_size = self.shape.embedding_size
        # What else has a row for each word, in the model around this one.
        self.heads_by_word: list[Any] = []
        self.latent_injection = build_injections(latent_injection, latent_size, self.shape)
        self.has_state = any(way.has_state for way in self.injections)
        self.changes_head_input = any(way.changes_head_input for way in self.injections)
        # If no layer reads z, there may be several z for each row of tokens, which the layers then read once.
        self.layers_read_latents = any(way.changes_layers for way in self.injections)
        self._open_head()
        self.prefix_length = sum(way.prefix_length for way in self.injections)
        # Positions in front of the first token that only z fills.
        self.num_latent_positions = self.prefix_length
        if not self.recurrent:
            self.num_latent_positions += max(way.state_length for way in self.injections)
        self.post_init()

    @property
    def injections(self) -> list[LatentInjection]:
        """The ways in for z."""
        return cast(list[LatentInjection], list(self.latent_injection.values()))

    @property
    def longest_text(self) -> int | None:
        """Most tokens that the LM was built for, beside what z fills; `None`: any number."""
        return longest_text(self.config, self.num_latent_positions + self.position_offset)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        for way in self.injections:
            # Module by module, because transformers passes over modules that have no weights of their own.
            if any(module is each for each in way.modules()):
                way.init_weights(module)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """As `PreTrainedModel.resize_token_embeddings`; what else has a row for each word follows."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        for head in self.heads_by_word:
            head.resize(self.config.get_text_config().vocab_size)
        self._open_head()
        return embeddings

    def set_output_embeddings(self, value: nn.Module):
        super().set_output_embeddings(value)
        self._open_head()

    def _open_head(self) -> None:
        # Before a compiler looks, which cannot follow a hook that is added meanwhile.
        if self.changes_head_input:
            open_head(self.lm.get_output_embeddings())

    @can_return_tuple
    @takes_cache
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        latents: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        initial_state: torch.Tensor | None = None,
        source_length: int = 0,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """
        One pass of the LM over `input_ids` of shape `(rows, length)`, given `latents` of shape `(rows, latent_size)`; if no layer
        reads z (`layers_read_latents`), as many logits as there are z, several for each row of tokens in succession.

        Args:
            source_length (`int`, defaults to 0): how many tokens of the text, counted from its beginning, are a source that is read
                without z. z enters behind them, so their keys and values are the same for every z ([`~LatentDecoder.prefill`]).
            initial_state (`torch.Tensor`, *optional*): of a recurrent LM the c that it starts from, added to z's, of shape
                `(rows, sum of its layers' widths)`.

        Returns the LM's own output. Its logits at a token predict the next one, as in any causal LM; attentions, hidden states and
        the cache also hold the positions that z fills. With `memory` and `prefix` the LM reads a source by itself first, and
        attentions and hidden states are of what follows it.

        Raises:
            ValueError: `latents` are missing, there are more tokens than positions beside those that z fills, padding stands
                in front of tokens of an LM that counts its positions over it, an `initial_state` meets a source that the LM reads,
                or `memory` or `prefix` meet a cache of fixed size or gradient checkpointing, which cannot hold them.
        """
        if latents is None:
            raise ValueError("`latents` is missing: the decoder models p(y|x,z) and needs a z of shape (rows, latent_size).")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        # Follow the embeddings' dtype: quantised weights report an integer one.
        latents = latents.to(inputs_embeds)
        self._check_pass(attention_mask, cache, initial_state, source_length)
        states = {"encoder_hidden_states": encoder_hidden_states, "encoder_attention_mask": encoder_attention_mask}
        kwargs.update(states if encoder_hidden_states is not None else {})
        # Asked of the cache only if the answer matters: one of fixed size counts in a tensor, which would break the graph.
        fills = self.has_state or self.prefix_length or initial_state is not None
        length, read = inputs_embeds.shape[1], 0
        if cache is not None and (fills or source_length or self.position_offset):
            read = self._without_latents(num_read(cache, attention_mask, length), source_length)
        if fills and read < source_length < read + length:
            tokens = (inputs_embeds, attention_mask, position_ids, cache)
            return self._read_in_turn(tokens, source_length - read, latents, source_length, use_cache, logits_to_keep, **kwargs)
        asked_for_cache = cache is not None or use_cache is not False
        enters = fills and read <= source_length < read + length
        columns = read + torch.arange(length, device=inputs_embeds.device)
        if reserved := self.num_latent_positions + self.position_offset:
            if enters or read == 0:
                mask = inputs_embeds.new_ones(len(inputs_embeds), read + length) if attention_mask is None else attention_mask
                check_length("What the decoder reads", mask, self.config, reserved)
            position_ids = self._positions(columns, attention_mask, position_ids, source_length)
            if read + length > source_length:
                attention_mask = self._with_slots(attention_mask, source_length)
        with_latents = inputs_embeds
        for way in self.injections:
            with_latents = way.embed(with_latents, latents)
        if source_length and not (isinstance(read, int) and read >= source_length):
            with_latents = torch.where((columns >= source_length).unsqueeze(-1), with_latents, inputs_embeds)
        if enters and (self.has_state or initial_state is not None):
            cache = self._begin_from_states(latents, initial_state, cache)
        if enters and self.prefix_length:
            prefix = self.soft_tokens(latents)
            with_latents = torch.cat([prefix, with_latents], dim=1)
            tokens_at = cast(torch.Tensor, position_ids)
            in_front = tokens_at[:, :1] + torch.arange(-prefix.shape[1], 0, device=latents.device)
            position_ids = torch.cat([in_front, tokens_at], dim=1).expand(len(latents), -1)
            if isinstance(logits_to_keep, torch.Tensor):
                logits_to_keep = logits_to_keep + prefix.shape[1]
            elif logits_to_keep == 0:
                logits_to_keep = length
            columns = torch.cat([columns[:1].expand(prefix.shape[1]), columns])
        knows_latents = columns >= source_length if source_length else None
        if knows_latents is not None and self.takes_logits_to_keep:
            knows_latents = knows_latents[kept_positions(logits_to_keep)]
        with self._at_head(latents, knows_latents):
            outputs = self.read(with_latents, attention_mask, position_ids, cache, use_cache, logits_to_keep, **kwargs)
        return outputs if asked_for_cache else without_cache(outputs)

    def _at_head(self, latents: torch.Tensor, knows_latents: torch.Tensor | None) -> AbstractContextManager[None]:
        """While it is open, z is in what the head reads at the positions, `(length,)`, that know z; `None`: at all."""

        def with_latents(hidden_states: torch.Tensor) -> torch.Tensor:
            # One z for all rows is one for each.
            rows = hidden_states.shape[0] if latents.shape[0] == 1 else latents.shape[0]
            changed = hidden_states = match_rows(hidden_states, rows)
            for way in self.injections:
                changed = way.head_input(changed, latents)
            return changed if knows_latents is None else torch.where(knows_latents.view(1, -1, 1), changed, hidden_states)

        return head_reads(self.lm.get_output_embeddings(), with_latents) if self.changes_head_input else nullcontext()

    def _read_in_turn(self, tokens, ahead, latents, source_length, use_cache, logits_to_keep, **kwargs) -> CausalLMOutputWithPast:
        """The source, which are the `ahead` first of `tokens`, and then the others, in front of which z fills positions."""
        inputs_embeds, attention_mask, position_ids, cache = tokens
        self.shape.check_checkpointing(self.lm)
        asked_for_cache = cache is not None or use_cache is not False
        cache = DynamicCache(config=self.config) if cache is None else cache
        outputs = []
        kept = split_kept(logits_to_keep, ahead, inputs_embeds.shape[1])
        for part, logits in zip((slice(ahead), slice(ahead, None)), kept):
            until = None if attention_mask is None else attention_mask[:, : source_length if part.stop else None]
            positions = None if position_ids is None else position_ids[:, part]
            outputs.append(
                self.forward(
                    inputs_embeds=inputs_embeds[:, part],
                    latents=latents,
                    attention_mask=until,
                    position_ids=positions,
                    source_length=source_length,
                    use_cache=True,
                    logits_to_keep=logits,
                    return_dict=True,
                    **{CACHE: cache},
                    **kwargs,
                )
            )
            cache = outputs[-1][CACHE]
        last = outputs[-1]
        last.logits = torch.cat([each.logits for each in outputs], dim=1)
        return last if asked_for_cache else without_cache(last)

    def prefill(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None = None, **states: torch.Tensor | None
    ) -> SourceCache:
        """
        Reads a source once, for as many continuations as there are z, each of which goes on from a fork of what is returned.

        Args:
            input_ids (`torch.LongTensor` of shape `(rows, source)`, *optional*): the source; `None` if the LM reads one by
                cross-attention alone.
            attention_mask (`torch.Tensor` of shape `(rows, source)`, *optional*): 0 on padding.
            states: `encoder_hidden_states` and `encoder_attention_mask`, if the LM reads by cross-attention.

        Raises:
            ValueError: there is nothing to read, more tokens than positions, or layers whose states several continuations
                cannot share (`shares_source` is false).
        """
        if not self.shares_source:
            raise ValueError(
                f"{type(self.lm).__name__} keeps of a source what several continuations cannot share "
                f"({', '.join(self.unshared_layers)}): have each row read its source itself."
            )
        by_cross_attention = states.get("encoder_hidden_states")
        tokens = input_ids
        if tokens is None:
            if by_cross_attention is None:
                raise ValueError("Neither `input_ids` nor `encoder_hidden_states` is given: there is no source to read.")
            # The keys of cross-attention do not depend on what looks at them: any token will do, and is forgotten below.
            tokens = torch.zeros(len(by_cross_attention), 1, dtype=torch.long, device=by_cross_attention.device)
        mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
        output = self(
            input_ids=tokens,
            # All of it is read without z.
            latents=torch.zeros(len(tokens), self.latent_size, device=tokens.device),
            attention_mask=mask,
            position_ids=count_positions(mask),
            source_length=tokens.shape[1],
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: DynamicCache(config=self.config)},
            **states,
        )
        cache = output[CACHE]
        if input_ids is None:
            cache = EncoderDecoderCache(DynamicCache(config=self.config), cache.cross_attention_cache)
        return SourceCache(cache)

    def prompt_embeds(self, input_ids: torch.LongTensor, latents: torch.Tensor, source_length: int = 0) -> torch.Tensor:
        """`(rows, prefix_length + length, embedding size)`: what the LM is given of z, with `prefix`, and of the tokens."""
        tokens = self.get_input_embeddings()(input_ids)
        return torch.cat([tokens[:, :source_length], self.soft_tokens(latents.to(tokens)), tokens[:, source_length:]], dim=1)

    def soft_tokens(self, latents: torch.Tensor) -> torch.Tensor:
        """The embeddings that stand for z in front of the first token, `(rows, prefix_length, size)`."""
        prefixes = (way.prefix(latents) for way in self.injections)
        return torch.cat([prefix for prefix in prefixes if prefix is not None], dim=1)

    def _check_pass(self, attention_mask, cache, initial_state, source_length) -> None:
        if self.num_latent_positions and cache is not None and not set(layer_kinds(cache)) <= GROWING:
            raise ValueError(
                "`latent_injection` names 'memory' or 'prefix', which need a cache that grows: leave `cache_implementation` unset."
            )
        if initial_state is not None and not self.recurrent:
            raise ValueError(f"`initial_state` is for recurrent decoders; {type(self.lm).__name__} has no state to start from.")
        if initial_state is not None and source_length:
            raise ValueError(
                "`initial_state` and `source_length` are both given: the LM reads its source in one way or in the other."
            )
        self.check_padding(attention_mask)

    def _without_latents(self, length: int, source_length: int) -> int:
        """How many of `length` positions in a cache are tokens': those that z fills stand behind the source."""
        return length - self.num_latent_positions if self.num_latent_positions and length > source_length else length

    def _positions(self, columns, attention_mask, position_ids, source_length) -> torch.Tensor:
        """
        Of the tokens in these `columns` of the text: counted from the first one, as `generate` counts them and gives them in
        `position_ids`, and those behind the source moved on by what z fills.
        """
        if position_ids is None and attention_mask is not None:
            position_ids = count_positions(attention_mask)[:, -len(columns) :]
        counted = columns.unsqueeze(0) if position_ids is None else position_ids
        return counted + self.position_offset + self.num_latent_positions * (columns >= source_length)

    def _with_slots(self, attention_mask: torch.Tensor | None, source_length: int) -> torch.Tensor | None:
        """The mask of a text with the positions that z fills behind the source."""
        if attention_mask is None:
            return None
        slots = attention_mask.new_ones(len(attention_mask), self.num_latent_positions)
        return torch.cat([attention_mask[:, :source_length], slots, attention_mask[:, source_length:]], dim=1)

    def _begin_from_states(self, latents: torch.Tensor, initial_state: torch.Tensor | None, cache: Cache | None) -> Cache:
        """What z, and for an LSTM the source, gives every layer, put in the cache before anything else is read."""
        self.shape.check_checkpointing(self.lm)
        cache = DynamicCache(config=self.config) if cache is None else cache
        states = [state for way in self.injections if (state := way.state(latents)) is not None]
        states += [] if initial_state is None else [initial_state.to(latents)]
        return self.shape.write_states(states, cache)

    @takes_cache
    def prepare_inputs_for_generation(
        self,
        input_ids,
        next_sequence_length=None,
        cache=None,
        inputs_embeds=None,
        unread_from=None,
        unread_token_id=None,
        **kwargs,
    ):
        """
        GenerationMixin's, for whom the cache has z's positions too. From the position `unread_from` on, `unread_token_id` is read
        in the place of the words.
        """
        # `inputs_embeds` stands here by name because generation looks for it before it takes any.
        if unread_from is not None:
            written = torch.arange(input_ids.shape[1], device=input_ids.device) >= unread_from
            input_ids = input_ids.masked_fill(written, unread_token_id)
        if next_sequence_length is not None and kwargs.get("is_first_iteration") and cache is not None:
            # Told from the length of the cache, in which z has positions of its own.
            length = cache.get_seq_length()
            next_sequence_length += length - self._without_latents(length, kwargs.get("source_length", 0))
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            inputs_embeds=inputs_embeds,
            **{CACHE: cache},
            **kwargs,
        )


__all__ = ["LatentDecoder"]
