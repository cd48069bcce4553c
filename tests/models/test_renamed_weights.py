"""Models that an earlier version has saved."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from helpers import VARIANTS, make_batch, make_model
from hf_vae.renamed_weights import RENAMED

# What a weight was called in format 1, by the beginning of its name today.
OLD = {new: old.removeprefix("^").replace("\\", "") for old, new in RENAMED[1].items()}


def with_old_names(directory):
    weights = load_file(directory / "model.safetensors")
    renamed = {}
    for name, weight in weights.items():
        beginning = next((new for new in OLD if name.startswith(new)), "")
        renamed[OLD.get(beginning, "") + name.removeprefix(beginning)] = weight
    assert renamed.keys() != weights.keys()
    save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 1}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_saved_under_the_old_names_is_loaded_and_saved_under_the_new_ones(variant, tmp_path):
    model = make_model(variant, bow_loss_weight=1.0)
    model.save_pretrained(tmp_path / "old")
    with_old_names(tmp_path / "old")
    loaded = AutoModel.from_pretrained(tmp_path / "old")
    batch, latents = make_batch(model), torch.ones(3, 4)
    torch.testing.assert_close(loaded(**batch, latents=latents), model(**batch, latents=latents))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    loaded.save_pretrained(tmp_path / "new")
    model.save_pretrained(tmp_path / "same")
    same, new = (load_file(tmp_path / name / "model.safetensors").keys() for name in ("same", "new"))
    assert same == new
    assert json.loads((tmp_path / "new" / "config.json").read_text())["format_version"] == 3
    # It is an old one no longer, and is loaded as what it is.
    again = AutoModel.from_pretrained(tmp_path / "new")
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_model_without_its_decoder_is_loaded_under_the_old_names(tmp_path):
    donor = make_model("vae")
    for part, module in (("encoder", donor.encoder), ("decoder", donor.decoder.lm)):
        module.save_pretrained(tmp_path / part)
    parts = str(tmp_path / "encoder"), str(tmp_path / "decoder")
    model = type(donor).from_encoder_decoder_pretrained(*parts, latent_size=4, freeze=["decoder"]).eval()
    model.save_pretrained(tmp_path / "old")
    with_old_names(tmp_path / "old")
    loaded = AutoModel.from_pretrained(tmp_path / "old")
    batch, latents = make_batch(model), torch.ones(3, 4)
    torch.testing.assert_close(loaded(**batch, latents=latents), model(**batch, latents=latents))
