"""The dialogue model: acts, turns, speakers and what else is known of a dialogue."""

import pytest
import torch

from helpers import GREEDY, TALK, generation_inputs, make_batch, make_model
from hf_vae import DialogCVAEConfig, DialogCVAEModel, DialogCVAEProcessor
from hf_vae.calls import call_with
from hf_vae.cli.from_scratch import small_configs
from hf_vae.evaluation import LikelihoodEvaluator
from hf_vae.fused_linear_cross_entropy import sequence_nll

WITH_ACTS = ("dialog-acts", "dialog-lstm")


@pytest.mark.parametrize("variant", WITH_ACTS)
def test_the_likelihood_sums_over_acts(variant):
    """Against the sum written out, from logits of the decoder and of the act head."""
    model = make_model(variant)
    batch, latents = make_batch(model), torch.randn(3, 4)
    with torch.no_grad():
        conditioning = model.condition(call_with(model.read_source, batch))
        probability = 0.0
        for act in range(3):
            logits = model.decode(latents, batch["labels"], act_labels=torch.full((3,), act), **conditioning)
            p_act = model.predict_acts(latents, **conditioning)[:, act].exp()
            probability = probability + p_act * torch.exp(-sequence_nll(logits, batch["labels"]))
        torch.testing.assert_close(model.nll(latents, batch["labels"], **conditioning), -probability.log())
        # What an evaluation without acts reports is the same.
        unknown = {name: tensor for name, tensor in batch.items() if name != "act_labels"}
        output = model(**unknown, latents=latents)
        torch.testing.assert_close(output.reconstruction_loss, -probability.log())
        # Every act adds something, so one of them alone is less.
        assert (model(**batch, latents=latents).reconstruction_loss > -probability.log()).all()


@pytest.mark.parametrize("variant", WITH_ACTS)
def test_acts_of_some_rows_may_be_unknown(variant):
    model = make_model(variant)
    batch, latents = make_batch(model), torch.randn(3, 4)
    known = model(**batch, latents=latents)
    batch["act_labels"][1] = -100
    for mode in (model.eval, model.train):
        mode()
        output = model(**batch, latents=latents)
        torch.testing.assert_close(output.reconstruction_loss[[0, 2]], known.reconstruction_loss[[0, 2]])
        assert output.act_loss[1] == 0 and output.act_loss[[0, 2]].min() > 0
    # Training decodes with the mean embedding, which is no likelihood of the sum but costs one pass.
    rest = {name: tensor for name, tensor in batch.items() if name != "act_labels"}
    conditioning = model.condition(call_with(model.read_source, rest))
    nats = sequence_nll(model.decode(latents, batch["labels"], **conditioning), batch["labels"])
    torch.testing.assert_close(output.reconstruction_loss[1], nats[1])


def test_the_loss_charges_for_y_the_act_and_the_kl():
    model = make_model("dialog-acts")
    batch = make_batch(model)
    output = model(**batch)
    chosen = output.act_log_probs[range(3), batch["act_labels"]]
    torch.testing.assert_close(output.act_loss, -chosen)
    torch.testing.assert_close(output.act_log_probs.exp().sum(-1), torch.ones(3))
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / (batch["labels"] != -100).sum())


@pytest.mark.parametrize("variant", WITH_ACTS)
def test_q_sees_the_act(variant):
    model = make_model(variant)
    batch = make_batch(model)
    acts = [torch.tensor([act, 0, 0]) for act in range(3)] + [torch.tensor([-100, 0, 0])]
    source = call_with(model.read_source, batch)
    means = [call_with(model.encode, {**batch, "act_labels": act}, source=source).latent_dist.mean for act in acts]
    assert all((means[0][0] - other[0]).abs().max() > 1e-4 for other in means[1:])
    torch.testing.assert_close(means[0][1:], means[3][1:])
    # Where none is given it is as unknown.
    nothing = call_with(model.encode, {name: tensor for name, tensor in batch.items() if name != "act_labels"}, source=source)
    torch.testing.assert_close(nothing.latent_dist.mean[0], means[3][0])


