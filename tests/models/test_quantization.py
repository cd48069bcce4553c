"""An 8-bit decoder (torchao): around it q and the projections of z stay as they are, and are trained."""

import os

import pytest
import torch
from transformers import AutoModel, TorchAoConfig

from helpers import generation_inputs, make_batch, make_model
from hf_vae import VAEModel

quantization = pytest.importorskip("torchao.quantization", reason="pip install -c constraints.txt -e '.[quantization]'")
Int8Tensor, Int8WeightOnlyConfig = quantization.Int8Tensor, quantization.Int8WeightOnlyConfig

# What z passes through, and the output layer, which is worth its precision.
KEPT = ["encoder", "posterior_head", "decoder.latent_injection", "lm_head"]


def is_quantised(model, name: str) -> bool:
    return isinstance(model.get_parameter(name), Int8Tensor)


@pytest.mark.parametrize("variant", ["vae", "paraphrase-prompt"])
def test_a_saved_model_is_loaded_with_an_8_bit_decoder(variant, tmp_path):
    model = make_model(variant, "llama")
    model.save_pretrained(tmp_path)
    quantised = AutoModel.from_pretrained(tmp_path, quantization_config=TorchAoConfig(Int8WeightOnlyConfig(), KEPT))
    assert is_quantised(quantised, "decoder.lm.model.layers.0.mlp.up_proj.weight")
    for name in (
        "posterior_head.linear.weight",
        "decoder.latent_injection.embedding.projection.weight",
        "encoder.encoder.layer.0.attention.self.query.weight",
    ):
        assert not is_quantised(quantised, name)
    batch, latents = make_batch(model), torch.ones(3, 4)
    nats, exact = (each(**batch, latents=latents).reconstruction_loss for each in (quantised, model))
    torch.testing.assert_close(nats, exact, rtol=0.05, atol=0)
    assert not nats.equal(exact)
    sequences = quantised.generate(**generation_inputs(batch), latents=latents, do_sample=False, max_new_tokens=5)
    assert sequences.shape[0] == 3


def test_what_is_trained_around_a_frozen_8_bit_decoder_is_all_that_is_saved(tmp_path):
    donor = make_model("vae", "llama")
    donor.encoder.save_pretrained(tmp_path / "encoder")
    donor.decoder.lm.save_pretrained(tmp_path / "decoder")
    halves = str(tmp_path / "encoder"), str(tmp_path / "decoder")
    VAEModel.from_encoder_decoder_pretrained(*halves, latent_size=4, freeze=["decoder"]).save_pretrained(tmp_path / "start")
    how = TorchAoConfig(Int8WeightOnlyConfig(), ["lm_head"])
    model = AutoModel.from_pretrained(tmp_path / "start", quantization_config=how)
    batch, latents = make_batch(model), torch.ones(3, 4)
    model.train()(**batch).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert (
        model.decoder.latent_injection.embedding.projection.weight.grad.abs().sum() > 0
        and model.posterior_head.linear.weight.grad.abs().sum() > 0
    )
    torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1).step()
    model.eval().save_pretrained(tmp_path / "trained")
    # Loaded again, the decoder is quantised again as it was.
    again = AutoModel.from_pretrained(tmp_path / "trained")
    assert is_quantised(again, "decoder.lm.model.layers.0.mlp.up_proj.weight")
    assert again(**batch, latents=latents).reconstruction_loss.equal(model(**batch, latents=latents).reconstruction_loss)
    sizes = {name: os.path.getsize(tmp_path / name / "model.safetensors") for name in ("trained", "encoder", "decoder")}
    assert sizes["trained"] < sizes["encoder"] + 5_000
