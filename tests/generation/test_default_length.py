"""How long a text may be when nobody says it."""

import pytest
import torch
from transformers import GenerationConfig

from helpers import tiny_encoder_config, tiny_gpt2_config
from hf_vae import VAEConfig, VAEModel


@pytest.mark.parametrize("positions, expected", [(512, 128), (20, 19)])
def test_generation_without_a_length_warns_of_nothing_and_fits_the_decoder(recwarn, positions, expected):
    decoder = tiny_gpt2_config()
    decoder.n_positions = positions
    torch.manual_seed(0)
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=decoder, latent_size=4)).eval()
    model.generation_config.suppress_tokens = [model.config.eos_token_id]

    def new_tokens(**options):
        return model.generate(latents=torch.ones(1, 4), do_sample=False, **options).shape[1] - 1

    assert new_tokens() == expected
    assert not [warning for warning in recwarn if "max_length" in str(warning.message)]
    model.generation_config.max_new_tokens = 9
    assert new_tokens() == 9
    # What the caller says comes before what was saved.
    assert new_tokens(max_length=6) == new_tokens(generation_config=GenerationConfig(max_length=6)) == 5
    assert new_tokens(max_new_tokens=3) == new_tokens(generation_config=GenerationConfig(max_new_tokens=3)) == 3
    assert new_tokens(generation_config=GenerationConfig(do_sample=False)) == 9