@pytest.mark.parametrize("variant", WITH_ACTS)
def test_an_act_that_is_asked_for_is_what_the_decoder_reads(variant):
    model = make_model(variant)
    inputs, latents = generation_inputs(make_batch(model)), torch.randn(3, 4)
    # Acts that do something: tiny random models else hardly move.
    model.act_head.embedding.weight.data.mul_(20)
    by_act = [model.generate(**inputs, act_labels=torch.full((3,), act), latents=latents, **GREEDY) for act in range(3)]
    assert any(not torch.equal(by_act[0], other) for other in by_act[1:])
    read = []
    model.decoder.latent_injection.embedding.projection.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    model.generate(**inputs, act_labels=torch.tensor([2, -100, 0]), latents=latents, **GREEDY)
    acts = read[0][:, 4:9]
    torch.testing.assert_close(acts[0], model.act_head.embedding.weight[2])
    probabilities = model.predict_acts(latents, **model.condition(call_with(model.read_source, inputs))).exp()
    torch.testing.assert_close(acts[1], (probabilities @ model.act_head.embedding.weight)[1])


def test_the_likelihood_estimates_use_the_sum_over_acts(dialog_tokenizers):
    """Both estimates agree on a model whose z does nothing, where they are exact with any number of samples."""
    torch.manual_seed(0)
    encoder, decoder = small_configs(dialog_tokenizers[0], hidden_size=16, num_attention_heads=2)
    model = DialogCVAEModel(DialogCVAEConfig(encoder=encoder, decoder=decoder, latent_size=4, num_acts=3))
    processor = DialogCVAEProcessor(*dialog_tokenizers, acts=["x", "y", "z"])
    model.decoder.latent_injection.embedding.projection.weight.data[:, :4] = 0
    model.act_head.hidden.weight.data[:, :4] = 0
    for name in ("prior_network", "posterior_head"):
        for parameter in getattr(model, name).parameters():
            parameter.data.zero_()
    dialogues = [{"messages": TALK, "act": "y"}, {"messages": TALK[:1], "act": "x"}]
    targets = ["yes , it was", "no"]
    evaluator = LikelihoodEvaluator(model, processor, dialogues, targets)
    bound = evaluator.importance_weighted(evaluator.posterior(), evaluator.prior(), 3)
    inputs = processor(dialogues, targets)
    joint = []
    for act in range(3):
        inputs["act_labels"] = torch.full((2,), act)
        joint.append(-model(**inputs, latents=torch.zeros(2, 4)).reconstruction_loss)
    torch.testing.assert_close(bound.nll, -torch.stack(joint).logsumexp(0).detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "act_labels, message",
    [
        ([0, 1, 3], r"`act_labels` holds \[0, 1, 3\]; the model is configured for 3 acts"),
        ([0, -1, 2], "-100 if it is not known"),
    ],
)
def test_acts_that_the_model_does_not_have(act_labels, message):
    model = make_model("dialog-acts")
    batch = make_batch(model) | {"act_labels": torch.tensor(act_labels)}
    with pytest.raises(ValueError, match=message):
        model(**batch)


def test_a_model_without_acts_takes_none():
    model = make_model("dialog")
    batch = make_batch(model) | {"act_labels": torch.tensor([0, 0, 0])}
    for call in (
        model,
        model.generate,
        lambda **inputs: call_with(model.encode, inputs, source=call_with(model.read_source, inputs)),
    ):
        with pytest.raises(ValueError, match="configured without acts"):
            call(**batch)
    with pytest.raises(ValueError, match="configured without acts"):
        model.predict_acts(torch.zeros(3, 4), torch.zeros(3, 4))


