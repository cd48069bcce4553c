"""`hf-vae export-vllm`: one command from a saved model to what is served."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM

from helpers import make_model, prefixed, resized, tiny_gpt2_config
from hf_vae.cli import export_vllm as command


@pytest.fixture
def saved(processor, tmp_path, monkeypatch):
    """A model in `model/` of the working directory."""
    monkeypatch.chdir(tmp_path)
    model = prefixed(processor)
    model.save_pretrained("model")
    processor.save_pretrained("model")
    return model


def logits(lm):
    with torch.no_grad():
        return lm(torch.arange(5)[None]).logits


def test_one_command_writes_what_is_served_and_says_how(saved, capsys, tmp_path):
    served = command.main(["model", "served"])
    assert {path.name for path in (tmp_path / "served").iterdir()} == {"lm", "latent_prompt.safetensors"}
    assert served.command in capsys.readouterr().out
    lm = AutoModelForCausalLM.from_pretrained("served/lm")
    assert torch.equal(logits(lm), logits(saved.decoder.lm))
    with pytest.raises(ValueError, match="holds an export: choose another directory"):
        command.main(["model", "served"])
    assert command.main(["model", "served", "--overwrite", "--dtype", "bfloat16"]).dtype == "bfloat16"


def test_an_adapter_is_merged_first(saved, processor, tmp_path):
    base = AutoModel.from_pretrained("model")
    adapted = get_peft_model(base, LoraConfig(target_modules=r".*lm.*\.q_proj", modules_to_save=["projection"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or ("modules_to_save" in name and parameter.ndim == 2):
                parameter += 1.0
    adapted.save_pretrained("adapter")
    command.main(["adapter", "served"])
    merged = adapted.merge_and_unload()
    lm = AutoModelForCausalLM.from_pretrained("served/lm")
    torch.testing.assert_close(logits(lm), logits(merged.decoder.lm))
    assert (logits(lm) - logits(saved.decoder.lm)).abs().max() > 0.1
    from safetensors.torch import load_file

    written = load_file("served/latent_prompt.safetensors")["projection.weight"]
    assert torch.equal(written, merged.decoder.injections[0].projection.weight)
    assert not torch.equal(written, saved.decoder.injections[0].projection.weight)


def test_a_frozen_decoder_that_was_left_out_is_exported_whole(processor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = resized(make_model("paraphrase-prompt"), processor)
    for part, module in (("encoder", model.encoder), ("gpt2", model.decoder.lm)):
        module.save_pretrained(part)
    parts = {"latent_size": 4, "latent_injection": ["prefix"], "freeze": ["decoder"]}
    tokens = {"pad_token_id": processor.tokenizer.pad_token_id, "decoder_start_token_id": processor.tokenizer.bos_token_id}
    around = type(model).from_encoder_decoder_pretrained("encoder", "gpt2", **parts, **tokens)
    around.save_pretrained("model")
    processor.save_pretrained("model")
    command.main(["model", "served"])
    lm = AutoModelForCausalLM.from_pretrained("served/lm")
    assert torch.equal(logits(lm), logits(model.decoder.lm))


def test_a_folder_that_is_no_model_is_refused(processor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no model: it has no config.json"):
        command.main(["empty", "served"])
    with pytest.raises(FileNotFoundError, match="There is no folder outputs/none"):
        command.main(["outputs/none", "served"])
    AutoModelForCausalLM.from_config(tiny_gpt2_config()).save_pretrained("gpt2")
    with pytest.raises(ValueError, match="gpt2 holds a model of type 'gpt2', which is not a model of hf_vae"):
        command.main(["gpt2", "served"])
    make_model("vae", latent_injection="memory").save_pretrained("model")
    with pytest.raises(ValueError, match="'memory' makes z a key and a value of every layer"):
        command.main(["model", "served"])
    with pytest.raises(ValueError, match="`--dtype` is 'int8'"):
        command.main(["model", "served", "--dtype", "int8"])
    assert not (tmp_path / "served").exists()
