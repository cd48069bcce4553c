"""The plain Trainer: exact accumulation, the callback's logs, exact resuming."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from helpers import (
    VARIANTS,
    assert_same_gradients,
    child_environment,
    fixed_noise,
    gradients_of,
    make_batch,
    make_model,
    ragged_dataset,
    resized,
    trainer_for,
)
from hf_vae import KLAnnealingCallback, VAEDataCollator
from hf_vae.cli.checks import check_evaluation
from hf_vae.cli.plots import plot_training
from hf_vae.compat import ACTIVATION_CHECKPOINTING
from hf_vae.training import LinearSchedule, SigmoidSchedule

SCRIPT = Path(__file__).parent / "two_process_gradients.py"


@pytest.mark.parametrize("micro_batches", [(2, 4), (4, 2), (1, 8)])
def test_accumulated_gradients_equal_one_big_batch_s(micro_batches, processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    size, steps = micro_batches
    gradients = []
    for batch_size, accumulation in ((8, 1), (size, steps)):
        model = resized(make_model("paraphrase-prompt"), processor)
        trainer = trainer_for(
            model, processor, tmp_path, [KLAnnealingCallback()], max_grad_norm=1e9,
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        gradients.append(gradients_of(model, trainer))
    whole, accumulated = gradients
    assert_same_gradients(accumulated, whole)


@pytest.mark.slow
def test_two_processes_give_the_gradients_and_logs_of_one(tmp_path):
    results = []
    for processes in (1, 2):
        output = tmp_path / f"{processes}.pt"
        # `accelerate launch --cpu` starts one process however many are asked for; torch's launcher starts them.
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        subprocess.run([*command, str(SCRIPT), str(output), str(8 // processes)], check=True, timeout=240, env=child_environment())
        results.append(torch.load(output, weights_only=True))
    one, two = results
    assert_same_gradients(two["gradients"], one["gradients"])
    for name in ("reconstruction", "kl", "kl_weight", "loss"):
        assert two["log"][name] == pytest.approx(one["log"][name], abs=1e-4), name
    # Evaluation is shared out and gathered in order, with each example's own noise.
    torch.testing.assert_close(two["nll"], one["nll"], atol=1e-5, rtol=0)
    assert two["texts"] == one["texts"]


def test_parts_of_the_loss_reach_every_log(processor, tmp_path, capsys):
    model = resized(make_model("paraphrase-prompt"), processor)
    callback = KLAnnealingCallback(LinearSchedule(steps=4))
    options = {"max_steps": 3, "gradient_accumulation_steps": 2, "report_to": "tensorboard", "disable_tqdm": False}
    trainer = trainer_for(model, processor, tmp_path, [callback], **options)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["kl_weight"] for entry in logs] == pytest.approx([0.0, 0.25, 0.5])
    assert all(entry["kl"] > 0 and entry["reconstruction"] > 0 for entry in logs)
    # The first step's weight is 0: the loss per token is the reconstruction per sentence, times sentences over tokens.
    sizes = {len(row["labels"]) for row in trainer.train_dataset}
    assert min(sizes) < logs[0]["reconstruction"] / logs[0]["loss"] < max(sizes)
    # TensorBoard's callback stands in front of a user's; it must see the parts all the same.
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents*")).parent))
    events.Reload()
    assert [event.value for event in events.Scalars("train/kl")] == pytest.approx([entry["kl"] for entry in logs], rel=1e-5)
    captured = capsys.readouterr()
    assert "'kl_weight'" in captured.out + captured.err
    plot_training({"with z": trainer.state.log_history}, tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 5_000
    with pytest.raises(ValueError, match="no entry with `kl`"):
        plot_training({"with z": [{"loss": 1.0}]}, tmp_path / "none.png")


def test_logged_parts_are_the_mean_over_sentences(processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    model = resized(make_model("paraphrase-prompt"), processor)
    trainer = trainer_for(
        model, processor, tmp_path, [KLAnnealingCallback()], per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    expected = model(**batch)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["kl"] == pytest.approx(expected.kl.mean().item(), rel=1e-5)
    assert log["reconstruction"] == pytest.approx(expected.reconstruction_loss.mean().item(), rel=1e-5)
    assert log["loss"] == pytest.approx(expected.loss.item(), rel=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_moves_what_is_trained_and_nothing_else(variant, tmp_path):
    model = make_model(variant)
    model.encoder.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = make_batch(model)
    rows = Dataset.from_list([{name: tensor[i].tolist() for name, tensor in batch.items()} for i in range(3)])
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, learning_rate=1e-2, report_to="none", save_strategy="no", use_cpu=True,
        per_device_train_batch_size=3, disable_tqdm=True, weight_decay=0.0, dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows, callbacks=[KLAnnealingCallback()]).train()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("encoder."), name


def test_per_example_outputs_give_the_exact_corpus_elbo(processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    model = resized(make_model("paraphrase-prompt"), processor)
    trainer = trainer_for(model, processor, tmp_path, per_device_eval_batch_size=3)
    predictions = trainer.predict(trainer.train_dataset).predictions
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    expected = model.eval()(**batch)
    elbo = -(predictions[0] + predictions[1]).mean()
    assert elbo == pytest.approx(-(expected.reconstruction_loss + expected.kl).mean().item(), rel=1e-5)


def test_seq2seq_trainer_predicts_with_generate(processor, tmp_path):
    model = resized(make_model("paraphrase-prompt"), processor)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), predict_with_generate=True, generation_max_length=6, use_cpu=True, report_to="none",
        per_device_eval_batch_size=3, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    data, collator = ragged_dataset(processor), VAEDataCollator(processor)
    trainer = Seq2SeqTrainer(model, arguments, data_collator=collator, processing_class=processor)
    predictions = trainer.predict(data).predictions
    # The start token and five new ones; the trainer pads what it collects.
    assert (predictions[:, 0] == model.config.decoder_start_token_id).all()
    assert (predictions[:, 6:] == processor.tokenizer.pad_token_id).all()


def test_the_callback_refuses_what_it_cannot_train(processor, tmp_path):
    model = resized(make_model("paraphrase-prompt"), processor)
    with pytest.raises(ValueError, match=r"`label_smoothing_factor` is 0\.1"):
        trainer_for(model, processor, tmp_path, [KLAnnealingCallback()], label_smoothing_factor=0.1).train()
    with pytest.raises(ValueError, match="GPT2LMHeadModel has none"):
        lm = model.decoder.lm
        KLAnnealingCallback().on_train_begin(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), None, None, model=lm)


def test_gradient_checkpointing_gives_the_same_gradients(processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    gradients = []
    for checkpointing in (False, True):
        model = resized(make_model("paraphrase-prompt"), processor)
        trainer = trainer_for(
            model, processor, tmp_path, [KLAnnealingCallback()], max_grad_norm=1e9, **{ACTIVATION_CHECKPOINTING: checkpointing}
        )
        gradients.append(gradients_of(model, trainer))
    assert_same_gradients(gradients[1], gradients[0])


RESUMED_RUN = """
import sys, time
import torch
from transformers import TrainerCallback
from helpers import make_model, resized, trainer_for
from hf_vae import KLAnnealingCallback, ParaphraseVAEProcessor
from hf_vae.training import SigmoidSchedule
from hf_vae.cli.from_scratch import train_tokenizers

