"""Reading text with an encoder: building one, its hidden states, and one vector of them for a text."""

import inspect

import torch
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel


def check_attention_mask(name: str, mask: torch.Tensor | None) -> None:
    """Raises a `ValueError` that names the rows of `mask` that hold nothing but padding."""
    if mask is None or torch.compiler.is_compiling():
        return
    empty = (mask.sum(-1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"`{name}` is all padding in row(s) {empty}: every row needs at least one token.")


def check_length(name: str, mask: torch.Tensor, config: PreTrainedConfig) -> None:
    """Raises a `ValueError` where a row of `mask` has more tokens than the model of `config` was built for."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and mask.shape[1] > longest and (length := int(mask.sum(-1).max())) > longest:
        raise ValueError(
            f"{name} is {length} tokens long, but {type(config).__name__} holds {longest} (`max_position_embeddings`): "
            "truncate the text, for instance with the processor's `max_length`."
        )


def build_encoder(config: PreTrainedConfig, pooling: str, name_or_path: str | None = None, **kwargs) -> PreTrainedModel:
    """The encoder of `config`, with random weights or those of `name_or_path`, and without a pooler that nothing reads."""
    model_class = MODEL_MAPPING.get(type(config), None)
    has_pooler = isinstance(model_class, type) and "add_pooling_layer" in inspect.signature(model_class).parameters
    if has_pooler and pooling != "pooler":
        # Parameters without a gradient break distributed training under gradient checkpointing.
        kwargs["add_pooling_layer"] = False
    if name_or_path is None:
        encoder = AutoModel.from_config(config, **kwargs)
    else:
        encoder = AutoModel.from_pretrained(name_or_path, config=config, **kwargs)
    if encoder.config.is_encoder_decoder:
        raise ValueError(f"The encoder {type(encoder).__name__} is an encoder-decoder: pass an encoder on its own.")
    if getattr(encoder.config.get_text_config(), "hidden_size", None) is None:
        raise ValueError(f"The encoder {type(encoder).__name__} states no `hidden_size`, so it has no hidden states to pool.")
    return encoder


def read_text(
    name: str,
    encoder: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Last hidden states `(batch, length, hidden)` and, where the encoder has one, its pooler's output `(batch, hidden)`. `name` is
    what the caller calls `input_ids`.

    Raises:
        ValueError: a row of padding only, more tokens than the encoder holds, or an encoder without hidden states.
    """
    check_attention_mask(name.replace("input_ids", "attention_mask"), attention_mask)
    # An encoder may count its positions over padding too.
    check_length(f"`{name}`", torch.ones_like(input_ids), encoder.config)
    optional = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    outputs = encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **optional)
    hidden_states = getattr(outputs, "last_hidden_state", None)
    if hidden_states is None:
        raise ValueError(f"The encoder {type(encoder).__name__} returns no `last_hidden_state`, so there is nothing to pool.")
    return hidden_states, getattr(outputs, "pooler_output", None)


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
    if pooling == "mean":
        if attention_mask is None:
            return hidden_states.mean(1)
        mask = attention_mask.unsqueeze(-1).to(hidden_states)
        return (hidden_states * mask).sum(1) / mask.sum(1)
    if pooler_output is None:
        raise ValueError("`pooling='pooler'`: the encoder has no pooler; choose 'mean' or 'first'.")
    return pooler_output
