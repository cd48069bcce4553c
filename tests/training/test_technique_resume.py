"""Techniques that live in the training loop, in a run that was stopped and in two processes."""

import subprocess
import sys

import pytest
import torch

from helpers import child_environment, stub, technique_trainer, weights
from hf_vae import KLAnnealingCallback
from hf_vae.training import (
    AggressiveEncoderCallback,
    DecoderResetCallback,
    DenoisingCallback,
    MinimumDesiredRateCallback,
    TokenNoise,
)


def techniques(name, processor):
    """Callbacks made anew, as a new process would."""
    return {
        "denoising": lambda: [DenoisingCallback(TokenNoise(drop=0.3, substitute=0.2, shuffle=2), processor.encoder_tokenizer)],
        "aggressive": lambda: [AggressiveEncoderCallback(max_inner_steps=3, check_every=1), KLAnnealingCallback()],
        "reset": lambda: [DecoderResetCallback(4)],
        "rate": lambda: [MinimumDesiredRateCallback(2.0, learning_rate=0.03, initial_multiplier=3.0)],
    }[name]()


# In the middle of the first epoch; at its end; in the second one, with the Trainer's own way to restore callbacks.
CUTS = [(3, False), pytest.param(4, False, marks=pytest.mark.slow), pytest.param(5, True, marks=pytest.mark.slow)]


@pytest.mark.parametrize("step, restore", CUTS)
@pytest.mark.parametrize("name", ["denoising", "aggressive", "reset", "rate"])
def test_a_resumed_run_ends_with_the_same_weights(name, step, restore, vae_processor, tmp_path):
    # Falls at the fourth step, whose evaluation needs to know of the third: where that is lost, aggression goes on.
    information = (1.0, 2.0, 3.0, 2.5, 9.0, 10.0)
    options = {
        "max_steps": 6, "save_strategy": "steps", "save_steps": step, "eval_strategy": "steps", "eval_steps": 1,
        "restore_callback_states_from_checkpoint": restore, "lr_scheduler_type": "linear",
    }  # fmt: skip
    runs = []
    for first, checkpoint in ((0, None), (step, str(tmp_path / f"checkpoint-{step}"))):
        trainer = technique_trainer(
            vae_processor, tmp_path, techniques(name, vae_processor), compute_metrics=stub(*information[first:]), **options
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        kept = ("loss", "kl", "kl_weight", "rate_multiplier", "inner_steps")
        logs = [{key: entry[key] for key in kept if key in entry} for entry in trainer.state.log_history]
        runs.append((weights(trainer.model), [entry for entry in logs if entry]))
    (whole, whole_logs), (resumed, resumed_logs) = runs
    assert resumed_logs == whole_logs and len(whole_logs) == 6
    for parameter, weight in resumed.items():
        torch.testing.assert_close(weight, whole[parameter], atol=0, rtol=0, msg=parameter)


def test_a_checkpoint_without_the_callback_starts_it_anew_and_saves(vae_processor, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1}
    technique_trainer(vae_processor, tmp_path, [KLAnnealingCallback()], max_steps=1, **options).train()
    callback = MinimumDesiredRateCallback(2.0)
    technique_trainer(vae_processor, tmp_path, [callback], max_steps=2, **options).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-1")
    )
    assert callback.multiplier != pytest.approx(1.01, abs=1e-6)
    assert (tmp_path / "checkpoint-2" / "trainer_state.json").exists()
    # A new training of the same Trainer starts anew too.
    trainer = technique_trainer(vae_processor, tmp_path / "new", [callback], max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["kl_weight"] == pytest.approx(1 - 1.01)


TWO_PROCESSES = """
import sys
import torch
from accelerate import PartialState
from helpers import Look, make_model, resized, stub, technique_trainer, weights
from hf_vae import VAEProcessor
from hf_vae.training import *
from hf_vae.cli.from_scratch import train_tokenizers

processor = VAEProcessor(*train_tokenizers(["the cat sat on the mat", "a dog ran in the park"] * 5, 300))
torch.manual_seed(PartialState().process_index)
rate = MinimumDesiredRateCallback(2.0, learning_rate=0.3)
aggressive = AggressiveEncoderCallback(max_inner_steps=4, check_every=2)
callbacks = [rate, aggressive, DecoderResetCallback(2), Look()]
model = resized(make_model("vae"), processor)
before = weights(model)
trainer = technique_trainer(
    processor, sys.argv[1], callbacks, model, max_steps=3, eval_strategy="steps", eval_steps=1,
    compute_metrics=stub(1.0, 2.0, 1.0), gradient_accumulation_steps=2,
)
trainer.train()
after = weights(model)
assert not torch.equal(after["posterior_head.linear.weight"], before["posterior_head.linear.weight"])
torch.save((after, rate.multiplier), f"{sys.argv[1]}/{PartialState().process_index}.pt")
"""


@pytest.mark.slow
def test_two_processes_stay_in_step(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script), str(tmp_path)]
    subprocess.run(command, check=True, timeout=240, env=child_environment())
    (first, first_rate), (second, second_rate) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first_rate == second_rate
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=0, rtol=0, msg=name)
