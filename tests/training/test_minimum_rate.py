"""A least rate of information, held by a multiplier."""

from itertools import pairwise

import pytest
import torch

from helpers import Look, fixed_noise, make_model, resized, technique_trainer
from hf_vae import KLAnnealingCallback
from hf_vae.training import (
    MinimumDesiredRateCallback,
)


def test_the_multiplier_is_rmsprop_s_under_a_softplus(vae_processor, tmp_path):
    callback = MinimumDesiredRateCallback(rate=3.0, learning_rate=0.05)
    look = Look(step_begin=lambda model, _: model.kl_weight.item(), step_end=lambda *_: callback.multiplier)
    trainer = technique_trainer(vae_processor, tmp_path, [callback, look], max_steps=6)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    raw = torch.tensor(1.01, dtype=torch.float64).expm1().log().requires_grad_()
    optimizer = torch.optim.RMSprop([raw], lr=0.05, maximize=True)
    assert look.seen["step_begin"][0] == pytest.approx(1 - 1.01)
    for step, log in enumerate(logs):
        optimizer.zero_grad()
        (torch.nn.functional.softplus(raw) * (3.0 - min(log["kl"], 6.0))).backward()
        optimizer.step()
        expected = torch.nn.functional.softplus(raw).item()
        assert look.seen["step_end"][step] == pytest.approx(expected, rel=1e-9)
        assert log["rate_multiplier"] == pytest.approx(expected, rel=1e-9)
        assert log["rate_violation"] == pytest.approx(max(0.0, 3.0 - log["kl"]))
        # The log's weight is the one that the step was trained with.
        assert log["kl_weight"] == look.seen["step_begin"][step]
        if step:
            weight = 1 - look.seen["step_end"][step - 1]
            assert log["kl_weight"] == pytest.approx(weight if logs[step - 1]["kl"] < 3.0 else max(weight, 0.0))


def test_the_constraint_lifts_the_kl_to_the_rate_and_then_lets_go(vae_processor, tmp_path):
    runs = {}
    for name, callback in (("elbo", KLAnnealingCallback()), ("rate", MinimumDesiredRateCallback(3.0, learning_rate=0.01))):
        trainer = technique_trainer(vae_processor, tmp_path, [callback], max_steps=25, per_device_train_batch_size=8)
        trainer.train()
        runs[name] = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert runs["elbo"][-1]["kl"] < 0.5
    rates, multipliers = ([entry[key] for entry in runs["rate"]] for key in ("kl", "rate_multiplier"))
    assert min(rates) < 3.0 < max(rates)
    # u rises while the KL is below the rate and falls while it is above.
    for before, after, rate in zip(multipliers, multipliers[1:], rates[1:]):
        assert (after > before) == (rate < 3.0)


def test_a_kl_above_the_rate_is_not_rewarded(vae_processor, tmp_path):
    # A multiplier far above 1, which nothing brings down within these steps.
    callback = MinimumDesiredRateCallback(3.0, learning_rate=1e-9, initial_multiplier=3.0)
    trainer = technique_trainer(vae_processor, tmp_path, [callback], max_steps=12, per_device_train_batch_size=8)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    weights = [(before["kl"], after["kl_weight"]) for before, after in pairwise(logs)]
    assert logs[0]["kl_weight"] == pytest.approx(-2.0)
    assert {kl < 3.0 for kl, _ in weights} == {True, False}
    for kl, weight in weights:
        assert weight == pytest.approx(-2.0 if kl < 3.0 else 0.0)


def test_a_kl_that_leaps_does_not_hold_the_multiplier_still(monkeypatch):
    # A KL that is rewarded may reach thousands of nats for a few steps; the multiplier must be as quick afterwards as before.
    travelled = {}
    for name, leap in (("calm", 4.0), ("leap", 5000.0)):
        callback = MinimumDesiredRateCallback(rate=2.0)
        kls = iter([leap] * 5 + [1.0] * 200)
        monkeypatch.setattr(callback._step, "means", lambda kls=kls: {"kl": next(kls)})
        path = []
        for _ in range(205):
            callback.on_step_end(None, None, None)
            path.append(callback.multiplier)
        assert path[4] < 1.01 < path[-1]
        travelled[name] = path[-1] - path[4]
    assert travelled["leap"] == pytest.approx(travelled["calm"])


def test_the_step_s_rate_is_the_mean_over_its_micro_batches(vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    multipliers = []
    for size, accumulation in ((8, 1), (2, 4)):
        callback = MinimumDesiredRateCallback(rate=0.5)
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "logging_steps": 1}
        technique_trainer(vae_processor, tmp_path, [callback], **options).train()
        multipliers.append((callback.multiplier, callback.state()["attributes"]["_mean_square"]))
    assert multipliers[0] == pytest.approx(multipliers[1], rel=1e-5)


def test_a_rate_that_cannot_be_reached_by_weighing_the_kl_is_refused(vae_processor, tmp_path):
    with pytest.raises(ValueError, match="`rate` is 0"):
        MinimumDesiredRateCallback(rate=0)
    callbacks = [KLAnnealingCallback(), MinimumDesiredRateCallback(rate=1.0)]
    with pytest.raises(ValueError, match="KLAnnealingCallback and MinimumDesiredRateCallback each set `kl_weight`"):
        technique_trainer(vae_processor, tmp_path, callbacks).train()
    model = resized(make_model("vae", free_bits=2.0), vae_processor)
    with pytest.raises(ValueError, match=r"`free_bits` is 2\.0"):
        technique_trainer(vae_processor, tmp_path, callbacks[1:], model).train()
