"""The last stage of a conditional training: p(z|x) in the place of N(0, I), fitted to the finished q."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel

from helpers import GREEDY, SENTENCES, changed, make_batch, make_model, training_arguments, weights
from hf_vae import DiagonalGaussian, LatentOutput, ParaphraseVAEConfig, ParaphraseVAEModel, ParaphraseVAEProcessor
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.training import fit_conditional_prior


@pytest.fixture
def parts():
    """A small model with N(0, I), and its processor."""
    tokenizers = train_tokenizers(SENTENCES, 400)
    encoder, decoder = small_configs(tokenizers[0], hidden_size=16, num_attention_heads=2)
    torch.manual_seed(0)
    model = ParaphraseVAEModel(ParaphraseVAEConfig(encoder=encoder, decoder=decoder, latent_size=4, batch_norm_gamma=0.7))
    return model, ParaphraseVAEProcessor(*tokenizers)


def rows(processor, sources, targets):
    return Dataset.from_dict(dict(processor(sources, targets, return_tensors=None)))


def test_the_prior_becomes_the_mixture_that_q_makes_of_a_source_s_targets(parts, tmp_path, monkeypatch):
    """
    One source, two targets, whose q is N(1, v) and N(-1, v) in each of four dimensions: the best Gaussian is N(0, 1 + v), and
    what it costs is 4 · ½ log((1 + v) / v).
    """
    model, processor = parts
    train = rows(processor, [SENTENCES[0]] * 8, SENTENCES[1:3] * 4)
    second, logvar = train[1]["posterior_input_ids"], -1.0

    def encode(posterior_input_ids=None, **_):
        is_second = torch.tensor([row[row != 0].tolist() == second for row in posterior_input_ids])
        mean = (1.0 - 2.0 * is_second).unsqueeze(1).expand(-1, 4)
        return LatentOutput(latent_dist=DiagonalGaussian(mean, torch.full_like(mean, logvar)))

    def of_q(posterior_input_ids=None, posterior_attention_mask=None, posterior_token_type_ids=None, source=None):
        return encode(posterior_input_ids)

    monkeypatch.setattr(model, "encode", of_q)
    settings = training_arguments(tmp_path, learning_rate=1e-2, gradient_accumulation_steps=2)
    fit_conditional_prior(model, processor, settings, 150, train)
    prior = model.prior(**model_inputs(processor, SENTENCES[:1])).latent_dist
    torch.testing.assert_close(prior.mean, torch.zeros(1, 4), atol=0.05, rtol=0)
    variance = 1 + math.exp(logvar)
    torch.testing.assert_close(prior.logvar.exp(), torch.full((1, 4), variance), atol=0.05, rtol=0)
    costs = [encode(torch.tensor([row["posterior_input_ids"]])).latent_dist.kl(prior).sum().item() for row in list(train)[:2]]
    assert sum(costs) / 2 == pytest.approx(4 * 0.5 * math.log(variance / math.exp(logvar)), abs=0.01)


def model_inputs(processor, sources):
    batch = processor(sources)
    names = ("input_ids", "attention_mask", "prompt_input_ids", "prompt_attention_mask")
    return {name: batch[name] for name in names if name in batch}


def test_nothing_but_the_prior_moves_and_it_is_saved_and_drawn_from(parts, tmp_path):
    model, processor = parts
    train = rows(processor, SENTENCES, SENTENCES[::-1])
    before = weights(model)
    batch = make_batch(model)
    kl = model.eval()(**batch).kl
    model.encoder.get_input_embeddings().weight.requires_grad_(False)
    fit_conditional_prior(model, processor, training_arguments(tmp_path, learning_rate=1e-2), 20, train)
    after = weights(model)
    assert not changed(before, {name: after[name] for name in before})
    assert {name.partition(".")[0] for name in after.keys() - before.keys()} == {"prior_network"}
    # What was frozen before is frozen still, and nothing else.
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"encoder.embeddings.word_embeddings.weight"} and not model.training
    assert not torch.equal(model(**batch).kl, kl)

    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    assert loaded.config.prior_type == "conditional"
    inputs = model_inputs(processor, SENTENCES[:2])
    torch.testing.assert_close(loaded.prior(**inputs).latent_dist.mean, model.prior(**inputs).latent_dist.mean)
    assert not model.prior(**inputs).latent_dist.mean.allclose(torch.zeros(2, 4), atol=1e-3)
    texts = [each.generate(**inputs, generator=torch.Generator().manual_seed(0), **GREEDY) for each in (model, loaded)]
    assert texts[0].equal(texts[1])


@pytest.mark.parametrize("variant", ["cvae", "cvae-cross", "dialog", "dialog-acts", "dialog-lstm"])
def test_every_conditional_model_can_get_one(variant):
    model = make_model(variant, prior_type="standard")
    batch = make_batch(model)
    model.add_prior_network()
    assert model(**batch).kl.isfinite().all() and model.prior_network.reads_source
    with pytest.raises(ValueError, match="`prior_type` is 'conditional'"):
        model.add_prior_network()


def test_without_a_source_there_is_no_such_prior(tmp_path):
    with pytest.raises(ValueError, match="is a VAEModel, which has no x"):
        fit_conditional_prior(make_model("vae"), None, training_arguments(tmp_path), 2, None)


def test_without_a_q_there_is_nothing_to_fit_it_to(parts, tmp_path):
    model, processor = parts
    model.config.objective = "gsnn"
    with pytest.raises(ValueError, match="objective='gsnn'"):
        fit_conditional_prior(model, processor, training_arguments(tmp_path), 2, rows(processor, SENTENCES, SENTENCES))
    assert model.config.prior_type == "standard"
