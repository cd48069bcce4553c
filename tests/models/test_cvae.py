"""What the prior network adds to the conditional models (Sohn et al. 2015)."""

import pytest
import torch

from helpers import EOS, GREEDY, UNK, generation_inputs, make_batch, make_model
from hf_vae import DiagonalGaussian
from hf_vae.calls import call_with


@pytest.fixture(params=["cvae", "cvae-cross"])
def model(request):
    return make_model(request.param)


@pytest.fixture
def batch(model):
    return make_batch(model)


def prior_of(model, batch):
    return model.prior(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).latent_dist


def test_the_prior_follows_the_source_and_the_kl_is_measured_to_it(model, batch):
    prior, output = prior_of(model, batch), model(**batch)
    assert prior.mean.std(0).min() > 1e-3
    torch.testing.assert_close(output.prior_mean, prior.mean)
    torch.testing.assert_close(output.prior_logvar, prior.logvar)
    posterior = DiagonalGaussian(output.posterior_mean, output.posterior_logvar)
    torch.testing.assert_close(output.kl, posterior.kl(prior).sum(-1))
    # Row by row: nothing of another source, and nothing of padding.
    length = int(batch["attention_mask"][1].sum())
    alone = model.prior(input_ids=batch["input_ids"][1:2, :length]).latent_dist
    torch.testing.assert_close(alone.mean[0], prior.mean[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", ["cvae", "gsnn", "hybrid"])
def test_every_objective_trains_the_prior_network(objective):
    model = make_model("cvae", objective=objective).train()
    model(**make_batch(model)).loss.backward()
    assert model.prior_network.hidden.weight.grad.abs().sum() > 0
    assert (model.posterior_head.linear.weight.grad is None) == (objective == "gsnn")


def test_temperature_zero_decodes_the_prior_s_mean_and_samples_come_from_it(model, batch):
    inputs, prior = generation_inputs(batch), prior_of(model, batch)
    deterministic = model.generate(**inputs, latent_temperature=0.0, **GREEDY)
    assert torch.equal(deterministic, model.generate(**inputs, latents=prior.mean, **GREEDY))
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    drawn = model.generate(**inputs, generator=torch.Generator().manual_seed(5), **GREEDY)
    assert torch.equal(drawn, model.generate(**inputs, latents=prior.mean + prior.std * noise, **GREEDY))


def test_averaging_decodes_the_mean_over_latents(model, batch):
    """Against the average written out: at every step the token that the mean of p(y so far|x,z) over all z likes best."""
    inputs, latents = generation_inputs(batch), 2 * torch.randn(3 * 5, 4, generator=torch.Generator().manual_seed(5))
    averaged = model.generate(**inputs, latents=latents, average_latents=5, **GREEDY)
    assert averaged.shape == (3, 9)
    repeated = {
        name: tensor.repeat_interleave(5, 0) for name, tensor in model.condition(call_with(model.read_source, inputs)).items()
    }
    text = torch.zeros(3, 0, dtype=torch.long)
    with torch.no_grad():
        for _ in range(8):
            # The last column is what comes next; whatever stands there is not read.
            labels = torch.cat([text, torch.full((3, 1), UNK)], dim=1)
            logits = model.decode(latents, labels.repeat_interleave(5, 0), **repeated)
            # `min_new_tokens` forbids the end.
            logits[:, :, EOS] = -torch.inf
            log_probs = logits.log_softmax(-1)
            of_text = log_probs[:, :-1].gather(-1, text.repeat_interleave(5, 0)[..., None]).sum((1, 2))
            probability = (of_text[:, None] + log_probs[:, -1]).double().exp().view(3, 5, -1).mean(1)
            text = torch.cat([text, probability.argmax(-1, keepdim=True)], dim=1)
    assert averaged[:, 1:].tolist() == text.tolist()
    alone = model.generate(**inputs, latents=latents, num_return_sequences=5, **GREEDY)
    assert any(not torch.equal(averaged[0], row) for row in alone[:5])
    assert torch.equal(
        model.generate(**inputs, average_latents=1, latent_temperature=0.0, **GREEDY),
        model.generate(**inputs, latent_temperature=0.0, **GREEDY),
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"average_latents": 0}, "`average_latents` is 0"),
        ({"average_latents": 3, "num_return_sequences": 2}, "an average is one sequence"),
        ({"average_latents": 3, "num_beams": 2}, "decodes greedily"),
        ({"average_latents": 3, "do_sample": True}, "decodes greedily"),
    ],
)
def test_averages_that_cannot_be_made_are_refused(model, batch, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**generation_inputs(batch), **{**GREEDY, **options})


def test_the_source_is_encoded_once_for_prior_and_decoder():
    # q reads the pair besides.
    for tied, passes in ((True, ["encoder", "encoder"]), (False, ["source_encoder", "encoder"])):
        model = make_model("cvae-cross", tie_encoders=tied)
        seen = []
        for name in set(passes):
            getattr(model, name).register_forward_hook(lambda *_, name=name, seen=seen: seen.append(name))
        model(**make_batch(model))
        assert seen == passes


def test_the_regulariser_charges_for_the_distance_from_the_standard_prior():
    plain, regularised = (make_model("cvae", prior_regularization=weight).train() for weight in (0.0, 0.7))
    batch, losses = make_batch(plain), []
    for model in (plain, regularised):
        torch.manual_seed(0)
        losses.append(model(**batch))
    expected = prior_of(plain, batch).kl(DiagonalGaussian.standard(3, 4)).sum(-1)
    torch.testing.assert_close(losses[1].prior_kl, expected)
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(losses[1].loss - losses[0].loss, 0.7 * expected.sum() / tokens)
    assert losses[0].prior_kl is None and regularised.eval()(**batch).prior_kl is None


def test_source_noise_hides_tokens_from_prior_and_decoder_and_not_from_q(model, batch):
    latents = torch.zeros(3, 4)
    model.config.source_noise = 0.6
    clean, measured = model.eval()(**batch), model(**batch, latents=latents)
    model.train()
    torch.manual_seed(0)
    noisy = [model(**batch) for _ in range(4)]
    decoded = [model(**batch, latents=latents) for _ in range(4)]
    assert all(torch.equal(output.posterior_mean, clean.posterior_mean) for output in noisy)
    assert all(not torch.allclose(output.prior_mean, clean.prior_mean) for output in noisy)
    # Nothing else is random with a given z, so what differs is what the decoder could see of x.
    assert not torch.allclose(decoded[0].reconstruction_loss, decoded[1].reconstruction_loss)
    torch.testing.assert_close(model.eval()(**batch, latents=latents).reconstruction_loss, measured.reconstruction_loss)
    # However many are hidden, no row is left without a token.
    model.config.source_noise = 0.999
    assert torch.isfinite(model.train()(**batch).loss)


def test_a_prior_without_its_source_is_refused(model, batch):
    with pytest.raises(ValueError, match="`input_ids` is missing: an encoder reads the source"):
        model.prior(batch_size=3)
    inputs = {name: tensor for name, tensor in generation_inputs(batch).items() if name != "input_ids"}
    with pytest.raises(ValueError, match="`input_ids` is missing"):
        model.generate(**inputs)
