"""Inner steps of the encoder alone."""

import pytest
import torch

from helpers import Look, changed, fixed_noise, make_batch, make_model, ragged_dataset, resized, stub, technique_trainer, weights
from hf_vae import KLAnnealingCallback, VAEDataCollator
from hf_vae.training import (
    AggressiveEncoderCallback,
    ConstantSchedule,
)
from hf_vae.training.loss_parts import LossParts, uncounted


@pytest.mark.parametrize("accumulation", [1, 2])
def test_inner_steps_move_q_and_the_outer_step_the_rest(accumulation, vae_processor, tmp_path):
    look = Look(step_begin=lambda model, _: weights(model), step_end=lambda model, _: weights(model))
    callback = AggressiveEncoderCallback(max_inner_steps=3, check_every=2)
    trainer = technique_trainer(
        vae_processor, tmp_path, [callback, KLAnnealingCallback(), look], compute_metrics=stub(1.0, 2.0, 2.0, 3.0), max_steps=4,
        gradient_accumulation_steps=accumulation, eval_strategy="steps", eval_steps=1, weight_decay=0.1,
    )  # fmt: skip
    before = weights(trainer.model)
    trainer.train()
    for step in range(4):
        inner, outer = look.seen["step_begin"][step], look.seen["step_end"][step]
        # The mutual information no longer rises at the third evaluation.
        assert changed(before, inner) == ({"encoder", "posterior_head"} if step < 3 else set())
        assert changed(inner, outer) == ({"decoder"} if step < 3 else {"encoder", "posterior_head", "decoder"})
        before = outer
    assert callback.state()["attributes"] == {"aggressive": False, "mutual_information": 2.0}
    logged = [entry["inner_steps"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(2 <= steps <= 3 for steps in logged[:3]) and logged[3] == 0


def test_a_shared_encoder_belongs_to_q(processor, tmp_path):
    for variant, parts in (("paraphrase-eq", {"encoder", "posterior_head"}), ("paraphrase-cross", {"encoder", "posterior_head"})):
        look = Look(step_begin=lambda model, _: weights(model))
        model = resized(make_model(variant), processor)
        if variant == "paraphrase-cross":
            model.source_encoder.resize_token_embeddings(len(processor.encoder_tokenizer))
        before = weights(model)
        callback = AggressiveEncoderCallback(max_inner_steps=1)
        technique_trainer(
            processor, tmp_path, [callback, look], model, compute_metrics=stub(1.0), eval_strategy="epoch", max_steps=1
        ).train()
        assert changed(before, look.seen["step_begin"][0]) == parts


def test_the_inner_loop_improves_the_bound(vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    model = resized(make_model("vae"), vae_processor)
    batch = VAEDataCollator(vae_processor)([dict(row) for row in ragged_dataset(vae_processor)])

    def bound(model, _=None):
        with torch.no_grad():
            return model.eval()(**batch).loss.item()

    before = bound(model)
    look = Look(step_begin=bound)
    callback = AggressiveEncoderCallback(max_inner_steps=40)
    options = {"compute_metrics": stub(1.0), "eval_strategy": "epoch", "per_device_train_batch_size": 4}
    technique_trainer(vae_processor, tmp_path, [callback, look], model, **options).train()
    assert look.seen["step_begin"][0] < before - 0.05


@pytest.mark.parametrize("learning_rate, steps", [(0.0, 4), (1e-3, 7)])
def test_the_inner_loop_ends_where_the_loss_falls_no_more(learning_rate, steps, vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    callback = AggressiveEncoderCallback(max_inner_steps=7, check_every=2)
    # One sentence, so that the loss falls if anything is learnt, and stays to the last bit if nothing is.
    trainer = technique_trainer(
        vae_processor, tmp_path, [callback], rows=1, learning_rate=learning_rate, eval_strategy="epoch", compute_metrics=stub(1.0)
    )
    trainer.train()
    assert trainer.state.log_history[0]["inner_steps"] == steps


def test_inner_gradients_do_not_depend_on_accumulation(vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    results = []
    for size, accumulation in ((8, 1), (2, 4)):
        look = Look(step_begin=lambda model, _: weights(model))
        technique_trainer(
            vae_processor, tmp_path, [AggressiveEncoderCallback(max_inner_steps=1), look], optim="sgd", learning_rate=1.0,
            per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, eval_strategy="epoch", max_grad_norm=1e9,
            compute_metrics=stub(1.0),
        ).train()  # fmt: skip
        results.append(look.seen["step_begin"][0])
    assert "encoder" in changed(weights(resized(make_model("vae"), vae_processor)), results[0])
    for name, parameter in results[0].items():
        torch.testing.assert_close(results[1][name], parameter, atol=2e-6, rtol=1e-5)


def test_inner_steps_are_in_no_figure_of_the_outer_ones(vae_processor, tmp_path):
    callbacks = [AggressiveEncoderCallback(max_inner_steps=5), KLAnnealingCallback(ConstantSchedule(0.3))]
    trainer = technique_trainer(
        vae_processor, tmp_path, callbacks, per_device_train_batch_size=8, eval_strategy="epoch", compute_metrics=stub(1.0)
    )
    trainer.train()
    log = trainer.state.log_history[0]
    tokens = sum(len(row["labels"]) for row in trainer.train_dataset)
    assert log["loss"] * tokens / 8 == pytest.approx(log["reconstruction"] + 0.3 * log["kl"], rel=1e-3)
    assert log["inner_steps"] == 5


def test_only_counted_passes_with_a_gradient_are_averaged(vae_processor):
    model = make_model("vae")
    batch, parts = make_batch(model), LossParts(("reconstruction_loss", "kl"), optional=("bow_loss",))
    parts.attach(model)
    with torch.no_grad():
        model(**batch)
    model.train()
    with uncounted():
        model(**batch)
    assert parts.means() == {}
    kl = torch.cat([model(**make_batch(model, rows, seed=rows)).kl for rows in (1, 4)])
    means = parts.means()
    assert means["kl"] == pytest.approx(kl.mean().item()) and set(means) == {"reconstruction_loss", "kl"}
    assert parts.means() == {}
    parts.detach()
    model(**batch)
    assert parts.means() == {}


def test_aggression_without_an_end_is_refused(vae_processor, tmp_path):
    with pytest.raises(ValueError, match="`eval_strategy` is 'no'"):
        technique_trainer(vae_processor, tmp_path, [AggressiveEncoderCallback()]).train()
    with pytest.raises(ValueError, match="gave no `eval_mutual_information`"):
        technique_trainer(vae_processor, tmp_path, [AggressiveEncoderCallback(max_inner_steps=1)], eval_strategy="epoch").train()
    with pytest.raises(ValueError, match="`check_every` is 0"):
        AggressiveEncoderCallback(check_every=0)
