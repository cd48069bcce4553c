"""What every variant computes: the evidence lower bound, its parts, and what may change it."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from helpers import (
    BOS,
    CONDITIONAL_VARIANTS,
    PAD,
    UNK,
    make_batch,
    make_model,
)
from hf_vae import DiagonalGaussian
from hf_vae.calls import call_with
from hf_vae.training.stages import held


def test_loss_is_the_negative_elbo_per_token_in_evaluation(model, batch):
    output = model(**batch)
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)
    assert output.reconstruction_loss.shape == output.kl.shape == (3,)


def test_reconstruction_is_the_sum_of_token_log_probabilities(model, batch):
    latents = torch.randn(3, 4)
    output = model(**batch, latents=latents)
    labels, log_probs = batch["labels"], output.logits.log_softmax(-1)
    for row in range(3):
        nats = -sum(log_probs[row, t, labels[row, t]] for t in range(labels.shape[1]) if labels[row, t] != -100)
        of_act = output.act_loss[row] if "act_loss" in output else 0
        torch.testing.assert_close(output.reconstruction_loss[row], nats + of_act)
    assert output.kl is None


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_kl_weight_scales_the_kl_alone(model, batch, weight):
    model.train()
    model.kl_weight.fill_(weight)
    output = model(**batch)
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + weight * output.kl).sum() / tokens)
    assert output.logits is None
    assert model(**batch, output_logits=True).logits is not None


def test_free_bits_change_the_loss_and_not_the_reported_kl(variant):
    model = make_model(variant, free_bits=100.0).train()
    batch = make_batch(model)
    output = model(**batch)
    tokens = (batch["labels"] != -100).sum()
    assert output.kl.max() < 100
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + 100.0).sum() / tokens)
    output = model.eval()(**batch)
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)


@pytest.mark.parametrize("variant", CONDITIONAL_VARIANTS, indirect=True)
def test_hybrid_is_the_convex_sum_of_elbo_and_gsnn(variant):
    model = make_model(variant, objective="hybrid", hybrid_alpha=0.3, free_bits=2.0, bow_loss_weight=0.5).train()
    model.kl_weight.fill_(0.7)
    batch = make_batch(model)
    seen = []
    decode = model.decode
    model.decode = lambda latents, *args, **kwargs: (seen.append(latents.detach()), decode(latents, *args, **kwargs))[1]
    bags = []
    model.bow_head.register_forward_hook(lambda module, args, bow_loss: bags.append(bow_loss))
    torch.manual_seed(3)
    output = model(**batch)
    elbo = output.reconstruction_loss + 0.7 * output.kl.clamp(min=2.0) + 0.5 * output.bow_loss
    # Each half has the bag of words of its own z.
    torch.testing.assert_close(bags[0], output.bow_loss)
    mixed = 0.3 * elbo + 0.7 * (output.prior_reconstruction_loss + 0.5 * bags[1])
    torch.testing.assert_close(output.loss, mixed.sum() / (batch["labels"] != -100).sum())
    # Its two halves are what the two objectives would have charged for the same z.
    for latents, part in zip(seen[:], (output.reconstruction_loss, output.prior_reconstruction_loss), strict=True):
        torch.testing.assert_close(model(**batch, latents=latents).reconstruction_loss, part)
    # The second z knows nothing of y: it is noise under the prior.
    torch.manual_seed(3)
    torch.randn(3, 4)
    prior = model.prior(call_with(model.read_source, batch), 3).latent_dist
    torch.testing.assert_close(seen[1], prior.mean + prior.std * torch.randn(3, 4))
    output = model.eval()(**batch)
    assert output.prior_reconstruction_loss is None
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / (batch["labels"] != -100).sum())


@pytest.mark.parametrize("variant", CONDITIONAL_VARIANTS, indirect=True)
def test_with_q_set_to_p_the_elbo_is_the_gsnn_objective(variant, monkeypatch):
    cvae, gsnn = (make_model(variant, objective=objective).train() for objective in ("cvae", "gsnn"))
    batch = make_batch(cvae)
    monkeypatch.setattr(cvae, "encode", lambda *args: cvae.prior(call_with(cvae.read_source, batch), 3))
    losses = []
    for model in (cvae, gsnn):
        torch.manual_seed(0)
        losses.append(model(**batch).loss)
    torch.testing.assert_close(*losses, atol=1e-6, rtol=0)
    # Nothing reads y before it is predicted.
    without_pair = {name: tensor for name, tensor in batch.items() if not name.startswith("posterior")}
    torch.manual_seed(0)
    torch.testing.assert_close(gsnn(**without_pair).loss, losses[1])


@pytest.mark.parametrize("variant", CONDITIONAL_VARIANTS, indirect=True)
def test_what_takes_no_part_is_not_trained(variant):
    """Distributed training waits for the gradient of every weight that is trained: without q, and with a z that is given."""
    for options in ({"objective": "gsnn"}, {"prior_type": "flow", "flow_layers": 2, "flow_hidden_size": 8}):
        model = make_model(variant, **options).train()
        batch = make_batch(model)
        given = {} if "objective" in options else {"latents": torch.zeros(3, 4)}
        with held(parameter for module in model.latent_modules for parameter in module.parameters() if given):
            model(**batch, **given).loss.backward()
            trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained and [name for name, gradient in trained.items() if gradient is None] == []


@pytest.mark.parametrize("free_bits_per", ["dimension", "batch"])
def test_free_bits_of_dimensions(free_bits_per):
    model = make_model("vae", free_bits=0.3, free_bits_per=free_bits_per).train()
    batch = make_batch(model)
    output = model(**batch)
    kl = DiagonalGaussian(output.posterior_mean, output.posterior_logvar).kl(DiagonalGaussian.standard(3, 4))
    torch.testing.assert_close(output.kl, kl.sum(-1))
    charged = kl.clamp(min=0.3).sum() if free_bits_per == "dimension" else 3 * kl.mean(0).clamp(min=0.3).sum()
    assert charged > kl.sum()
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss.sum() + charged) / tokens)


@pytest.mark.parametrize("free_bits_per", ["sentence", "vector", "dimension", "batch"])
def test_without_free_bits_training_charges_an_estimate_as_it_is_where_it_is_negative_too(free_bits_per):
    """Between q and a flow the KL is estimated by one sample, and a floor of 0 would charge too much on average."""
    model = make_model("vae", prior_type="flow", flow_layers=2, flow_hidden_size=8, free_bits_per=free_bits_per).train()
    batch = make_batch(model, rows=64)
    output = model(**batch)
    assert output.kl.min() < 0 < output.kl.max()
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)


def test_a_capacity_is_approached_from_both_sides():
    for capacity, sign in ((0.0, 1), (1000.0, -1)):
        model = make_model("vae", capacity=capacity).train()
        model.kl_weight.fill_(2.0)
        batch = make_batch(model)
        output = model(**batch)
        tokens = (batch["labels"] != -100).sum()
        distance = sign * (output.kl.mean() - capacity)
        torch.testing.assert_close(output.loss, (output.reconstruction_loss + 2.0 * distance).sum() / tokens)
        output = model.eval()(**batch)
        torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)


def test_batch_norm_keeps_the_kl_above_its_bound(variant):
    model = make_model(variant, batch_norm_gamma=0.8).train()
    batch = make_batch(model, rows=32)
    with torch.no_grad():
        model.posterior_head.linear.weight *= 0.1  # an encoder that says little
    output = model(**batch)
    torch.testing.assert_close(output.posterior_mean.std(0, correction=0), torch.full((4,), 0.8), atol=0.05, rtol=0)
    assert output.kl.mean() >= output.posterior_mean.square().sum(-1).mean() / 2 > 4 * 0.75**2 / 2
    with pytest.raises(ValueError, match="train with at least two"):
        model(**make_batch(model, rows=1))
    # In evaluation a row's posterior is its own, whatever stands beside it.
    model.eval()
    together = model(**batch).posterior_mean
    alone = model(**{name: tensor[:1] for name, tensor in batch.items()}).posterior_mean
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)


def test_the_bag_of_words_loss_is_the_cross_entropy_of_the_words(variant):
    model = make_model(variant, bow_loss_weight=0.5).train()
    batch = make_batch(model)
    latents, labels = torch.randn(3, 4), batch["labels"]
    seen = {}
    model.bow_head.words.register_forward_hook(lambda module, args, output: seen.update(log_probs=output.log_softmax(-1)))
    output = model(**batch, latents=latents)
    expected = [-seen["log_probs"][row, labels[row][labels[row] != -100]].sum() for row in range(3)]
    torch.testing.assert_close(output.bow_loss, torch.stack(expected))
    tokens = (labels != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + 0.5 * output.bow_loss).sum() / tokens)
    assert not torch.allclose(output.bow_loss, model(**batch, latents=-latents).bow_loss)
    output = model.eval()(**batch)
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)


def test_the_bag_of_words_of_a_conditional_model_sees_the_source():
    for variant, name in (
        ("paraphrase-prompt", "prompt_input_ids"),
        ("paraphrase-eq", "input_ids"),
        ("paraphrase-lstm", "input_ids"),
    ):
        model = make_model(variant, bow_loss_weight=1.0)
        batch = make_batch(model)
        other = {**batch, name: batch[name].flip(0), name.replace("input_ids", "attention_mask"): batch[
            name.replace("input_ids", "attention_mask")].flip(0)}  # fmt: skip
        first, second = (model(**inputs, latents=torch.ones(3, 4)).bow_loss for inputs in (batch, other))
        assert (first - second).abs()[[0, 2]].min() > 1e-4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective": "wake-sleep"}, "`objective` is 'wake-sleep'"),
        ({"hybrid_alpha": 1.5}, "`hybrid_alpha` is 1.5"),
        ({"objective": "gsnn", "free_bits": 2.0}, "has no KL"),
        ({"prior_type": "learned"}, "`prior_type` is 'learned'"),
        ({"prior_regularization": 1.0}, "`prior_regularization` has nothing to do"),
        ({"prior_type": "conditional", "prior_regularization": -1.0}, "`prior_regularization` is -1.0"),
        ({"source_noise": 1.0}, "`source_noise` is 1.0"),
    ],
)
def test_bad_objectives_are_named(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        make_model("paraphrase-prompt", **options)


def test_padding_changes_nothing(model, batch):
    def widen(name, tensor):
        if not name.endswith(("input_ids", "attention_mask", "labels")) or tensor.ndim < 2:
            return tensor
        fill = -100 if name == "labels" else 0
        pad = tensor.new_full((*tensor.shape[:-1], 3), fill)
        return torch.cat([pad, tensor] if name.startswith("prompt") else [tensor, pad], dim=-1)

    latents = torch.randn(3, 4)
    wide = {name: widen(name, tensor) for name, tensor in batch.items()}
    plain, padded = (model(**inputs, latents=latents).reconstruction_loss for inputs in (batch, wide))
    torch.testing.assert_close(plain, padded, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(model(**batch).kl, model(**wide).kl, atol=1e-5, rtol=1e-6)


def test_rows_do_not_see_each_other(model, batch):
    latents = torch.randn(3, 4)
    together = model(**batch, latents=latents).reconstruction_loss
    for row in range(3):
        alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        torch.testing.assert_close(model(**alone, latents=latents[row : row + 1]).reconstruction_loss[0], together[row])


def test_every_parameter_has_a_gradient(model, batch):
    model.train()
    model(**batch).loss.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    # Positions that no token of the batch stands on, and BERT's padding, are the only rows without; no whole tensor is.
    assert not missing


def test_each_row_has_its_own_noise():
    """With the same input twice, equal reconstructions would mean one z for the whole batch."""
    model = make_model("vae")
    batch = {name: tensor[:1].repeat(8, 1) for name, tensor in make_batch(model).items()}
    assert model(**batch).reconstruction_loss.unique().numel() == 8


@pytest.mark.parametrize("training", [True, False])
def test_an_inputless_decoder_keeps_start_prompt_and_padding_alone(variant, training):
    model = make_model(variant, word_dropout=1.0, word_dropout_token_id=UNK).train(training)
    batch = make_batch(model)
    seen = {}
    model.decoder.lm.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.update(ids=args[0]))
    model(**batch)
    prompt = batch["prompt_input_ids"].shape[1] if "prompt_input_ids" in batch else 0
    assert (seen["ids"][:, prompt] == BOS).all()
    if prompt:
        assert torch.equal(seen["ids"][:, :prompt], batch["prompt_input_ids"])
    words = seen["ids"][:, prompt + 1 :]
    observed = batch["labels"][:, :-1] != -100
    assert (words[observed] == UNK).all() and (words[~observed] == PAD).all()


def test_word_dropout_is_a_rate_and_only_of_training():
    model = make_model("vae", word_dropout=0.3, word_dropout_token_id=UNK)
    labels = torch.full((200, 20), 7)
    seen = {}
    model.decoder.lm.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.update(ids=args[0]))
    model.train().decode(torch.zeros(200, 4), labels)
    # 3,800 draws: a standard error below 0.008.
    assert (seen["ids"][:, 1:] == UNK).float().mean().item() == pytest.approx(0.3, abs=0.04)
    model.eval().decode(torch.zeros(200, 4), labels)
    assert not (seen["ids"] == UNK).any()


def test_the_standard_prior_s_density_at_its_mode():
    """The standard prior's density at its mode, a guard on the constant of the log-density."""
    prior = make_model("vae").prior(batch_size=1).latent_dist
    assert prior.log_prob(torch.zeros(1, 4)).sum().item() == pytest.approx(-2 * math.log(2 * math.pi))
