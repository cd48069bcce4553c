"""A model and its processor from the arguments of a command: around pretrained parts, or from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from datasets import Dataset
from torch import nn

from ..configuration_vae import PARTS
from ..encoders import longest_text, reserved_positions
from ..modeling_conditional_vae import ConditionalVAEModel
from ..modeling_vae import VAEModel
from ..options.data import PairArguments
from ..options.model import ConditionalArguments, ModelArguments
from ..processing_conditional_vae import ConditionalVAEProcessor
from ..processing_vae import VAEProcessor, load_tokenizer
from ..training.learning_rates import new_weights
from ..training.new_modules import modules_to_save
from .from_scratch import small_configs, train_tokenizers
from .lora import parse_lora, target_modules

_SIZES = (
    "encoder_type", "decoder_type", "hidden_size", "embedding_size", "encoder_layers", "decoder_layers", "num_attention_heads",
    "initializer_range", "dropout", "recurrent_dropout", "tie_word_embeddings",
)  # fmt: skip


def build_model(
    model_class: type[VAEModel],
    processor_class: type[VAEProcessor],
    model_args: ModelArguments,
    texts: Iterable[str],
    encoder_tokens: int,
    decoder_tokens: int,
    config_of_data: Mapping[str, Any] | None = None,
    **processor_options,
) -> tuple[VAEModel, VAEProcessor]:
    """
    The model of `model_class` that the arguments describe, and its processor.

    Args:
        model_args ([`ModelArguments`]): those named like a field of the model's configuration become it.
        texts (iterable of `str`): what a vocabulary is learnt from, if the parts start from scratch.
        encoder_tokens, decoder_tokens (`int`): the most that each part will have to read, besides what stands around a source;
            parts that start from scratch are made for that.
        config_of_data (`dict`, *optional*): further fields of the model's configuration, which follow from the data.
        processor_options: passed to the processor.

    Raises:
        ValueError: an option or a part that cannot serve, or a pretrained part that does not hold that many tokens.
    """
    config_class: Any = model_class.config_class
    latent_options = {**config_options(config_class, model_args), **(config_of_data or {})}
    encoder_name, decoder_name = model_args.encoder_name_or_path, model_args.decoder_name_or_path
    if decoder_name:
        tokenizer = encoder_tokenizer = load_tokenizer(decoder_name)
    else:
        tokenizer, encoder_tokenizer = train_tokenizers(texts, model_args.vocab_size, model_args.tokenizer_type)
    if encoder_name:
        encoder_tokenizer = load_tokenizer(encoder_name)
    processor = processor_class(tokenizer, encoder_tokenizer, **processor_options)
    # One that had no padding token has it now.
    tokenizer = processor.tokenizer
    decoder_tokens += processor.template_length
    start = start_token(processor, model_args.decoder_start_token)
    if start is not None:
        latent_options["decoder_start_token_id"] = start
    if model_args.word_dropout:
        candidates = (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id)
        latent_options["word_dropout_token_id"] = next(token for token in candidates if token is not None)
    encoder: Any = encoder_name
    decoder: Any = decoder_name
    if not decoder:
        sizes = {name: getattr(model_args, name) for name in _SIZES}
        # z may stand on some positions too, with the memory on as many as there are vectors.
        filled = (model_args.prefix_length or max(4, model_args.num_latents)) + model_args.num_latents - 1
        longest = max(256, encoder_tokens, decoder_tokens + 1 + filled)
        small_encoder, decoder = small_configs(tokenizer, max_position_embeddings=longest, **sizes)
        encoder = encoder or small_encoder
    if encoder_name:
        freeze = [part for part in PARTS if model_args.save_trained_only and getattr(model_args, f"freeze_{part}")]
        model = model_class.from_encoder_decoder_pretrained(encoder, decoder, freeze=freeze, **latent_options)
    else:
        model = model_class(config_class(encoder=encoder, decoder=decoder, **latent_options))
    check_lengths(model, encoder_tokens, decoder_tokens)
    return model, processor


def build_conditional_model(
    model_class: type[ConditionalVAEModel],
    processor_class: type[ConditionalVAEProcessor],
    model_args: ConditionalArguments,
    data_args: PairArguments,
    max_new_tokens: int,
    train: Dataset,
) -> tuple[nn.Module, ConditionalVAEProcessor]:
    """
    [`build_model`] for pairs, frozen or with adapters as the arguments say.

    Args:
        model_class, processor_class: of a conditional model.
        model_args ([`ConditionalArguments`]): the model's.
        data_args ([`PairArguments`]): the lengths that it will have to read.
        max_new_tokens (`int`): what it will have to generate.
        train (`Dataset`): rows whose columns are texts, which a vocabulary is learnt from.

    Raises:
        ValueError: as [`build_model`].
    """
    source, target = data_args.max_source_length, data_args.max_target_length
    prompt = source if model_args.source_conditioning == "prompt" else 0
    model, processor = build_model(
        model_class,
        processor_class,
        model_args,
        texts=(text for row in train for text in row.values()),
        encoder_tokens=source + target,
        decoder_tokens=prompt + 1 + max(target, max_new_tokens),
        **prompt_options(model_args),
    )
    return freeze_or_adapt(model, model_args), cast(ConditionalVAEProcessor, processor)


def start_token(processor: VAEProcessor, text: str | None) -> int | None:
    """
    The id of the token that the target follows: that of `text`, or else the one that the processor's template ends with; `None`
    leaves it to the decoder.

    Raises:
        ValueError: `text` is not one token, or the template ends with another one.
    """
    if text is None:
        return processor.start_token_id
    tokenizer, text = processor.tokenizer, _with_newlines(text)
    known = tokenizer.get_vocab().get(text)
    tokens = [known] if known is not None else tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1 or (tokens[0] == tokenizer.unk_token_id and known is None):
        raise ValueError(
            f"`--decoder_start_token` is {text!r}, which the decoder's tokenizer reads as "
            f"{tokenizer.convert_ids_to_tokens(tokens)}: give one token that it has."
        )
    if processor.start_token_id not in (None, tokens[0]):
        raise ValueError(
            f"`--decoder_start_token` is {text!r}, and what the prompt's template writes behind the source ends with "
            f"{tokenizer.decode(processor.start_token_id)!r}, which is the start token then: leave one of them out."
        )
    return tokens[0]


def prompt_options(model_args: ConditionalArguments) -> dict[str, Any]:
    """What a processor is told of the prompt."""
    template = model_args.prompt_template
    return {
        "source_conditioning": model_args.source_conditioning,
        "prompt_template": None if template is None else _with_newlines(template),
        "use_chat_template": model_args.use_chat_template,
    }


def _with_newlines(text: str) -> str:
    r"""`text` with the newlines that a command line writes as `\n`."""
    return text.replace("\\n", "\n")


def config_options(config_class: Any, model_args: ModelArguments) -> dict[str, Any]:
    """
    Those of the arguments that are named like a field of `config_class`, without a `pooling` that is left open. `embedding_size` is
    a width of the small parts here, and in a configuration that of given vectors.
    """
    fields = set(config_class.__dataclass_fields__) - set(_SIZES)
    options = {name: value for name, value in vars(model_args).items() if name in fields}
    if model_args.pooling is None:
        del options["pooling"]
    return options


def check_lengths(model: VAEModel, encoder_tokens: int, decoder_tokens: int) -> None:
    """Raises a `ValueError` if a part has too few positions, which would otherwise show in the middle of a training or after it."""
    parts = {
        "encoder": (encoder_tokens, longest_text(model.config.encoder, reserved_positions(model.encoder))),
        "decoder": (decoder_tokens, model.decoder.longest_text),
    }
    for part, (tokens, longest) in parts.items():
        if longest is not None and tokens > longest:
            raise ValueError(
                f"The longest texts make {tokens} tokens for the {part}, which holds {longest}; lower the lengths, "
                "`--max_new_tokens` among them."
            )


def freeze_or_adapt(model: VAEModel, model_args: ModelArguments) -> nn.Module:
    """
    Freezes the parts that the arguments name, and puts LoRA adapters on the model if they ask for it. What is new in the model is
    trained in any case.
    """
    new = new_weights(model)
    for name, parameter in model.named_parameters():
        frozen = model_args.freeze_decoder if name.startswith("decoder.lm.") else model_args.freeze_encoder
        # What the model itself holds stays held.
        parameter.requires_grad_(parameter.requires_grad and (name in new or not frozen))
    if not model_args.lora:
        return model
    from peft import LoraConfig, get_peft_model

    options = {"modules_to_save": modules_to_save(model), **parse_lora(model_args.lora)}
    if "target_modules" not in options:
        options["target_modules"] = target_modules(model, {part for part in PARTS if getattr(model_args, f"freeze_{part}")})
    return get_peft_model(model, LoraConfig(**options))
