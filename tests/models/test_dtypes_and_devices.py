"""Half precision, `device_map`, attention by part, activation checkpointing: all variants and ways of z into the decoder."""

import pytest
import torch
from transformers import AutoModel
from transformers.modeling_layers import GradientCheckpointingLayer

from helpers import VARIANTS, generation_inputs, make_batch, make_model, tiny_lstm_config
from hf_vae import VAEConfig, VAEModel
from hf_vae.compat import ACTIVATION_CHECKPOINTING, is_activation_checkpointing

TRANSFORMERS = [name for name in VARIANTS if "lstm" not in name and name != "vae-optimus"]


def make(name: str):
    """A variant, or a VAE whose z enters as the name says."""
    injections = {"vae-prefix": ["prefix"], "vae-memory": ["memory"], "vae-all": ["embedding", "memory", "prefix"]}
    return make_model("vae", latent_injection=injections[name]) if name in injections else make_model(name)


ALL = (*VARIANTS, "vae-prefix", "vae-memory", "vae-all")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_gives_about_the_same_figures(name, dtype, tmp_path):
    model = make(name)
    batch = make_batch(model)
    torch.manual_seed(0)
    expected = model(**batch)
    model.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    # A schedule's weights are not for eight bits of mantissa.
    assert half.kl_weight.dtype == torch.float32 and half.kl_weight == 1
    torch.manual_seed(0)
    found = half(**batch)
    assert found.kl.dtype == found.reconstruction_loss.dtype == found.loss.dtype == torch.float32
    tolerance = 0.15 if dtype is torch.bfloat16 else 0.03
    torch.testing.assert_close(found.kl, expected.kl, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.reconstruction_loss, expected.reconstruction_loss, rtol=tolerance, atol=tolerance)
    torch.manual_seed(0)
    half.train()(**batch).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in half.parameters() if parameter.grad is not None)
    half.eval()
    inputs = generation_inputs(batch)
    sequences = half.generate(**inputs, num_return_sequences=2, do_sample=False, max_new_tokens=4)
    assert sequences.shape[0] == 6 and 2 <= sequences.shape[1] <= 5
    beams = half.generate(**inputs, num_beams=2, max_new_tokens=4)
    assert beams.shape[0] == 3


@pytest.mark.parametrize("name", ["vae-all", "cvae", "paraphrase-cross", "dialog-lstm"])
def test_auto_keeps_the_dtype_that_was_saved(name, tmp_path):
    model = make(name).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    batch = make_batch(model)
    loaded = AutoModel.from_pretrained(tmp_path, dtype="auto")
    assert loaded.dtype == loaded.encoder.dtype == loaded.decoder.lm.dtype == torch.bfloat16
    assert loaded.config.dtype == torch.bfloat16
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    torch.manual_seed(0)
    expected = model(**batch).loss
    torch.manual_seed(0)
    assert torch.equal(loaded(**batch).loss, expected)
    assert AutoModel.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def parts(model, **where) -> dict[str, str]:
    """A device for each part; on the CPU where nothing else is said."""
    return {name: where.get(name, "cpu") for name, module in model.named_children() if any(True for _ in module.parameters())}


@pytest.mark.parametrize("name", ["vae", "cvae", "dialog-acts", "paraphrase-cross"])
@pytest.mark.parametrize("how", ["cpu", "auto", "parts", "encoder on disk", "decoder on disk"])
def test_device_map(name, how, tmp_path):
    model = make(name)
    model.save_pretrained(tmp_path / "model")
    batch = make_batch(model)
    half_on_disk = {"encoder on disk": {"encoder": "disk"}, "decoder on disk": {"decoder": "disk"}, "parts": {}}
    device_map = parts(model, **half_on_disk[how]) if how in half_on_disk else how
    loaded = AutoModel.from_pretrained(tmp_path / "model", device_map=device_map, offload_folder=str(tmp_path / "offload"))
    if "disk" in how:
        assert set(loaded.hf_device_map.values()) == {"cpu", "disk"}
        assert any(parameter.device.type == "meta" for parameter in loaded.parameters())
    outputs = []
    for each in (model, loaded):
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(each(**{key: value.to(each.device) for key, value in batch.items()}).loss.cpu())
        generator = torch.Generator().manual_seed(0)
        sequences = each.generate(**generation_inputs(batch), generator=generator, do_sample=False, max_new_tokens=4)
        outputs.append(sequences.cpu())
    torch.testing.assert_close(outputs[2], outputs[0])
    assert torch.equal(outputs[3], outputs[1])


