"""`pooling="local_attention"`: each vector of z reads its share of a text above all."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from helpers import make_batch, make_model, tiny_encoder_config, tiny_gpt2_config
from hf_vae import ConditionalVAEConfig, VAEConfig
from hf_vae.resampler import Resampler, shares


def local(**options):
    """Three vectors of four numbers."""
    return make_model("vae", num_latents=3, pooling="local_attention", **options)


def test_a_share_is_a_gaussian_window_of_the_tokens_that_are_read():
    """Two queries and four tokens: the middles are 0.5 and 1.5, and the tokens lie at 0.25, 0.75, 1.25 and 1.75."""
    first = [-0.5 * (0.5 - place) ** 2 for place in (0.25, 0.75, 1.25, 1.75)]
    expected = torch.tensor([first, first[::-1]])
    torch.testing.assert_close(shares(2, torch.ones(1, 4))[0], expected)
    hidden = torch.full((2, 1), -math.inf)
    torch.testing.assert_close(shares(2, torch.tensor([[1, 1, 1, 1, 0]]))[0], torch.cat([expected, hidden], dim=1))
    torch.testing.assert_close(shares(2, torch.tensor([[0, 1, 1, 1, 1]]))[0], torch.cat([hidden, expected], dim=1))


def test_a_token_changes_the_vector_of_its_share_most():
    torch.manual_seed(0)
    layer = Resampler(8, 4, 2, torch.float32, is_local=True)
    states = torch.randn(64, 20, 8)
    with torch.no_grad():
        vectors = layer(states)
        for place, share in ((0, 0), (7, 1), (12, 2), (19, 3)):
            other = states.clone()
            other[:, place] = torch.randn(64, 8)
            changed = (layer(other) - vectors).norm(dim=-1).mean(dim=0)
            assert changed.argmax() == share
            assert changed[3 if share < 2 else 0] < 0.5 * changed[share]


def test_a_text_has_the_same_code_with_padding_and_with_other_rows():
    model = local()
    batch = make_batch(model)
    longer = {name: torch.nn.functional.pad(batch[name], (0, 3)) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        together = model.encode(**{name: batch[name] for name in longer}).latent_dist.mean
        torch.testing.assert_close(model.encode(**longer).latent_dist.mean, together)
        for row in range(3):
            length = int(batch["attention_mask"][row].sum())
            alone = model.encode(batch["input_ids"][row : row + 1, :length]).latent_dist.mean
            torch.testing.assert_close(alone, together[row : row + 1])


def test_it_is_another_function_than_attention_and_comes_back_as_what_it_is(tmp_path):
    model, anywhere = local(), make_model("vae", num_latents=3)
    anywhere.load_state_dict(model.state_dict())
    batch = make_batch(model)
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        mean = model.encode(**text).latent_dist.mean
        assert not torch.allclose(anywhere.eval().encode(**text).latent_dist.mean, mean, atol=1e-3)
        torch.testing.assert_close(loaded.encode(**text).latent_dist.mean, mean)


def test_it_trains_in_bfloat16():
    model = local().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**make_batch(model)).loss.backward()
    assert all(row.isfinite().all() and row.any() for row in model.resampler.queries.grad)


def test_what_has_no_one_text_to_share_out_is_refused():
    parts = {"encoder": tiny_encoder_config(), "decoder": tiny_gpt2_config()}
    with pytest.raises(StrictDataclassError, match=r"`pooling` is 'local_attention'.*ConditionalVAEConfig reads two.*'attention'"):
        ConditionalVAEConfig(**parts, num_latents=2, pooling="local_attention")
    with pytest.raises(StrictDataclassError, match=r"`pooling='local_attention'`.*leave them out"):
        VAEConfig(decoder=parts["decoder"], embedding_size=8, pooling="local_attention")
