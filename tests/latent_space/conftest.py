"""Models whose every z says something else."""

import pytest
import torch

from helpers import listening, take_special_tokens, tiny_encoder_config, tiny_gpt2_config, tiny_llama_config
from hf_vae import ParaphraseVAEConfig, ParaphraseVAEModel, VAEConfig, VAEModel


@pytest.fixture
def vae(vae_processor):
    torch.manual_seed(0)
    encoder, decoder = tiny_encoder_config(), tiny_gpt2_config()
    # A decoder with more rows than its vocabulary has tokens, as pretrained ones often have.
    encoder.vocab_size, decoder.vocab_size = len(vae_processor.encoder_tokenizer), len(vae_processor.tokenizer) + 64
    take_special_tokens(decoder, vae_processor.tokenizer)
    return listening(VAEModel(VAEConfig(encoder=encoder, decoder=decoder, latent_size=4)))


@pytest.fixture(params=["prompt", "cross_attention"])
def conditional(request, processor):
    torch.manual_seed(0)
    decoder = tiny_llama_config() if request.param == "prompt" else tiny_gpt2_config()
    encoder = tiny_encoder_config()
    encoder.vocab_size, decoder.vocab_size = len(processor.encoder_tokenizer), len(processor.tokenizer)
    take_special_tokens(decoder, processor.tokenizer)
    processor.source_conditioning = request.param
    parts = {"encoder": encoder, "decoder": decoder, "latent_size": 4}
    return listening(ParaphraseVAEModel(ParaphraseVAEConfig(**parts, source_conditioning=request.param)))
