"""What a run leaves behind when writing fails or the training diverges."""

import errno
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, Trainer, TrainerControl, TrainerState, TrainingArguments

from helpers import RESUMABLE, StoppedError, load_script
from hf_vae.cli.processes import check_processes
from hf_vae.cli.report import draw_pictures
from hf_vae.cli.saving import finish_saving, replaced_model
from hf_vae.training import StopOnDivergenceCallback, leave_out_cudnn_attention
from hf_vae.training.checkpoints import remove_stages
from hf_vae.training.files import remove
from hf_vae.training.resuming import full_disk_named


@pytest.fixture(scope="module")
def script():
    return load_script("train_vae")


def write_model(folder, what, *more):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "encoder_tokenizer/tokenizer.json", *more):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(what)


def test_a_model_that_is_not_written_to_its_end_leaves_the_old_one(tmp_path):
    write_model(tmp_path, "old", "README.md", "adapter/a", "notes.txt")
    with pytest.raises(StoppedError), replaced_model(tmp_path) as written:
        write_model(written, "new")
        raise StoppedError
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"old"}
    assert not list(tmp_path.glob(".model*"))


def test_a_model_replaces_all_of_another_and_nothing_else(tmp_path):
    write_model(tmp_path, "old", "README.md", "metrics.json", "latent.png", "adapter/a", "chat_template.jinja")
    write_model(tmp_path, "old", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "training_args.bin")
    kept = ["notes.txt", "checkpoint-2/model.safetensors", "my_model.py"]
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("kept")
    with replaced_model(tmp_path) as written:
        write_model(written, "new")
        (written / "model.safetensors").chmod(0o600)
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    new = ["config.json", "model.safetensors", "tokenizer.json", "encoder_tokenizer/tokenizer.json"]
    assert found == {**dict.fromkeys(kept, "kept"), **dict.fromkeys(new, "new")}
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


def test_a_model_without_z_goes_with_the_one_beside_it(tmp_path):
    """Otherwise the next model would be compared with that of another run."""
    write_model(tmp_path, "old")
    write_model(tmp_path / "baseline", "old", "generation_config.json", "modeling_vae.py")
    with pytest.raises(StoppedError), replaced_model(tmp_path):
        raise StoppedError
    assert (tmp_path / "baseline" / "config.json").exists()
    for left in ("whole", "stopped"):
        if left == "stopped":
            write_model(tmp_path / "baseline" / ".model.moving", "old")
        with replaced_model(tmp_path) as written:
            write_model(written, left)
        assert not (tmp_path / "baseline").exists() and (tmp_path / "config.json").read_text() == left
    with replaced_model(tmp_path / "baseline") as written:
        write_model(written, "new")
    (tmp_path / "baseline" / "notes.txt").write_text("mine")
    # What is no model is the user's.
    for kept in (["notes.txt"], ["README.md", "notes.txt"]):
        (tmp_path / "baseline" / kept[0]).write_text("mine")
        with replaced_model(tmp_path) as written:
            write_model(written, "new")
        assert sorted(path.name for path in (tmp_path / "baseline").iterdir()) == kept


@pytest.mark.parametrize("call", range(1, 17))
def test_a_baseline_whose_removal_is_broken_off_goes_with_the_next_run(tmp_path, monkeypatch, call):
    write_model(tmp_path, "old")
    write_model(tmp_path / "baseline", "old")
    calls = []

    def breaks(path):
        calls.append(path)
        if len(calls) == call:
            raise StoppedError
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr("hf_vae.cli.saving.remove", breaks)
        stopped = False
        try:
            with replaced_model(tmp_path) as written:
                write_model(written, "new")
        except StoppedError:
            stopped = True
    assert stopped == (len(calls) == call)
    finish_saving(tmp_path)
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"new"}