def test_turns_are_read_in_order_with_their_speakers():
    model = make_model("dialog-lstm")
    batch = make_batch(model)
    prior = model.prior(call_with(model.read_source, batch), 3).latent_dist.mean

    def changed(**inputs):
        return (model.prior(call_with(model.read_source, batch | inputs), 3).latent_dist.mean - prior).abs().amax(-1)

    assert (changed(same_speaker=1 - batch["same_speaker"]) > 1e-5).all()
    flipped = {name: batch[name].flip(1) for name in ("input_ids", "attention_mask", "same_speaker")}
    assert (
        changed(
            **{
                name: torch.where(torch.tensor([True, False, False]).view(-1, *[1] * (batch[name].ndim - 1)), new, batch[name])
                for name, new in flipped.items()
            }
        )[0]
        > 1e-5
    )
    # What stands where there is no turn is not read.
    noise = batch["input_ids"].clone()
    noise[1, 2] = 7
    assert changed(input_ids=noise).max() == 0


def test_what_else_is_known_reaches_prior_posterior_and_decoder():
    model = make_model("dialog")
    batch, latents = make_batch(model), torch.randn(3, 4)
    base = model(**batch, latents=latents).reconstruction_loss
    before = model(**batch)
    for name in ("meta_categories", "meta_values"):
        other = batch | {name: 1 - batch[name] if name == "meta_values" else (batch[name] + 1) % 2}
        after = model(**other)
        assert (after.prior_mean - before.prior_mean).abs().amax(-1).min() > 1e-5
        assert (after.posterior_mean - before.posterior_mean).abs().amax(-1).min() > 1e-5
        assert (model(**other, latents=latents).reconstruction_loss - base).abs().min() > 1e-6


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"meta_values": None}, r"`meta_values` has 0 feature\(s\) a row; the model is configured for 1"),
        ({"meta_categories": torch.tensor([[0, 0], [3, 0], [0, 0]])}, r"`meta_categories\[:, 0\]` is between 0 and 3"),
        ({"input_ids": None}, "`input_ids` is missing: an encoder reads the dialogue"),
        ({"posterior_input_ids": None}, "`posterior_input_ids` is missing"),
    ],
)
def test_bad_inputs_are_named(inputs, message):
    model = make_model("dialog")
    with pytest.raises(ValueError, match=message):
        model(**make_batch(model) | inputs)


def test_bad_turns_are_named():
    model = make_model("dialog-lstm")
    batch = make_batch(model)
    with pytest.raises(ValueError, match=r"`input_ids` has shape \(3, 7\); with `context_encoding='hierarchical'`"):
        model(**batch | {"input_ids": batch["input_ids"][:, 0], "attention_mask": batch["attention_mask"][:, 0]})
    with pytest.raises(ValueError, match=r"`same_speaker` has shape None; expected one bit a turn, \(3, 3\)"):
        model(**batch | {"same_speaker": None})
    with pytest.raises(ValueError, match="all padding in row"):
        model(**batch | {"attention_mask": torch.zeros_like(batch["attention_mask"])})
    holes = batch["attention_mask"].clone()
    holes[0, 1] = 0
    with pytest.raises(ValueError, match="a turn after one that is all padding"):
        model(**batch | {"attention_mask": holes})
    plain = make_model("dialog-acts")
    with pytest.raises(ValueError, match="configured without any"):
        plain(**make_batch(plain) | {"meta_values": torch.ones(3, 1)})


def test_an_encoder_of_the_context_keeps_its_pooler():
    """The acts read one vector of the dialogue, also where neither prior nor decoder does."""
    options = {"pooling": "pooler", "tie_encoders": False, "prior_type": "standard"}
    model = make_model("dialog-acts", **options)
    output = model.train()(**make_batch(model))
    output.loss.backward()
    assert model.source_encoder.pooler.dense.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("variant, options", [("dialog", {}), ("dialog", {"bow_loss_weight": 1.0}), ("dialog-acts", {})])
@pytest.mark.parametrize("context_encoding", ["flat", "hierarchical"])
def test_what_only_z_uses_is_what_gets_no_gradient_without_it(variant, options, context_encoding):
    model = make_model(variant, context_encoding=context_encoding, **options).train()
    model(**make_batch(model), latents=torch.zeros(3, 4)).loss.backward()
    idle = {id(parameter) for module in model.latent_modules for parameter in module.parameters()}
    assert idle == {id(parameter) for parameter in model.parameters() if parameter.grad is None}
