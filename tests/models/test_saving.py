"""A model of every variant, saved and loaded, whole and from its parts."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
)

from helpers import (
    BOS,
    EOS,
    GREEDY,
    VARIANTS,
    generation_inputs,
    make_batch,
    make_model,
    tiny_encoder_config,
)
from hf_vae import VAEConfig, VAEModel


def test_a_decoder_of_berts_kind_does_not_see_the_words_it_predicts():
    """Such models look both ways unless told: the first logits would then change with the last word."""
    parts = {"encoder": tiny_encoder_config(), "decoder": tiny_encoder_config(bos_token_id=BOS, eos_token_id=EOS), "latent_size": 4}
    model = VAEModel(VAEConfig(**parts)).eval()
    labels = make_batch(model)["labels"].clamp(min=4)
    changed = labels.clone()
    changed[:, 3] = 5 + (changed[:, 3] == 5)
    with torch.no_grad():
        first, second = (model.decode(torch.zeros(3, 4), each) for each in (labels, changed))
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_in_bfloat16_work_together_and_with_float32(variant, tmp_path):
    donor = make_model(variant)
    donor.encoder.to(torch.bfloat16).save_pretrained(tmp_path / "encoder")
    decoder = make_model(variant if "lstm" in variant else "vae").config.decoder
    AutoModelForCausalLM.from_config(decoder).to(torch.bfloat16).save_pretrained(tmp_path / "decoder")
    options = ("source_conditioning", "tie_encoders", "latent_injection", "pooling")
    conditioning = {name: getattr(donor.config, name) for name in options if hasattr(donor.config, name)}
    for dtype, expected in ((torch.float32, torch.float32), ("auto", torch.bfloat16)):
        model = type(donor).from_encoder_decoder_pretrained(
            str(tmp_path / "encoder"), str(tmp_path / "decoder"), dtype=dtype, latent_size=4, **conditioning
        )
        assert {parameter.dtype for parameter in model.parameters()} == {expected}
        batch = make_batch(model)
        output = model.eval()(**batch)
        assert output.kl.dtype == output.reconstruction_loss.dtype == torch.float32
        assert model.generate(**generation_inputs(batch), **GREEDY).shape == (3, 9)


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSeq2SeqLM])
def test_a_saved_model_comes_back_through_the_auto_classes(model, batch, tmp_path, auto_class):
    latents = torch.randn(3, 4)
    expected = model(**batch, latents=latents)
    model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)
    torch.testing.assert_close(loaded(**batch, latents=latents).loss, expected.loss, atol=0, rtol=0)
    # Models are built without storage: a KL weight that nobody sets would be whatever memory holds.
    assert loaded.kl_weight.item() == 1.0
    torch.testing.assert_close(loaded(**batch).kl, model(**batch).kl)
    assert (tmp_path / "model.safetensors").exists()
    assert AutoConfig.from_pretrained(tmp_path).auto_map.keys() == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}


def test_the_saved_code_imports_only_what_is_saved_with_it(model, tmp_path):
    model.save_pretrained(tmp_path)
    files = {path.stem for path in tmp_path.glob("*.py")}
    wanted = {
        line.split()[1].removeprefix(".")
        for path in tmp_path.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("from .")
    }
    assert wanted <= files
    assert not any("hf_vae" in line for path in tmp_path.glob("*.py") for line in path.read_text().splitlines() if "import" in line)


def test_latent_options_survive_saving(model, batch, tmp_path):
    model.generation_config.latent_temperature = 0.0
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.generation_config.latent_temperature == 0.0
    inputs = generation_inputs(batch)
    first, second = (loaded.generate(**inputs, max_new_tokens=6, do_sample=False) for _ in range(2))
    assert torch.equal(first, second)


def test_configurations_of_the_parts_are_the_composite_s(model):
    assert model.config.encoder is model.encoder.config
    assert model.config.decoder is model.decoder.lm.config


@pytest.mark.parametrize("variant", VARIANTS)
def test_from_encoder_decoder_pretrained_keeps_the_parts_weights(variant, tmp_path):
    donor = make_model(variant)
    donor.encoder.save_pretrained(tmp_path / "encoder")
    decoder = make_model(variant if variant.startswith("vae") or "lstm" in variant else "vae").config.decoder
    AutoModelForCausalLM.from_config(decoder).save_pretrained(tmp_path / "decoder")
    options = ("source_conditioning", "tie_encoders", "latent_injection", "pooling")
    conditioning = {name: getattr(donor.config, name) for name in options if hasattr(donor.config, name)}
    model = type(donor).from_encoder_decoder_pretrained(
        str(tmp_path / "encoder"), str(tmp_path / "decoder"), latent_size=4, **conditioning
    )
    for name, tensor in donor.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    pretrained = AutoModelForCausalLM.from_pretrained(tmp_path / "decoder").state_dict()
    for name, tensor in pretrained.items():
        assert torch.equal(model.decoder.lm.state_dict()[name], tensor)
    if not getattr(model.config, "tie_encoders", True):
        assert all(torch.equal(a, b) for a, b in zip(model.source_encoder.parameters(), model.encoder.parameters(), strict=True))
    assert model(**make_batch(model)).loss.isfinite()
    with pytest.raises(ValueError, match="has no field named latent_sise"):
        type(donor).from_encoder_decoder_pretrained(str(tmp_path / "encoder"), str(tmp_path / "decoder"), latent_sise=4)
