"""Models made of pretrained parts: what is saved where a part was frozen, adapters, and what does not fit."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, Trainer, TrainingArguments

from helpers import generation_inputs, make_batch, make_model
from hf_vae import CVAEModel, DialogCVAEModel, ParaphraseVAEModel, VAEModel
from hf_vae.saved_files import weights_digest
from hf_vae.training.learning_rates import new_weights

CLASSES = {"vae": VAEModel, "cvae-cross": CVAEModel, "paraphrase-prompt": ParaphraseVAEModel, "dialog-acts": DialogCVAEModel}
LORA = {"target_modules": r"(encoder\..*\.(query|value))|(decoder\.lm\..*\.c_attn)", "r": 2, "fan_in_fan_out": True}


@pytest.fixture
def parts(tmp_path):
    """An encoder and a decoder as they lie on the Hub: without any latent."""
    donor = make_model("vae")
    donor.encoder.save_pretrained(tmp_path / "encoder")
    donor.decoder.lm.save_pretrained(tmp_path / "decoder")
    return str(tmp_path / "encoder"), str(tmp_path / "decoder")


def build(name, parts, **options):
    torch.manual_seed(0)
    own = {"cvae-cross": {"source_conditioning": "cross_attention", "tie_encoders": False}, "dialog-acts": {"num_acts": 3}}
    return CLASSES[name].from_encoder_decoder_pretrained(*parts, latent_size=4, **own.get(name, {}), **options)


def objective(model, batch):
    with torch.no_grad():
        return model(**batch, latents=torch.ones(3, 4)).reconstruction_loss


@pytest.mark.parametrize("name", ["vae", "cvae-cross"])
def test_a_part_may_start_from_scratch_beside_a_pretrained_one(name, parts, tmp_path):
    decoder = make_model("vae").config.decoder
    decoder.add_cross_attention = name == "cvae-cross"
    model = build(name, (parts[0], decoder), freeze=["encoder"])
    pretrained = AutoModel.from_pretrained(parts[0]).state_dict()
    assert all(model.encoder.state_dict()[key].equal(value) for key, value in pretrained.items() if "pooler" not in key)
    # The decoder is new, and so it learns at the rate of what is new and is saved.
    assert {key for key, _ in model.named_parameters() if key.startswith("decoder.lm.")} <= new_weights(model)
    assert not any(key.startswith("encoder.") for key in new_weights(model))
    model.eval().save_pretrained(tmp_path / "saved")
    again, batch = AutoModel.from_pretrained(tmp_path / "saved"), make_batch(model)
    assert objective(again, batch).equal(objective(model, batch))
    with pytest.raises(ValueError, match="`freeze` names the decoder, which starts from scratch"):
        build(name, (parts[0], decoder), freeze=["decoder"])


def test_a_part_that_is_neither_a_name_nor_a_configuration_is_refused(parts):
    """And not replaced by a default of twelve layers, silently."""
    with pytest.raises(ValueError, match=r"`decoder_name_or_path` is None: give a Hub id, a folder or a configuration\."):
        build("vae", (parts[0], None))
    with pytest.raises(ValueError, match=r"`encoder_name_or_path` is of type BertModel: .*: `VAEModel\(config, encoder=…\)`"):
        build("vae", (AutoModel.from_pretrained(parts[0]), parts[1]))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("freeze", [["decoder"], ["encoder", "decoder"]], ids=["decoder", "both"])
def test_a_frozen_part_is_neither_trained_nor_saved(name, freeze, parts, tmp_path):
    model = build(name, parts, freeze=freeze)
    batch = make_batch(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()(**batch).loss.backward()
    optimizer.step()
    model.eval().save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert changed and changed <= set(saved)
    frozen = tuple(prefix for part in freeze for prefix in {"encoder": ("encoder.", "source_"), "decoder": ("decoder.lm.",)}[part])
    # Cross-attention is no part of what the decoder was pretrained with.
    left = {key for key in saved if key.startswith(frozen) and "cross" not in key and "source_projection" not in key}
    assert not left and any("cross" in key for key in saved) == (name == "cvae-cross")
    again = AutoModel.from_pretrained(tmp_path / "saved")
    assert not again.training and {p for p, t in again.named_parameters() if t.requires_grad} == {
        p for p, t in model.named_parameters() if t.requires_grad
    }
    assert objective(again, batch).equal(objective(model, batch))
    sequences = [m.generate(**generation_inputs(batch), latents=torch.ones(3, 4), do_sample=False) for m in (model, again)]
    assert sequences[0].equal(sequences[1])
    # Saved once more it is the same again, and the bases are named by what they were loaded from.
    again.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == saved.keys()
    told = json.loads((tmp_path / "again" / "config.json").read_text())["frozen_parts"]
    assert told == {part: {"name_or_path": part, "revision": None, "sha256": weights_digest(tmp_path / part)} for part in freeze}


def test_a_training_s_checkpoint_holds_what_was_trained_and_resumes(parts, tmp_path):
    model = build("paraphrase-prompt", parts, freeze=["encoder", "decoder"])
    batch = make_batch(model)
    rows = [{name: tensor[i] for name, tensor in batch.items()} for i in range(3)] * 2
    args = {"output_dir": str(tmp_path / "run"), "per_device_train_batch_size": 3, "save_strategy": "steps", "save_steps": 1,
            "report_to": "none", "disable_tqdm": True, "seed": 0, "lr_scheduler_type": "constant"}  # fmt: skip
    Trainer(model, TrainingArguments(**args, max_steps=2), train_dataset=rows).train()
    saved = load_file(tmp_path / "run" / "checkpoint-1" / "model.safetensors")
    assert saved and all(not name.startswith(("encoder.", "decoder.lm.")) for name in saved)
    folders = dict(zip(("encoder", "decoder"), parts))
    resumed = AutoModel.from_pretrained(tmp_path / "run" / "checkpoint-1", part_folders=folders)
    trainer = Trainer(resumed, TrainingArguments(**args, max_steps=2), train_dataset=rows)
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)


def test_options_of_a_model_with_a_part_left_out(parts, tmp_path):
    build("vae", parts, freeze=["decoder"]).save_pretrained(tmp_path / "saved")
    each = {"encoder": "eager", "decoder": "eager"}
    model = AutoModel.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16, attn_implementation=each)
    assert model.decoder.dtype == torch.bfloat16 and model.decoder.lm.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match=r"(?s)`device_map` cannot be given .* decoder was left out"):
        AutoModel.from_pretrained(tmp_path / "saved", device_map="cpu")
    weights = tmp_path / "saved" / "model.safetensors"
    make_model("cvae").save_pretrained(tmp_path / "other")
    weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"does not fit the configuration .* too many \(\['prior_network"):
        AutoModel.from_pretrained(tmp_path / "saved")
    weights.unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(tmp_path / "saved")


def test_what_may_be_frozen(parts):
    with pytest.raises(ValueError, match="`freeze` is 'posterior'; choose one of 'encoder', 'decoder'"):
        build("vae", parts, freeze=["posterior"])
    with pytest.raises(Exception, match=r"`frozen_parts\['decoder'\]` is .*; it has a `name_or_path` and a `revision`"):
        make_model("vae", frozen_parts={"decoder": {"name": "gpt2"}})


@pytest.mark.parametrize("freeze", [[], ["decoder"]], ids=["whole", "decoder left out"])
@pytest.mark.parametrize("kept", [0.6, 0.0], ids=["truncated", "empty"])
def test_weights_that_were_cut_off_are_named(parts, tmp_path, freeze, kept):
    build("vae", parts, freeze=freeze).save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(OSError, match=r"The weights of .*saved cannot be read, as if .* cut off"):
        AutoModel.from_pretrained(tmp_path / "saved")


def test_a_model_of_another_type_is_refused(tmp_path):
    make_model("cvae").save_pretrained(tmp_path / "cvae")
    with pytest.raises(ValueError, match=r"model of type 'text-cvae', and VAEConfig is for 'text-vae': load it with `AutoModel`"):
        VAEModel.from_pretrained(tmp_path / "cvae")


def test_a_configuration_of_a_later_version_is_refused(tmp_path):
    make_model("vae").save_pretrained(tmp_path / "later")
    path = tmp_path / "later" / "config.json"
    config = json.loads(path.read_text())
    assert config["format_version"] == 3
    path.write_text(json.dumps({**config, "format_version": 4}))
    with pytest.raises(Exception, match=r"`format_version` is 4: a later hf_vae .* understands 3 at most"):
        AutoModel.from_pretrained(tmp_path / "later")


def adapted(model, **options):
    heads = [
        name
        for name in ("posterior_head", "prior_network", "latent_injection.embedding", "act_head")
        if any(name in n for n, _ in model.named_modules())
    ]
    return get_peft_model(model, LoraConfig(**LORA, modules_to_save=heads, **options))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("frozen", [False, True], ids=["whole base", "base with parts left out"])
def test_an_adapter_is_trained_saved_loaded_and_merged(name, frozen, parts, tmp_path):
    base = build(name, parts, freeze=["encoder", "decoder"] if frozen else [])
    base.save_pretrained(tmp_path / "base")
    model = adapted(AutoModel.from_pretrained(tmp_path / "base"))
    batch = make_batch(base)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("encoder" in n and "lora" in n for n in trained) and any("decoder" in n and "lora" in n for n in trained)
    assert any("posterior" in n for n in trained) and not any("base_layer" in n for n in trained)
    for _ in range(2):
        # The first step moves B away from 0; A has a gradient from then on.
        optimizer.zero_grad()
        model.train()(**batch).loss.backward()
        optimizer.step()
    assert all(p.grad is not None for n, p in model.named_parameters() if p.requires_grad and ".lora_" in n)
    model.eval().save_pretrained(tmp_path / "adapter")
    assert not objective(model, batch).allclose(objective(base.eval(), batch))
    # The adapter knows its base, and AutoModel finds both.
    for again in (AutoModel.from_pretrained(tmp_path / "adapter"), PeftModel.from_pretrained(base, tmp_path / "adapter")):
        torch.testing.assert_close(objective(again.eval(), batch), objective(model, batch))
    merged = model.merge_and_unload()
    torch.testing.assert_close(objective(merged, batch), objective(again, batch), atol=1e-4, rtol=1e-4)
    tokens = merged.generate(**generation_inputs(batch), latents=torch.ones(3, 4), do_sample=False)
    assert tokens.equal(again.generate(**generation_inputs(batch), latents=torch.ones(3, 4), do_sample=False))


def test_an_adapter_of_another_base_is_refused(parts, tmp_path):
    model = adapted(build("vae", parts))
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(make_model("vae", latent_size=5), tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"[Nn]o modules were targeted|not found in the base model"):
        PeftModel.from_pretrained(make_model("vae-lstm"), tmp_path / "adapter")


def test_a_merged_model_with_parts_left_out_is_saved_whole_elsewhere(parts, tmp_path):
    """Merging changes the frozen part, so that what it was loaded from is no longer what the model computes with."""
    model = adapted(build("vae", parts, freeze=["decoder"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    merged = model.eval().merge_and_unload()
    with pytest.raises(ValueError, match=r"c_attn.weight` has changed since it was loaded .* call `model.keep_all_parts\(\)`"):
        merged.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merged.keep_all_parts()
    merged.save_pretrained(tmp_path / "merged")
    batch = make_batch(merged)
    again = AutoModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(objective(again, batch), objective(merged, batch))
    assert isinstance(AutoModelForCausalLM.from_pretrained(parts[1]), type(again.decoder.lm))
