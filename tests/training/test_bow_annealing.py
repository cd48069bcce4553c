"""The weight of the bag of words by a schedule, in the plain Trainer and from the command line."""

import pytest
import torch

from helpers import Look, fixed_noise, make_batch, make_model, resized, trainer_for
from hf_vae import KLAnnealingCallback
from hf_vae.cli.arguments import parse_arguments
from hf_vae.options.model import ModelArguments
from hf_vae.training import BagOfWordsAnnealingCallback, ConstantSchedule, LinearSchedule
from hf_vae.training.techniques import check_techniques, technique_callbacks


def test_the_weight_follows_the_schedule_and_stands_in_the_log(processor, tmp_path):
    model = make_model("paraphrase-prompt", bow_loss_weight=0.5)
    model.decoder.resize_token_embeddings(len(processor.tokenizer))
    model = resized(model, processor)
    look = Look(step_end=lambda model, _: model.bow_weight.item())
    callbacks = [KLAnnealingCallback(), BagOfWordsAnnealingCallback(LinearSchedule(steps=4, start=1.0, weight=0.2)), look]
    trainer = trainer_for(model, processor, tmp_path, callbacks, max_steps=6)
    trainer.train()
    expected = [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    assert look.seen["step_end"] == pytest.approx(expected)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["bow_weight"] for entry in logs] == pytest.approx(expected)
    # What is saved says the weight that the run was asked for, and a training without a schedule has the whole of it.
    assert model.bow_weight.item() == 1.0 and model.config.bow_loss_weight == 0.5
    assert "bow_weight" not in model.state_dict()


def test_it_is_a_factor_on_the_weight_of_the_configuration(monkeypatch):
    fixed_noise(monkeypatch)
    model = make_model("paraphrase-prompt", bow_loss_weight=0.5).train()
    batch = make_batch(model)
    tokens = (batch["labels"] != -100).sum()
    losses = {}
    for weight in (1.0, 0.3, 0.0):
        model.bow_weight.fill_(weight)
        output = model(**batch)
        losses[weight] = output.loss
    bow = 0.5 * output.bow_loss.sum() / tokens
    torch.testing.assert_close(losses[1.0] - losses[0.0], bow)
    torch.testing.assert_close(losses[0.3] - losses[0.0], 0.3 * bow)


def test_a_model_without_a_bag_is_refused(processor, tmp_path):
    model = resized(make_model("paraphrase-prompt"), processor)
    trainer = trainer_for(model, processor, tmp_path, [BagOfWordsAnnealingCallback(LinearSchedule(steps=4))])
    with pytest.raises(ValueError, match="has no bag of words whose weight could change: set `bow_loss_weight`"):
        trainer.train()


def test_the_commands_know_it(tmp_path):
    def parse(*argv):
        (tmp_path / "recipe.json").write_text("{}")
        return parse_arguments((ModelArguments,), [str(tmp_path / "recipe.json"), *argv], "vae", str(tmp_path))

    def schedules(args):
        return [each.schedule for each in technique_callbacks(args, None) if isinstance(each, BagOfWordsAnnealingCallback)]

    assert not schedules(parse("--bow_loss_weight", "1")[0])
    asked = ("--bow_schedule", "linear", "--bow_schedule_options", '{"steps": 10, "start": 1, "weight": 0.1}')
    [schedule] = schedules(parse("--bow_loss_weight", "1", *asked)[0])
    assert schedule == LinearSchedule(steps=10, start=1, weight=0.1)
    # A constant one counts too, unless it changes nothing.
    [schedule] = schedules(parse("--bow_loss_weight", "1", "--bow_schedule_options", '{"weight": 0.5}')[0])
    assert schedule == ConstantSchedule(weight=0.5)
    with pytest.raises(ValueError, match="`--bow_schedule` is 'linear', and there is no bag of words: set `--bow_loss_weight`"):
        check_techniques(*parse(*asked))
    with pytest.raises(ValueError, match="steps"):
        check_techniques(*parse("--bow_loss_weight", "1", "--bow_schedule", "linear"))
