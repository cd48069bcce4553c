"""The stages in which z's soft tokens learn to name the words of a text, and the language model to read them."""

import math

import pytest
import torch
from datasets import Dataset
from torch import nn

from helpers import SENTENCES, VARIANTS, make_batch, make_model, moved_by, training_arguments
from hf_vae import (
    ParaphraseVAEConfig,
    ParaphraseVAEModel,
    ParaphraseVAEProcessor,
    VAEConfig,
    VAEDataCollator,
    VAEModel,
    VAEProcessor,
)
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.training.fits import (
    SOFT_TOKEN_SCALE,
    DecoderAlone,
    SoftTokensAlone,
    fit_conditional_prior,
    fit_decoder,
    fit_posterior,
    fit_soft_tokens,
    soft_token_nll,
)

PADDING = -100
WAYS = ["prefix", "embedding"]


@pytest.fixture
def embeddings():
    torch.manual_seed(0)
    return nn.Embedding(7, 6)


def build(model_class=VAEModel, config_class=VAEConfig, processor_class=VAEProcessor, **options):
    tokenizers = train_tokenizers(SENTENCES, 400)
    encoder, decoder = small_configs(tokenizers[0], "bert", "llama", hidden_size=16, num_attention_heads=2, dropout=0.0)
    torch.manual_seed(0)
    given = {"latent_size": 8, "num_latents": 4, "latent_injection": WAYS, **options}
    return model_class(config_class(encoder=encoder, decoder=decoder, **given)), processor_class(*tokenizers)


def of_sentences(processor):
    return Dataset.from_dict(dict(processor(SENTENCES, SENTENCES, return_tensors=None)))


def loss_of(model, rows):
    """Nats per token that soft tokens leave open, of z = q's mean."""
    batch = VAEDataCollator(model[1])(rows)
    with torch.no_grad():
        latents = model[0].encode(batch["input_ids"], batch["attention_mask"]).latent_dist.mode()
        decoder = model[0].decoder
        nll = soft_token_nll(decoder.soft_tokens(latents), decoder.get_input_embeddings(), batch["labels"])
    return (nll.sum() / (batch["labels"] != PADDING).sum()).item()


