"""Two learning rates: what pretrained parts bring along, and what is new around them."""

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from helpers import SENTENCES, built
from hf_vae import VAEDataCollator
from hf_vae.training import new_weights, two_rates


def settings_of(tmp_path, **options):
    settings = {"per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True, "report_to": "none", "max_steps": 3}
    return TrainingArguments(output_dir=str(tmp_path / "out"), learning_rate=1e-3, **settings | options)


def trained(tmp_path, rate, **options):
    """The weights before and after some steps of the plain Trainer."""
    torch.manual_seed(0)
    _, model, processor = built("--bow_loss_weight", "1", "--batch_norm_gamma", "0.7")
    train = Dataset.from_dict(dict(processor(SENTENCES, SENTENCES, return_tensors=None)))
    settings = settings_of(tmp_path, **options)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizers = two_rates(model, settings, rate)
    Trainer(model, settings, train_dataset=train, data_collator=VAEDataCollator(processor), optimizers=optimizers).train()
    return model, before, dict(model.named_parameters())


def test_one_rate_for_both_is_the_trainer_s_own_training(tmp_path):
    """Weight decay too falls on the same weights."""
    options = {"weight_decay": 0.5, "lr_scheduler_type": "cosine"}
    *_, plain = trained(tmp_path, None, **options)
    *_, grouped = trained(tmp_path, 1e-3, **options)
    for name, parameter in plain.items():
        torch.testing.assert_close(grouped[name], parameter, rtol=0, atol=1e-7)


def test_the_first_step_of_adam_shows_each_rate(tmp_path):
    """Adam's first step moves a weight by its learning rate, whatever its gradient."""
    options = {"max_steps": 1, "lr_scheduler_type": "constant", "adam_epsilon": 1e-30, "weight_decay": 0.0}
    model, before, after = trained(tmp_path, 1e-2, **options)
    new = new_weights(model)
    assert {"posterior_head.linear.weight", "bow_head.words.bias", "decoder.latent_injection.embedding.projection.weight"} <= new
    assert not any(name.startswith(("encoder.", "decoder.lm.")) for name in new)
    for name, parameter in after.items():
        moved = (parameter - before[name]).abs().max().item()
        assert moved == pytest.approx(1e-2 if name in new else 1e-3, rel=1e-3), name


def test_the_schedule_scales_both_rates(tmp_path):
    _, model, _ = built()
    settings = settings_of(tmp_path, lr_scheduler_type="linear", max_steps=4)
    trainer = Trainer(model, settings, optimizers=two_rates(model, settings, 1e-2))
    trainer.create_scheduler(4)
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    rates = {round(group["lr"], 9) for group in trainer.optimizer.param_groups}
    assert rates == {7.5e-4, 7.5e-3}


def test_frozen_weights_are_in_no_group(tmp_path):
    _, model, _ = built()
    model.decoder.lm.requires_grad_(False)
    optimizer, _ = two_rates(model, settings_of(tmp_path), 1e-2)
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(tmp_path, rate):
    _, model, _ = built()
    with pytest.raises(ValueError, match=r"new_weights_learning_rate.* must be above 0"):
        two_rates(model, settings_of(tmp_path), rate)


@pytest.mark.parametrize("found", [(lambda: None, {}), (torch.optim.AdamW, {"params": []})], ids=["factory", "groups of its own"])
def test_an_optimizer_without_groups_of_ours_is_refused(tmp_path, monkeypatch, found):
    _, model, _ = built()
    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", lambda *args: found)
    with pytest.raises(ValueError, match="--optim adamw_torch_fused` does not take"):
        two_rates(model, settings_of(tmp_path), 1e-2)