output_dir, resume, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])

class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(pause)

processor = ParaphraseVAEProcessor(*train_tokenizers(["the cat sat on the mat", "a dog ran in the park"] * 5, 300))
model = resized(make_model("paraphrase-prompt"), processor)
trainer = trainer_for(
    model, processor, output_dir, [KLAnnealingCallback(SigmoidSchedule(midpoint=6, slope=1.0)), Slow()], max_steps=12,
    save_strategy="steps", save_steps=4,
)
trainer.train(resume_from_checkpoint=None if resume == "no" else resume)
trainer.save_model(output_dir + "/final")
trainer.save_state()
"""


@pytest.mark.slow
def test_a_run_killed_and_resumed_ends_with_the_same_weights(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RESUMED_RUN, encoding="utf-8")

    def command(directory, resume="no", pause=0.0):
        return [sys.executable, str(script), str(tmp_path / directory), resume, str(pause)]

    subprocess.run(command("whole"), check=True, timeout=120, env=child_environment())
    killed = subprocess.Popen(command("killed", pause=0.5), env=child_environment())
    checkpoint = tmp_path / "killed" / "checkpoint-4"
    deadline = time.monotonic() + 100
    # The state is written last, so the checkpoint is whole; the run is then in the middle of its second third.
    while not (checkpoint / "trainer_state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.7)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "final").exists()
    subprocess.run(command("killed", str(checkpoint)), check=True, timeout=120, env=child_environment())
    whole, resumed = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("whole", "killed"))
    for name in whole:
        torch.testing.assert_close(resumed[name], whole[name], atol=0, rtol=0, msg=name)
    weights = [
        [entry["kl_weight"] for entry in json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"][:12]]
        for name in ("whole", "killed")
    ]
    assert weights[0] == weights[1] == pytest.approx([SigmoidSchedule(midpoint=6, slope=1.0)(step) for step in range(12)])


@pytest.mark.parametrize("option", ["prediction_loss_only", "eval_use_gather_object"])
def test_what_keeps_outputs_from_the_metrics_is_refused(tmp_path, option):
    with pytest.raises(ValueError, match=f"`--{option}` keeps the model's outputs from the metrics"):
        check_evaluation(TrainingArguments(str(tmp_path), use_cpu=True, **{option: True}))
    check_evaluation(TrainingArguments(str(tmp_path), use_cpu=True))
