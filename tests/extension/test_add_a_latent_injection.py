"""Ways in from outside the package: z scales embeddings (FiLM, Perez et al. 2018), or what the head reads."""

import pytest
import torch
from torch import nn

from hf_vae import LatentInjection, register_latent_injection

from .contract import check_evaluates, check_generates, check_saves_and_loads, check_trains, vae


class ScaleInjection(LatentInjection):
    def __init__(self, latent_size, shape):
        super().__init__(latent_size, shape)
        self.projection = nn.Linear(latent_size, shape.embedding_size, dtype=shape.dtype)

    @classmethod
    def check(cls, shape):
        if shape.embedding_size < 2:
            raise ValueError("`latent_injection` names 'scale', and embeddings of one number have no direction.")

    def embed(self, inputs_embeds, latents):
        return inputs_embeds * (1 + self.projection(latents)).unsqueeze(1)


class HeadScaleInjection(LatentInjection):
    def __init__(self, latent_size, shape):
        super().__init__(latent_size, shape)
        self.projection = nn.Linear(latent_size, shape.head_size, dtype=shape.dtype)

    def head_input(self, hidden_states, latents):
        return hidden_states * (1 + self.projection(latents)).unsqueeze(1)


@pytest.fixture(autouse=True)
def registered():
    register_latent_injection("scale", ScaleInjection)
    register_latent_injection("head_scale", HeadScaleInjection)


@pytest.mark.parametrize("ways", [["scale"], ["scale", "memory"], ["embedding", "prefix", "scale"], ["head_scale"]])
def test_it_trains_saves_generates_and_is_evaluated(ways, tmp_path):
    model = vae(latent_injection=ways)
    check_trains(model, tmp_path)
    check_saves_and_loads(model, tmp_path)
    check_generates(model)
    check_evaluates(model)


def test_z_reaches_every_token_and_zero_changes_nothing():
    model = vae(latent_injection="scale").eval()
    with torch.no_grad():
        projection = model.decoder.latent_injection["scale"].projection
        projection.weight.normal_(std=0.5)
        projection.bias.zero_()
        ids = torch.tensor([[1, 5, 6, 7]])
        plain = model.decoder.lm(ids).logits
        assert torch.allclose(model.decoder(ids, torch.zeros(1, 4)).logits, plain, atol=1e-5)
        other = model.decoder(ids, torch.ones(1, 4)).logits
    assert ((other - plain).abs().amax(-1) > 1e-3).all()


def test_what_a_way_changes_is_told_from_what_it_overrides():
    decoder = vae(latent_injection="head_scale").eval().decoder
    ids = torch.tensor([[1, 5, 6, 7]])
    assert not decoder.layers_read_latents and vae(latent_injection=["head_scale", "scale"]).decoder.layers_read_latents
    with torch.no_grad():
        decoder.latent_injection["head_scale"].projection.weight.normal_(std=0.5)
        first, second = (decoder(ids, torch.full((1, 4), value)).logits for value in (1.0, -1.0))
    assert ((first - second).abs().amax(-1) > 1e-3).all()