def test_each_word_is_named_by_the_soft_token_of_its_share(embeddings):
    """Word by word, as the formula has it."""
    soft_tokens = torch.randn(2, 2, 6)
    labels = torch.tensor([[3, 0, 6, 2, 2], [1, 5, 4, PADDING, PADDING]])
    # Of five words the middle one begins at half of the text and ends behind it; of three, the one in the middle too.
    named_by = [[0, 0, 1, 1, 1], [0, 1, 1]]
    scale = SOFT_TOKEN_SCALE * 7 / embeddings.weight.square().sum().item()
    expected = []
    for row, shares in enumerate(named_by):
        nats = 0.0
        for word, share in zip(labels[row].tolist(), shares):
            scores = [scale * float(vector @ soft_tokens[row, share]) for vector in embeddings.weight.detach()]
            nats += math.log(sum(math.exp(score) for score in scores)) - scores[word]
        expected.append(nats)
    torch.testing.assert_close(soft_token_nll(soft_tokens, embeddings, labels), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_the_embedding_of_its_word_is_what_a_soft_token_should_be():
    labels, embeddings = torch.tensor([[4, 1, 5]]), nn.Embedding(6, 6)
    nn.init.orthogonal_(embeddings.weight)
    own = embeddings(labels)
    assert soft_token_nll(own, embeddings, labels).item() < 0.01 < 10 < soft_token_nll(own.roll(1, 1), embeddings, labels).item()


def test_within_a_share_the_order_is_free(embeddings):
    soft_tokens = torch.randn(1, 2, 6)
    nats = [
        soft_token_nll(soft_tokens, embeddings, torch.tensor([words])).item()
        for words in ([1, 2, 3, 4], [2, 1, 4, 3], [1, 3, 2, 4])
    ]
    assert nats[0] == pytest.approx(nats[1], rel=1e-5)
    assert abs(nats[0] - nats[2]) > 0.1


def test_padding_says_nothing_and_embeddings_get_no_gradient(embeddings):
    soft_tokens = torch.randn(1, 3, 6, requires_grad=True)
    labels = torch.tensor([[1, 2, 3, 4]])
    nll = soft_token_nll(soft_tokens, embeddings, labels)
    padded = torch.cat([labels, torch.full((1, 3), PADDING)], dim=1)
    torch.testing.assert_close(soft_token_nll(soft_tokens, embeddings, padded), nll)
    nll.sum().backward()
    assert soft_tokens.grad.abs().sum() > 0 and embeddings.weight.grad is None


@pytest.mark.parametrize("pooling", ["attention", "local_attention"])
def test_q_and_the_soft_tokens_learn_the_words_and_the_decoder_stays(tmp_path, pooling):
    model = build(pooling=pooling)
    train = of_sentences(model[1])
    before, rows = loss_of(model, list(train)), list(train)
    moved = moved_by(
        lambda: fit_soft_tokens(*model, training_arguments(tmp_path, learning_rate=1e-2, max_steps=7), 60, train), model[0]
    )
    own = ("encoder.", "resampler.", "posterior_head.", "decoder.latent_injection.prefix.")
    assert moved and all(name.startswith(own) for name in moved)
    assert any(name.startswith(own[-1]) for name in moved)
    assert loss_of(model, rows) < 0.5 * before
    assert all(parameter.requires_grad for parameter in model[0].parameters())


def test_the_language_model_learns_to_read_a_q_that_stays(tmp_path):
    """As it stands from the fit of soft tokens: only the LM moves, and y becomes likelier by the very z of before."""
    model = build()
    train = of_sentences(model[1])
    batch = VAEDataCollator(model[1])(list(train))
    with torch.no_grad():
        latents = model[0].encode(batch["input_ids"], batch["attention_mask"]).latent_dist.mode()
        before = model[0].eval()(labels=batch["labels"], latents=latents).loss
    moved = moved_by(
        lambda: fit_decoder(*model, training_arguments(tmp_path, learning_rate=1e-2, max_steps=7), 20, train), model[0]
    )
    assert moved and all(name.startswith("decoder.lm.") for name in moved)
    with torch.no_grad():
        assert model[0](labels=batch["labels"], latents=latents).loss < before - 0.5


def test_pairs_and_one_vector_have_soft_tokens_too(tmp_path):
    """One vector makes as many soft tokens as `prefix_length` says, and q of a pair reads both texts."""
    model, processor = build(
        ParaphraseVAEModel, ParaphraseVAEConfig, ParaphraseVAEProcessor, num_latents=1, prefix_length=3, latent_injection=["prefix"]
    )
    train = Dataset.from_dict(dict(processor(SENTENCES, SENTENCES, return_tensors=None)))
    weights = model.decoder.latent_injection.prefix.projection.weight
    former = weights.detach().clone()
    fit_soft_tokens(model, processor, training_arguments(tmp_path, learning_rate=1e-2, max_steps=7), 2, train)
    assert not weights.equal(former)


def test_both_stages_divide_by_the_tokens_of_the_whole_accumulated_batch():
    model = make_model("vae", latent_injection=["prefix"])
    batch, losses = make_batch(model), {}
    for stage in (SoftTokensAlone, DecoderAlone):
        torch.manual_seed(1)
        losses[stage] = stage(model)(**batch, num_items_in_batch=50)["loss"]
    torch.manual_seed(1)
    latents = model.encode(batch["input_ids"], batch["attention_mask"]).latent_dist.sample()
    decoder = model.decoder
    named = soft_token_nll(decoder.soft_tokens(latents), decoder.get_input_embeddings(), batch["labels"])
    torch.testing.assert_close(losses[SoftTokensAlone], named.sum() / 50)
    torch.testing.assert_close(losses[DecoderAlone], model.nll(latents, batch["labels"]).sum() / 50)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_model_has_soft_tokens_that_learn(variant):
    """From z and what enters beside it, such as the act of a reply, behind whatever source."""
    model = make_model(variant, latent_injection=["prefix"]).requires_grad_(False)
    prefix = model.decoder.latent_injection.prefix.requires_grad_(True)
    SoftTokensAlone(model)(**make_batch(model))["loss"].backward()
    assert all(each.grad.abs().sum() > 0 for each in prefix.parameters())


def test_z_without_soft_tokens_is_refused(tmp_path):
    model = build(latent_injection=["embedding"])
    with pytest.raises(ValueError, match=r"`latent_injection` is \['embedding'\], so z has no soft tokens.*add 'prefix'"):
        fit_soft_tokens(*model, training_arguments(tmp_path), 2, of_sentences(model[1]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fit", [fit_soft_tokens, fit_decoder, fit_posterior, fit_conditional_prior])
def test_a_model_without_q_is_refused(tmp_path, fit):
    model = make_model("cvae", objective="gsnn")
    with pytest.raises(ValueError, match=r"cannot be fitted with `objective='gsnn'`, which has no q.*choose 'cvae'"):
        fit(model, None, training_arguments(tmp_path), 2, None)
    assert not list(tmp_path.iterdir())
