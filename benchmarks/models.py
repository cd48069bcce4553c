"""Models and batches that both sides of a comparison are made of."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig

from hf_vae import CVAEConfig, CVAEModel, DialogCVAEConfig, DialogCVAEModel, VAEConfig, VAEModel

from .options import Options
from .sizes import Size

PAD, BOS, EOS = 0, 1, 2


def encoder_config(size: Size) -> BertConfig:
    return BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=1024,
        pad_token_id=PAD,
    )


def decoder_config(size: Size) -> GPT2Config | LlamaConfig:
    if size.llama:
        return LlamaConfig(**size.llama, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    return GPT2Config(
        vocab_size=size.vocabulary,
        n_embd=size.hidden,
        n_layer=size.layers,
        n_head=size.heads,
        n_positions=1024,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )


def common_fields(size: Size, options: Options) -> dict[str, Any]:
    """Of the configuration of any model of the family."""
    parts = {"encoder": encoder_config(size), "decoder": decoder_config(size), "latent_size": size.latent}
    return {**parts, "latent_injection": list(options.latent_injection)}


def make_vae(size: Size, options: Options, **fields) -> VAEModel:
    return VAEModel(VAEConfig(**common_fields(size, options), **fields)).to(options.device)


def make_cvae(size: Size, options: Options, **fields) -> CVAEModel:
    return CVAEModel(CVAEConfig(**common_fields(size, options), **fields)).to(options.device)


def make_dialog_cvae(size: Size, options: Options, **fields) -> DialogCVAEModel:
    return DialogCVAEModel(DialogCVAEConfig(**common_fields(size, options), **fields)).to(options.device)


def make_encoder(size: Size, options: Options):
    """The bare encoder, without the pooler that a VAE's has none of either."""
    return AutoModel.from_config(encoder_config(size), add_pooling_layer=False).to(options.device)


def make_decoder(size: Size, options: Options):
    """The bare language model."""
    return AutoModelForCausalLM.from_config(decoder_config(size)).to(options.device)


def tokens(rows: int, length: int, size: Size, options: Options, seed: int = 0) -> torch.Tensor:
    """Random words `(rows, length)`, none of them special."""
    generator = torch.Generator().manual_seed(options.seed + seed)
    return torch.randint(3, size.vocabulary, (rows, length), generator=generator).to(options.device)


def read_before(labels: torch.Tensor) -> torch.Tensor:
    """What a language model reads when it predicts `labels`: the start token and all but the last word."""
    return torch.cat([torch.full_like(labels[:, :1], BOS), labels[:, :-1]], dim=1)