@pytest.mark.parametrize("call", range(1, 11))
def test_a_broken_exchange_does_not_load_and_the_next_run_ends_it(tmp_path, monkeypatch, call):
    write_model(tmp_path, "old", "README.md", "adapter/a")
    calls = []

    def counted(of):
        def breaks(self, *arguments, **named):
            calls.append(self)
            if len(calls) == call:
                raise StoppedError
            return of(self, *arguments, **named)

        return breaks

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(StoppedError), replaced_model(tmp_path) as written:
            write_model(written, "new")
    states = {path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert not (tmp_path / "config.json").exists() or states in ({"old"}, {"new"})
    began = call > 1
    finish_saving(tmp_path)
    found = {path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"new"} if began else found == {"old"}
    assert not list(tmp_path.glob(".model*"))


def test_pictures_lose_no_run(tmp_path, caplog):
    def fails(path):
        raise RuntimeError("no fonts")

    draw_pictures(tmp_path, {"a.png": fails, "b.png": lambda path: path.write_text("drawn")})
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--logging_strategy", "no"]])
def test_a_run_that_logs_nothing_has_no_picture(script, tmp_path, options):
    script.main([*RESUMABLE, *options, "--logging_first_step", "false", "--output_dir", str(tmp_path)])
    assert (tmp_path / "metrics.json").exists() and (tmp_path / "latent.png").exists()
    assert not (tmp_path / "training.png").exists() and "training.png" not in (tmp_path / "README.md").read_text()
    assert AutoModel.from_pretrained(tmp_path).generation_config.max_new_tokens == 6


def test_a_full_disk_is_named(tmp_path):
    for error in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError("[enforce fail at inline_container.cc:664]")):
        with pytest.raises(OSError, match=f"No space left on the disk of {tmp_path}") as caught, full_disk_named(tmp_path):
            raise error
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="something else"), full_disk_named(tmp_path):
        raise RuntimeError("something else")


@pytest.mark.parametrize("logging", [["--logging_steps", "2"], ["--logging_strategy", "no", "--logging_first_step", "false"]])
@pytest.mark.parametrize("stage", [["--latent_free_steps", "0", "--posterior_fit_steps", "0"], ["--latent_free_steps", "4"]])
def test_a_training_that_diverges_says_so_and_saves_nothing(script, tmp_path, logging, stage):
    (tmp_path / "metrics.json").write_text("of the old model")
    options = ["--learning_rate", "1e30", "--max_grad_norm", "0", "--encoder_pretraining_steps", "0", *logging, *stage]
    with pytest.raises(FloatingPointError, match=r"diverged: at step \d.*`--learning_rate` \(1e\+30\)"):
        script.main([*RESUMABLE, *options, "--output_dir", str(tmp_path)])
    assert (tmp_path / "metrics.json").read_text() == "of the old model" and not (tmp_path / "model.safetensors").exists()
    assert len(list(tmp_path.rglob("diverged/trainer_state.json"))) == 1
    assert not list(tmp_path.rglob("checkpoint-*"))
    remove_stages(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize(
    "output", [lambda loss: {"logits": loss}, lambda loss: loss, lambda loss: (loss,), lambda loss: {"loss": loss}]
)
@pytest.mark.parametrize("factor", [1.0, math.nan])
def test_any_trainer_s_model_is_watched(tmp_path, output, factor):
    """A Trainer may compute the loss by itself."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x, labels=None):
            return output((self.weight * x).mean() * factor)

    class OwnLoss(Trainer):
        def compute_loss(self, model, inputs, **kwargs):
            found = model(**inputs)
            return next(iter(found.values())) if isinstance(found, dict) else found[0] if isinstance(found, tuple) else found

    options = {"use_cpu": True, "report_to": "none", "max_steps": 2, "save_strategy": "no", "disable_tqdm": True}
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 4
    trainer = OwnLoss(
        Model(), TrainingArguments(str(tmp_path), **options), train_dataset=rows, callbacks=[StopOnDivergenceCallback()]
    )
    if factor == 1.0:
        assert trainer.train().global_step == 2
    else:
        with pytest.raises(FloatingPointError, match="The training has diverged"):
            trainer.train()


@pytest.mark.parametrize("enabled", [True, False])
def test_on_a_gpu_the_attention_that_gives_nan_is_named_unless_it_is_left_out(monkeypatch, tmp_path, enabled):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        if not enabled:
            leave_out_cudnn_attention()
        callback, model = StopOnDivergenceCallback(), torch.nn.Linear(1, 1)
        callback.on_train_begin(None, TrainerState(), None, model=model)
        torch.nn.init.constant_(model.weight, math.nan)
        arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
        with pytest.raises(FloatingPointError) as caught:
            callback.on_step_end(arguments, TrainerState(), TrainerControl(should_log=True), model=model)
        assert ("enable_cudnn_sdp(False)" in str(caught.value)) is enabled
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_the_commands_leave_out_cudnn_s_attention(script, tmp_path):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        with pytest.raises(FloatingPointError):
            script.main([*RESUMABLE, "--learning_rate", "1e30", "--max_grad_norm", "0", "--output_dir", str(tmp_path)])
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_processes_that_were_asked_for_and_not_started(monkeypatch, tmp_path):
    import psutil

    launched = ["python", "/bin/accelerate", "launch", "--cpu", "--num_processes=2", "train.py", "--max_steps", "3"]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: launched)
    with pytest.raises(ValueError, match=r"`accelerate launch --num_processes 2` has started one process"):
        check_processes(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), {})
    launched[4] = "--num_processes=1"
    check_processes(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), {})
