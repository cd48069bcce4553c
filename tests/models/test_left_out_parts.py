"""Parts that came from a folder and are not saved: named without a path, found again, never mistaken; and whose code runs."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, BertModel, pipeline

from helpers import make_model, tiny_encoder_config, tiny_gpt2_config
from hf_vae import VAEModel, VAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.saved_files import weights_digest


def save_decoder(seed, where, **options):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_gpt2_config())
    model.save_pretrained(where, **options)
    return model


@pytest.fixture
def model(tmp_path):
    """Saved in `alice/run/model`, without its decoder, which lies in `alice/parts/dec`."""
    save_decoder(0, tmp_path / "alice" / "parts" / "dec")
    torch.manual_seed(1)
    encoder = tmp_path / "alice" / "parts" / "enc"
    BertModel(tiny_encoder_config(), add_pooling_layer=False).save_pretrained(encoder)
    decoder = str(tmp_path / "alice" / "parts" / "dec")
    model = VAEModel.from_encoder_decoder_pretrained(str(encoder), decoder, freeze=["decoder"], latent_size=4)
    model.save_pretrained(tmp_path / "alice" / "run" / "model")
    return model.eval()


def check_same(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_no_path_is_in_the_configuration(model, tmp_path):
    written = (tmp_path / "alice" / "run" / "model" / "config.json").read_text()
    assert "alice" not in written and str(tmp_path) not in written and "_name_or_path" not in written
    [(part, base)] = json.loads(written)["frozen_parts"].items()
    assert part == "decoder" and base["name_or_path"] == "dec" and base["revision"] is None and len(base["sha256"]) == 64
    # A model that is saved whole says nothing of where its parts lay either.
    whole = VAEModel.from_encoder_decoder_pretrained(
        *(str(tmp_path / "alice" / "parts" / each) for each in ("enc", "dec")), latent_size=4
    )
    whole.save_pretrained(tmp_path / "whole")
    assert "alice" not in (tmp_path / "whole" / "config.json").read_text()


@pytest.mark.parametrize("place", ["model", ".", "working directory"])
def test_a_part_is_found_by_its_name_near_the_model(place, model, tmp_path, monkeypatch):
    run = tmp_path / "alice" / "run"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.move(tmp_path / "alice" / "parts" / "dec", {"working directory": tmp_path / "elsewhere"}.get(place, run / place) / "dec")
    again = AutoModel.from_pretrained(run / "model")
    check_same(again, model)


def test_a_part_that_lies_elsewhere_is_named_by_an_argument(model, tmp_path):
    saved, there = tmp_path / "alice" / "run" / "model", tmp_path / "alice" / "parts" / "dec"
    with pytest.raises(
        OSError, match=r"(?s)decoder was not saved with .*folder named 'dec', which is not in .*part_folders=\{\"decoder\": "
    ):
        AutoModel.from_pretrained(saved)
    for load in (AutoModel, VAEModel):
        again = load.from_pretrained(saved, part_folders={"decoder": there})
        check_same(again, model)
        assert again.part_folders == model.part_folders == {"decoder": str(there)}
    # What is saved again names no path either, and is found from there.
    again.save_pretrained(tmp_path / "again")
    assert "alice" not in (tmp_path / "again" / "config.json").read_text()
    check_same(AutoModel.from_pretrained(tmp_path / "again", part_folders=again.part_folders), model)


def test_a_pipeline_hands_the_folder_on(model, tmp_path):
    saved = tmp_path / "alice" / "run" / "model"
    processor = VAEProcessor(*train_tokenizers(["a b c"] * 3, vocab_size=40, tokenizer_type="word"))
    processor.save_pretrained(saved)
    model.generation_config.eos_token_id = model.config.eos_token_id = processor.tokenizer.eos_token_id
    model.save_pretrained(saved)
    folders = {"decoder": str(tmp_path / "alice" / "parts" / "dec")}
    pipe = pipeline("latent-text-generation", model=str(saved), model_kwargs={"part_folders": folders})
    check_same(pipe.model, model)
    pipe.processor.save_pretrained(tmp_path / "processor")
    for path in (tmp_path / "processor").rglob("*.json"):
        assert "alice" not in path.read_text()


def test_other_weights_are_refused(model, tmp_path):
    saved, there = tmp_path / "alice" / "run" / "model", tmp_path / "alice" / "parts" / "dec"
    save_decoder(7, there)
    with pytest.raises(ValueError, match=r"parts/dec holds other weights than the decoder that .*model was trained with"):
        AutoModel.from_pretrained(saved, part_folders={"decoder": there})
    save_decoder(7, saved.parent / "dec")
    with pytest.raises(ValueError, match=r"run/dec holds other weights"):
        AutoModel.from_pretrained(saved)
    (there / "model.safetensors").write_bytes((there / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(OSError, match=r"The weights in .*parts/dec cannot be read"):
        AutoModel.from_pretrained(saved, part_folders={"decoder": there})
    (there / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"parts/dec holds no weights"):
        AutoModel.from_pretrained(saved, part_folders={"decoder": there})


def test_a_folder_s_name_is_never_looked_up_on_the_hub(model, tmp_path, monkeypatch):
    """Somebody's repository of that name is in the cache, where transformers would find it."""
    snapshot = tmp_path / "hub" / "models--dec" / "snapshots" / ("c" * 40)
    save_decoder(99, snapshot)
    (tmp_path / "hub" / "models--dec" / "refs").mkdir()
    (tmp_path / "hub" / "models--dec" / "refs" / "main").write_text("c" * 40)
    assert AutoModelForCausalLM.from_pretrained("dec", cache_dir=tmp_path / "hub") is not None
    with pytest.raises(OSError, match=r"folder named 'dec', which is not in"):
        AutoModel.from_pretrained(tmp_path / "alice" / "run" / "model", cache_dir=tmp_path / "hub")
    # The other way round: the Hub's repository that is meant stands behind a folder of the same name.
    path = tmp_path / "alice" / "run" / "model" / "config.json"
    config = json.loads(path.read_text())
    config["frozen_parts"] = {"decoder": {"name_or_path": "dec", "revision": "c" * 40}}
    path.write_text(json.dumps(config))
    from_hub = AutoModel.from_pretrained(path.parent, cache_dir=tmp_path / "hub")
    check_same(from_hub.decoder.lm, AutoModelForCausalLM.from_pretrained(snapshot))
    whole = (snapshot / "model.safetensors").read_bytes()
    (snapshot / "model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(OSError, match="The weights of dec, the decoder, cannot be read"):
        AutoModel.from_pretrained(path.parent, cache_dir=tmp_path / "hub")
    (snapshot / "model.safetensors").write_bytes(whole)
    monkeypatch.chdir(tmp_path / "alice" / "parts")
    with pytest.raises(ValueError, match=r"decoder is the Hub's dec, and transformers would take the folder .*parts/dec for it"):
        AutoModel.from_pretrained(path.parent, cache_dir=tmp_path / "hub")
    with pytest.raises(ValueError, match=r"`part_folders` names the decoder, which comes from the Hub \(dec\)"):
        AutoModel.from_pretrained(path.parent, part_folders={"decoder": "dec"})


def test_a_part_of_an_earlier_version_loses_its_path_when_saved_again(model, tmp_path, caplog, monkeypatch):
    path = tmp_path / "alice" / "run" / "model" / "config.json"
    config = json.loads(path.read_text())
    config["frozen_parts"] = {"decoder": {"name_or_path": "parts/dec", "revision": None}}
    path.write_text(json.dumps(config))
    with pytest.raises(OSError, match="folder named 'dec'"):
        AutoModel.from_pretrained(path.parent)
    monkeypatch.chdir(tmp_path / "alice")
    again = AutoModel.from_pretrained(path.parent)
    check_same(again, model)
    assert "has no digest of the decoder" in caplog.text
    assert again.config.frozen_parts == model.config.frozen_parts


@pytest.mark.parametrize("folders, message", [
    ({"encoder": "x"}, "`part_folders` names the encoder, which is saved with the model"),
    ("dec", "`part_folders` is 'dec'; it is a dictionary of parts"),
    ({"decoder": None}, "`part_folders` says that the decoder lies in None; it takes the path of a folder"),
    ({"decoder": "~/nowhere"}, r"it lies in ~/nowhere, and there is no such folder \([^~]*nowhere\)"),
    ({"decodr": "x"}, "`part_folders` is 'decodr'; choose one of 'encoder', 'decoder'"),
    ({"decoder": "x"}, "decoder was not saved with .*: `part_folders` says that it lies in x, and there is no such folder"),
])  # fmt: skip
def test_folders_that_cannot_be_meant(folders, message, model, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        AutoModel.from_pretrained(tmp_path / "alice" / "run" / "model", part_folders=folders)
    make_model("vae").save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"which is saved with the model|choose one of|it is a dictionary"):
        AutoModel.from_pretrained(tmp_path / "whole", part_folders=folders)


def test_a_path_in_a_configuration_with_a_digest_is_refused():
    base = {"name_or_path": "../private/dec", "revision": None, "sha256": "0" * 64}
    with pytest.raises(Exception, match="it is the bare name of a folder"):
        make_model("vae", frozen_parts={"decoder": base})


def test_an_adapter_over_such_a_model(model, tmp_path):
    saved = tmp_path / "alice" / "run" / "model"
    folders = {"decoder": tmp_path / "alice" / "parts" / "dec"}
    base = AutoModel.from_pretrained(saved, part_folders=folders)
    adapted = get_peft_model(base, LoraConfig(target_modules=r"decoder\.lm\..*\.c_attn", r=2, fan_in_fan_out=True))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    inputs = {"input_ids": torch.arange(4, 10)[None], "labels": torch.arange(4, 10)[None], "latents": torch.ones(1, 4)}
    for load in (AutoModel, VAEModel):
        again = load.from_pretrained(tmp_path / "adapter", part_folders=folders)
        torch.testing.assert_close(again(**inputs).loss, adapted.eval()(**inputs).loss)
    assert not torch.allclose(again(**inputs).loss, model(**inputs).loss)
    with pytest.raises(OSError, match="folder named 'dec'"):
        AutoModel.from_pretrained(tmp_path / "adapter")


def test_a_link_goes_by_its_own_name(model, tmp_path):
    parts = tmp_path / "alice" / "parts"
    (parts / "link").symlink_to(parts / "dec")
    linked = VAEModel.from_encoder_decoder_pretrained(str(parts / "enc"), str(parts / "link"), freeze=["decoder"], latent_size=4)
    assert linked.config.frozen_parts == {"decoder": {**model.config.frozen_parts["decoder"], "name_or_path": "link"}}
    with pytest.raises(ValueError, match=r"`frozen_parts` is the configuration's own; .* give `part_folders`"):
        AutoModel.from_pretrained(tmp_path / "alice" / "run" / "model", frozen_parts={"decoder": str(parts / "dec")})


def test_a_digest_is_of_the_weights_however_they_lie(tmp_path):
    model = save_decoder(0, tmp_path / "one")
    save_decoder(0, tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    tensors = load_file(tmp_path / "one" / "model.safetensors")
    (tmp_path / "pickled").mkdir()
    torch.save(tensors, tmp_path / "pickled" / "pytorch_model.bin")
    digests = {weights_digest(tmp_path / each) for each in ("one", "shards", "pickled")}
    assert len(digests) == 1
    # One bit, one name, one dtype or one shape more is another.
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    others = []
    for change in (lambda t: t + 1e-3 * (torch.arange(t.numel()).view_as(t) == 0), torch.Tensor.bfloat16, lambda t: t[None]):
        others.append({**tensors, name: change(tensors[name]).contiguous()})
    others.append({f"{key}x" if key == name else key: tensor for key, tensor in tensors.items()})
    for number, other in enumerate(others):
        (tmp_path / str(number)).mkdir()
        save_file(other, tmp_path / str(number) / "model.safetensors")
        digests.add(weights_digest(tmp_path / str(number)))
    assert len(digests) == 5 and model is not None


CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import GPT2LMHeadModel
class Model(GPT2LMHeadModel):
    pass
"""


def test_trusting_a_model_s_code_does_not_run_that_of_a_part(model, tmp_path):
    saved, part, mark = tmp_path / "alice" / "run" / "model", tmp_path / "alice" / "parts" / "dec", tmp_path / "it ran"
    for directory in (saved, part):
        path = directory / "config.json"
        config = json.loads(path.read_text())
        auto_map = {"AutoModelForCausalLM": "custom.Model"}
        (config if directory == part else config["decoder"])["auto_map"] = auto_map
        path.write_text(json.dumps(config))
    (part / "custom.py").write_text(CODE.format(mark=str(mark)))
    AutoModelForCausalLM.from_pretrained(part, trust_remote_code=True)
    assert mark.exists()
    mark.unlink()
    again = AutoModel.from_pretrained(saved, trust_remote_code=True, part_folders={"decoder": part})
    check_same(again, model)
    assert not mark.exists() and type(again.decoder.lm).__name__ == "GPT2LMHeadModel"


def test_trusting_a_processor_s_code_does_not_run_that_of_another_repository(tmp_path):
    VAEProcessor(*train_tokenizers(["a b c"] * 3, vocab_size=40, tokenizer_type="word")).save_pretrained(tmp_path / "saved")
    mark = tmp_path / "it ran"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "custom.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Tokenizer: pass\n")
    path = tmp_path / "saved" / "encoder_tokenizer" / "tokenizer_config.json"
    auto_map = {"AutoTokenizer": [None, f"{tmp_path / 'other'}--custom.Tokenizer"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": auto_map}))
    with pytest.raises(
        ValueError, match=r"encoder_tokenizer names code of another repository .* `trust_remote_code` does not reach"
    ):
        AutoProcessor.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert not mark.exists()
