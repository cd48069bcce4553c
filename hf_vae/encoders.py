"""Reading text with an encoder: building one, its hidden states, and one vector of them for a text."""

import inspect
from typing import Any, Protocol

import torch
from torch import nn
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
)


def check_attention_mask(name: str, mask: torch.Tensor | None) -> None:
    """Raises a `ValueError` that names the rows of `mask` that hold nothing but padding."""
    if mask is None or torch.compiler.is_compiling():
        return
    empty = (mask.sum(-1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"`{name}` is all padding in row(s) {empty}: every row needs at least one token.")


def check_tokens(name: str, tokens: torch.Tensor, config: PreTrainedConfig, dimensions: int = 2) -> None:
    """
    Raises a `ValueError` unless `tokens` are whole numbers, have this number of `dimensions` and something in each, and are of the
    vocabulary of the model of `config`. In labels -100 stands for no token.
    """
    if not isinstance(tokens, torch.Tensor) or tokens.dtype not in (torch.int64, torch.int32):
        found = tokens.dtype if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ValueError(f"`{name}` holds {found}; give a tensor of token ids, which are whole numbers (`torch.long`).")
    if tokens.ndim != dimensions or 0 in tokens.shape:
        shape = "(batch, turns, length)" if dimensions == 3 else "(batch, length)"
        raise ValueError(f"`{name}` has shape {tuple(tokens.shape)}; expected {shape} with at least one row and one token.")
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    # Looking at the numbers of a GPU waits for it, at every step of a training.
    trains_elsewhere = tokens.device.type != "cpu" and torch.is_grad_enabled()
    if vocabulary is None or trains_elsewhere or torch.compiler.is_compiling():
        return
    lowest, highest = tokens.aminmax()
    if lowest >= 0 and highest < vocabulary:
        return
    outside = (tokens < 0) | (tokens >= vocabulary)
    if name == "labels":
        outside &= tokens != -100
    if bool(outside.any()):
        raise ValueError(
            f"`{name}` holds {tokens[outside].unique()[:5].tolist()}, and the vocabulary of {type(config).__name__} has "
            f"{vocabulary} tokens, from 0 on: use the tokenizer that belongs to this part, or resize the part's vocabulary."
        )


def check_mask(name: str, mask: torch.Tensor | None, tokens: torch.Tensor) -> None:
    """Raises a `ValueError` unless `mask`, if there is one, says of each of `tokens` whether it is one."""
    if mask is not None and mask.shape != tokens.shape:
        raise ValueError(
            f"`{name}` has shape {tuple(mask.shape)} and what it masks {tuple(tokens.shape)}: give one bit for each token."
        )


def check_padding_side(name: str, mask: torch.Tensor | None) -> None:
    """
    Raises a `ValueError` where padding stands in front of the tokens of an encoder: most count their positions over it, and the
    vector of its first place would be a text's.
    """
    if mask is None or mask.ndim < 2 or torch.compiler.is_compiling():
        return
    mask = mask.flatten(0, -2)
    # A turn that is not there has no side.
    rows = ((mask[:, :1] == 0).any(-1) & mask.any(-1)).nonzero().flatten().tolist()
    if rows:
        raise ValueError(f"`{name}` has padding in front of the tokens in row(s) {rows}: pad on the right, as the processor does.")


def longest_text(config: PreTrainedConfig, reserved: int = 0) -> int | None:
    """Most tokens that the model of `config` was built for, `reserved` of its positions being for no token; `None`: any number."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if positions is None else positions - reserved


def check_length(name: str, mask: torch.Tensor, config: PreTrainedConfig, reserved: int = 0) -> None:
    """
    Raises a `ValueError` if a row of `mask` has more tokens than the model of `config` was built for; `reserved` of its
    positions are for no token.
    """
    longest = longest_text(config, reserved)
    if longest is None:
        return
    if mask.shape[1] > longest and (length := int(mask.sum(-1).max())) > longest:
        of_them = f" {longest + reserved}, of which {reserved} are for no token" if reserved else ""
        raise ValueError(
            f"{name} is {length} tokens long, but {type(config).__name__} holds {longest} (`max_position_embeddings`{of_them}): "
            "truncate the text, for instance with the processor's `max_length`."
        )


def reserved_positions(model: PreTrainedModel) -> int:
    """How many rows of `model`'s table of positions no token gets: RoBERTa's kind counts from behind its padding's row on."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == positions and module is not model.get_input_embeddings():
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def check_kind(encoder: PreTrainedModel) -> None:
    """Raises a `ValueError` if `encoder` is an encoder-decoder or has no hidden states."""
    if encoder.config.is_encoder_decoder:
        raise ValueError(f"The encoder {type(encoder).__name__} is an encoder-decoder: pass an encoder on its own.")
    if getattr(encoder.config.get_text_config(), "hidden_size", None) is None:
        raise ValueError(f"The encoder {type(encoder).__name__} states no `hidden_size`, so it has no hidden states to pool.")


def build_encoder(config: PreTrainedConfig, pooling: str, name_or_path: str | None = None, **kwargs) -> Any:
    """
    The encoder of `config`, with random weights or those of `name_or_path`, and without a pooler that nothing reads. Of an
    encoder-decoder its encoder, where transformers has a class for that alone (T5's kind). With `output_loading_info=True` what
    `from_pretrained` gives then.

    Raises:
        ValueError: the model reads no tokens, is an encoder-decoder, or has no hidden states.
    """
    auto_class: type[AutoModel] | type[AutoModelForTextEncoding] = AutoModel
    model_class = MODEL_MAPPING.get(type(config), None)
    if isinstance(model_class, type):
        inputs = inspect.signature(model_class.forward).parameters
        if "input_ids" not in inputs:
            raise ValueError(f"The encoder {model_class.__name__} takes no `input_ids`: it reads something else than text.")
        if "decoder_input_ids" in inputs and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
            auto_class = AutoModelForTextEncoding
        if "add_pooling_layer" in inspect.signature(model_class).parameters and pooling != "pooler":
            # Parameters without a gradient break distributed training under gradient checkpointing.
            kwargs["add_pooling_layer"] = False
    if name_or_path is None:
        built = auto_class.from_config(config, **kwargs)
    else:
        built = auto_class.from_pretrained(name_or_path, config=config, **kwargs)
    check_kind(built[0] if isinstance(built, tuple) else built)
    return built


def check_text(
    name: str,
    encoder: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None = None,
) -> None:
    """
    Raises a `ValueError` unless `encoder` can read this text, which the caller calls `name`. It refuses token ids of another
    vocabulary, a mask or types of another shape, a row of padding only, and more tokens than the encoder holds.
    """
    check_tokens(name, input_ids, encoder.config)
    check_mask(name.replace("input_ids", "attention_mask"), attention_mask, input_ids)
    check_attention_mask(name.replace("input_ids", "attention_mask"), attention_mask)
    if token_type_ids is not None and token_type_ids.shape != input_ids.shape:
        raise ValueError(
            f"`{name.replace('input_ids', 'token_type_ids')}` has shape {tuple(token_type_ids.shape)}, and `{name}` "
            f"{tuple(input_ids.shape)}: they go together, token by token."
        )
    # An encoder may count its positions over padding too.
    check_length(f"`{name}`", torch.ones_like(input_ids), encoder.config, reserved_positions(encoder))


def reads_types(encoder: PreTrainedModel) -> bool:
    """Whether `encoder` has an embedding for which of two texts a token is of: the processor says it of every pair."""
    return (getattr(encoder.config.get_text_config(), "type_vocab_size", None) or 0) > 1


def run_encoder(
    encoder: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    [`read_text`] of a text that was checked, by the encoder itself and never from a cache.

    Raises:
        ValueError: an encoder without hidden states.
    """
    optional = {"token_type_ids": token_type_ids} if reads_types(encoder) and token_type_ids is not None else {}
    outputs = encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **optional)
    hidden_states = getattr(outputs, "last_hidden_state", None)
    if hidden_states is None:
        raise ValueError(f"The encoder {type(encoder).__name__} returns no `last_hidden_state`, so there is nothing to pool.")
    return hidden_states, getattr(outputs, "pooler_output", None)


class OutputCache(Protocol):
    """
    What may stand at an encoder's `output_cache`: it gives what the encoder would, of texts that were checked. Who trains with a
    frozen encoder puts it there (`hf_vae.training.cache_encoder_outputs`).
    """

    def states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As [`run_encoder`]."""
        ...

    def vectors(
        self, pooling: str, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """As [`run_encoder`] and [`pool_text`]."""
        ...


def read_text(
    name: str,
    encoder: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Last hidden states `(batch, length, hidden)` and, if the encoder has one, its pooler's output `(batch, hidden)`. `name` is
    what the caller calls `input_ids`.

    Raises:
        ValueError: no token ids of this vocabulary, a mask of another shape, a row of padding only, more tokens than the encoder
            holds, or an encoder without hidden states.
    """
    check_text(name, encoder, input_ids, attention_mask, token_type_ids)
    cache: OutputCache | None = getattr(encoder, "output_cache", None)
    if cache is not None:
        return cache.states(input_ids, attention_mask, token_type_ids)
    return run_encoder(encoder, input_ids, attention_mask, token_type_ids)


@torch.no_grad()
def check_encoder(encoder: PreTrainedModel, pooling: str) -> None:
    """
    Reads a few tokens, so that an encoder that cannot serve is refused before anything is trained.

    Raises:
        ValueError: an encoder without hidden states, or without a pooler where `pooling` is `"pooler"`.
    """
    tokens = encoder.dummy_inputs["input_ids"].to(encoder.device)
    pool(pooling, *read_text("input_ids", encoder, tokens, None), None)


def pool(
    pooling: str, hidden_states: torch.Tensor, pooler_output: torch.Tensor | None, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """
    One vector `(batch, hidden)` for each text, as [`VAEConfig`] describes `pooling`.

    Raises:
        ValueError: `pooling` is `"pooler"` and the encoder has none.
    """
    if pooling == "first":
        return hidden_states[:, 0]
    if pooling in ("mean", "target"):
        if attention_mask is None:
            return hidden_states.mean(1)
        mask = attention_mask.unsqueeze(-1).to(hidden_states)
        return (hidden_states * mask).sum(1) / mask.sum(1)
    if pooler_output is None:
        raise ValueError("`pooling='pooler'`: the encoder has no pooler; choose 'mean' or 'first'.")
    return pooler_output


def read_vector(
    name: str,
    encoder: PreTrainedModel,
    pooling: str,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    One vector `(batch, hidden)` for each text: what [`read_text`] gives, pooled. Padding must stand behind the tokens. With
    `pooling="target"` the tokens of type 1 alone are pooled, if there are types.
    """
    check_padding_side(name.replace("input_ids", "attention_mask"), attention_mask)
    return read_visible(name, encoder, pooling, input_ids, attention_mask, token_type_ids)


def read_visible(
    name: str,
    encoder: PreTrainedModel,
    pooling: str,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """[`read_vector`] of texts in which `attention_mask` may hide any token, the first ones too."""
    cache: OutputCache | None = getattr(encoder, "output_cache", None)
    if cache is not None:
        check_text(name, encoder, input_ids, attention_mask, token_type_ids)
        return cache.vectors(pooling, input_ids, attention_mask, token_type_ids)
    read = read_text(name, encoder, input_ids, attention_mask, token_type_ids)
    return pool_text(pooling, read, input_ids, attention_mask, token_type_ids)


def pool_text(
    pooling: str,
    read: tuple[torch.Tensor, torch.Tensor | None],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
) -> torch.Tensor:
    """[`pool`] of what [`read_text`] gave, with `pooling="target"` over the tokens of type 1, if there are types."""
    if pooling == "target" and token_type_ids is not None:
        tokens = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        of_target = tokens * token_type_ids
        # A pair that was truncated may have lost its target.
        attention_mask = torch.where(of_target.any(-1, keepdim=True), of_target, tokens)
    return pool(pooling, *read, attention_mask)