@pytest.mark.parametrize("name", ["vae", "cvae", "dialog-acts", "paraphrase-cross"])
def test_attention_by_part(name, tmp_path):
    model = make(name)
    model.save_pretrained(tmp_path)
    batch = make_batch(model)
    chosen = {"encoder": "eager", "decoder": "sdpa"}
    loaded = AutoModel.from_pretrained(tmp_path, attn_implementation=chosen)

    def implementations(model) -> tuple[str, str, str]:
        found = (model.encoder.config, model.decoder.config, model.decoder.lm.config)
        return tuple(config._attn_implementation for config in found)

    assert implementations(loaded) == ("eager", "sdpa", "sdpa")
    torch.manual_seed(0)
    expected = model(**batch).loss
    torch.manual_seed(0)
    torch.testing.assert_close(loaded(**batch).loss, expected)
    loaded.set_attn_implementation({"encoder": "sdpa", "decoder": "eager"})
    assert implementations(loaded) == ("sdpa", "eager", "eager")
    torch.manual_seed(0)
    torch.testing.assert_close(loaded(**batch).loss, expected)
    if name == "paraphrase-cross":
        # The other encoder is of the same configuration.
        assert loaded.source_encoder.config._attn_implementation == "sdpa"
    loaded.set_attn_implementation("eager")
    assert implementations(loaded) == ("eager", "eager", "eager")


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(0)
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def checkpoint(model):
    getattr(model, f"{ACTIVATION_CHECKPOINTING}_enable")()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_checkpointing_reaches_both_halves_and_changes_no_gradient(name):
    model = make(name).train()
    batch = make_batch(model)
    expected = gradients(model, batch)
    checkpoint(model)
    assert is_activation_checkpointing(model.encoder) and is_activation_checkpointing(model.decoder.lm)
    recomputed, counts = [], []
    for half in (model.encoder, model.decoder.lm):
        layers = [module for module in half.modules() if isinstance(module, GradientCheckpointingLayer)]
        # A layer's own hooks stand outside of what is checkpointed.
        next(layers[-1].children()).register_forward_pre_hook(lambda *_, half=half: recomputed.append(half))
    found = gradients(model, batch)
    # As often on the way back as forward, in each half.
    for half in (model.encoder, model.decoder.lm):
        counts.append(sum(each is half for each in recomputed))
    recomputed.clear()
    with torch.no_grad():
        torch.manual_seed(0)
        model(**batch)
    for half, count in zip((model.encoder, model.decoder.lm), counts):
        assert count == 2 * sum(each is half for each in recomputed) > 0
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, msg=key)
    getattr(model, f"{ACTIVATION_CHECKPOINTING}_disable")()
    assert not is_activation_checkpointing(model.decoder.lm)


def test_lstms_have_nothing_to_checkpoint_and_say_so():
    with pytest.raises(ValueError, match="checkpointing"):
        checkpoint(make("vae-lstm"))
    # Beside an LSTM the other half is checkpointed.
    config = VAEConfig(encoder=tiny_lstm_config(bidirectional=True), decoder=make("vae").config.decoder, latent_size=4)
    model = VAEModel(config).train()
    checkpoint(model)
    assert is_activation_checkpointing(model.decoder.lm) and not is_activation_checkpointing(model.encoder)
    assert torch.isfinite(model(**make_batch(model)).loss)
