"""Texts from vectors, and the nearest of several."""

import pytest
import torch

from helpers import GREEDY, TEXTS, listening, take_special_tokens, tiny_gpt2_config
from hf_vae import VAEConfig, VAEModel, VAEProcessor
from hf_vae.evaluation import cosines
from hf_vae.latent_space import decode_latents, encode_embeddings, encode_texts, invert

VECTORS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def embed(texts):
    """Of a text the counts of six letters."""
    return torch.tensor([[1e-3 + text.count(each) for each in "abcdet"] for text in texts])


@pytest.fixture
def processor(tokenizers):
    return VAEProcessor(tokenizers[0], embedding_size=6)


@pytest.fixture
def model(processor):
    torch.manual_seed(0)
    decoder = tiny_gpt2_config()
    decoder.vocab_size = len(processor.tokenizer)
    take_special_tokens(decoder, processor.tokenizer)
    return listening(VAEModel(VAEConfig(decoder=decoder, embedding_size=6, latent_size=4)))


def test_the_first_candidate_is_that_of_the_mean_and_samples_follow_from_the_seed(model, processor):
    model.train()
    posterior = encode_embeddings(model, processor, VECTORS, batch_size=2)
    assert model.training
    model.eval()
    torch.testing.assert_close(posterior.mean, model.encode(embeddings=VECTORS).latent_dist.mean)
    plain = invert(model, processor, VECTORS, **GREEDY)
    assert plain.texts == decode_latents(model, processor, posterior.mode(), **GREEDY) and plain.cosines is None
    torch.testing.assert_close(plain.latents, posterior.mode())
    several = invert(model, processor, VECTORS, num_candidates=4, seed=1, **GREEDY)
    assert several.texts == plain.texts and [len(each) for each in several.candidates] == [4] * 5
    again = invert(model, processor, VECTORS, num_candidates=4, seed=1, batch_size=3, **GREEDY)
    assert again.candidates == several.candidates
    # A z of its own for each: 15 samples that all decode as their means would be a decoder that does not listen.
    assert any(len(set(each)) > 1 for each in several.candidates)
    cold = invert(model, processor, VECTORS, num_candidates=3, latent_temperature=0.0, **GREEDY)
    assert all(len(set(each)) == 1 for each in cold.candidates)


def test_the_nearest_candidate_is_chosen(model, processor):
    inverted = invert(model, processor, VECTORS, num_candidates=6, embedder=embed, **GREEDY)
    torch.testing.assert_close(inverted.cosines, cosines(embed, inverted.candidates, VECTORS))
    best = inverted.cosines.argmax(-1).tolist()
    assert inverted.texts == [each[which] for each, which in zip(inverted.candidates, best)]
    # What is chosen is never farther than what the mean gives, and its z is the one beside it.
    assert (inverted.cosines.amax(-1) >= inverted.cosines[:, 0]).all()
    assert inverted.texts == decode_latents(model, processor, inverted.latents, **GREEDY)


def test_what_cannot_be_inverted_is_refused(model, processor, vae, vae_processor):
    with pytest.raises(ValueError, match="`model` reads texts with its encoder and takes no vectors"):
        invert(vae, vae_processor, VECTORS)
    with pytest.raises(ValueError, match="`model` reads vectors of 6 numbers and no texts"):
        encode_texts(model, processor, TEXTS)
    with pytest.raises(ValueError, match="`num_candidates` is 0"):
        invert(model, processor, VECTORS, num_candidates=0)
    with pytest.raises(ValueError, match="vectors of 6 floats"):
        invert(model, processor, VECTORS[:, :5])
