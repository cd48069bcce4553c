"""A run that was stopped anywhere goes on to the same weights, from checkpoints that are whole."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from helpers import RESUMABLE, StoppedError, load_script
from hf_vae.training import StopOnDivergenceCallback
from hf_vae.training.checkpoints import last_whole_checkpoint, problem_of

LAST = ["--resume_from_checkpoint", "last"]


@pytest.fixture(scope="module")
def script():
    return load_script("train_vae")


@pytest.fixture
def stop_at(monkeypatch):
    """Breaks a training off after a step of the stage of this name, its checkpoint not yet written."""

    def stop(name, step):
        def on_step_end(self, args, state, control, **kwargs):
            if Path(args.output_dir).name == name and state.global_step == step:
                raise StoppedError

        monkeypatch.setattr(StopOnDivergenceCallback, "on_step_end", on_step_end)
        return monkeypatch.undo

    return stop


def left_by(folder):
    weights = load_file(folder / "model.safetensors")
    return weights, json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    script.main([*RESUMABLE, "--output_dir", str(folder)])
    assert not (folder / "stages").exists()
    return folder


def same(one, other):
    (weights, metrics), (others, other_metrics) = left_by(one), left_by(other)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, atol=0, rtol=0, msg=name)
    assert metrics == other_metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage, step",
    [
        ("encoder_pretraining", 3),
        ("latent_free", 3),
        ("soft_token_fit", 3),
        ("decoder_fit", 1),
        ("out", 3),
        ("posterior_fit", 1),
        ("posterior_fit", 3),
    ],
)
def test_a_run_stopped_in_any_stage_goes_on_to_the_same_weights(script, undisturbed, stop_at, tmp_path, stage, step):
    output = ["--output_dir", str(tmp_path / "out")]
    again = stop_at(stage, step)
    with pytest.raises(StoppedError):
        script.main([*RESUMABLE, *output])
    assert (tmp_path / "out" / "stages").is_dir() and not (tmp_path / "out" / "config.json").exists()
    again()
    script.main([*RESUMABLE, *output, *LAST])
    same(undisturbed, tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage, step", [("out", 3), ("prior_fit", 1), ("prior_fit", 3)])
def test_a_prior_that_is_fitted_and_a_decoder_that_stands_still_go_on_to_the_same_weights(stop_at, tmp_path, stage, step):
    script = load_script("train_paraphrase")
    of_pairs = [
        "--grammar_pairs", "60", "--freeze_decoder_with_latent", "--decoder_fit_steps", "0", "--prior_fit_steps", "4",
        "--num_paraphrases", "2",
    ]  # fmt: skip
    argv = [each for each in RESUMABLE if each not in ("--grammar_sentences", "60")] + of_pairs
    script.main([*argv, "--output_dir", str(tmp_path / "whole" / "out")])
    output = ["--output_dir", str(tmp_path / "stopped" / "out")]
    again = stop_at(stage, step)
    with pytest.raises(StoppedError):
        script.main([*argv, *output])
    again()
    script.main([*argv, *output, *LAST])
    same(tmp_path / "whole" / "out", tmp_path / "stopped" / "out")
    assert "prior_network.head.linear.weight" in left_by(tmp_path / "stopped" / "out")[0]


@pytest.mark.slow
def test_adapters_go_on_in_a_stage_and_after_the_end(script, stop_at, tmp_path):
    lora = ["--lora", '{"r": 2, "target_modules": ".*decoder.lm.*(q_proj|v_proj)"}', "--encoder_pretraining_steps", "0"]
    script.main([*RESUMABLE, *lora, "--output_dir", str(tmp_path / "whole" / "out")])
    for stage in ("latent_free", "posterior_fit"):
        output = ["--output_dir", str(tmp_path / stage / "out")]
        again = stop_at(stage, 3)
        with pytest.raises(StoppedError):
            script.main([*RESUMABLE, *lora, *output])
        again()
        script.main([*RESUMABLE, *lora, *output, *LAST])
        same(tmp_path / "whole" / "out", tmp_path / stage / "out")


@pytest.mark.slow
def test_a_stage_of_another_run_is_not_gone_on_with(script, undisturbed, stop_at, tmp_path):
    output = ["--output_dir", str(tmp_path / "out")]
    again = stop_at("latent_free", 3)
    with pytest.raises(StoppedError):
        script.main([*RESUMABLE, *output, "--seed", "1"])
    again()
    script.main([*RESUMABLE, *output, *LAST])
    same(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_a_run_that_had_ended_takes_no_further_step_and_finds_its_best(script, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    script.main([*RESUMABLE, "--output_dir", str(tmp_path / "out"), *LAST])
    same(undisturbed, tmp_path / "out")
    best = ["--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end", "--learning_rate", "5"]
    best += ["--posterior_fit_steps", "0", "--output_dir", str(tmp_path / "best")]
    script.main([*RESUMABLE, *best])
    state = json.loads((tmp_path / "best" / "checkpoint-4" / "trainer_state.json").read_text())
    evaluations = {log["step"]: log["eval_elbo"] for log in state["log_history"] if "eval_elbo" in log}
    assert state["best_global_step"] == max(evaluations, key=evaluations.get)
    kept = left_by(tmp_path / "best")
    script.main([*RESUMABLE, *best, *LAST])
    assert all(torch.equal(kept[0][name], tensor) for name, tensor in left_by(tmp_path / "best")[0].items())


@pytest.mark.slow
def test_what_an_earlier_run_left_is_passed_over(script, undisturbed, stop_at, tmp_path):
    """The earlier run had more steps, and other weights."""
    output = ["--output_dir", str(tmp_path / "out")]
    script.main([*RESUMABLE, *output, "--seed", "1", "--max_steps", "6"])
    again = stop_at("out", 3)
    with pytest.raises(StoppedError):
        script.main([*RESUMABLE, *output, "--overwrite_output_dir"])
    again()
    script.main([*RESUMABLE, *output, *LAST])
    same(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_an_earlier_run_s_checkpoints_do_not_crowd_out_this_run_s(script, undisturbed, stop_at, tmp_path, caplog):
    """The Trainer would keep the earlier run's last one, and write into those of the same number."""
    output = ["--output_dir", str(tmp_path / "out")]
    script.main([*RESUMABLE, *output, "--seed", "1", "--max_steps", "6"])
    again = stop_at("out", 4)
    with pytest.raises(StoppedError):
        script.main([*RESUMABLE, *output, "--save_total_limit", "1", "--overwrite_output_dir"])
    again()
    assert {path.name for path in (tmp_path / "out" / "earlier").iterdir()} == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    caplog.clear()
    script.main([*RESUMABLE, *output, *LAST, "--save_total_limit", "1"])
    assert "begins anew" not in caplog.text
    same(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_the_best_is_this_run_s_wherever_its_folder_lies(script, tmp_path):
    best = ["--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end", "--greater_is_better", "false"]
    best += ["--latent_free_steps", "0", "--encoder_pretraining_steps", "0", "--posterior_fit_steps", "0"]
    script.main([*RESUMABLE, *best, "--output_dir", str(tmp_path / "one")])
    state = json.loads((tmp_path / "one" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["best_global_step"] == 2
    kept = left_by(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "other")
    shutil.copytree(tmp_path / "other", tmp_path / "third")
    script.main([*RESUMABLE, *best, "--output_dir", str(tmp_path / "other"), *LAST])
    assert all(torch.equal(kept[0][name], tensor) for name, tensor in left_by(tmp_path / "other")[0].items())
    shutil.rmtree(tmp_path / "third" / "checkpoint-2")
    with pytest.raises(OSError, match=r"`--load_best_model_at_end` needs checkpoint-2, the best checkpoint up to .*checkpoint-4"):
        script.main([*RESUMABLE, *best, "--output_dir", str(tmp_path / "third"), *LAST])


def test_a_checkpoint_of_another_model_is_refused(script, undisturbed, tmp_path):
    for number, options in enumerate((["--latent_size", "5"], ["--bow_loss_weight", "0"], ["--decoder_layers", "2"])):
        output = tmp_path / str(number)
        named = ["--resume_from_checkpoint", str(undisturbed / "checkpoint-2"), "--output_dir", str(output)]
        with pytest.raises(ValueError, match="is of another model than the arguments describe"):
            script.main([*RESUMABLE, *options, *named])


@pytest.fixture(scope="module")
def checkpoints(undisturbed):
    """The folder of a run with two of them, and its arguments."""
    return undisturbed, TrainingArguments(str(undisturbed), use_cpu=True, report_to="none")


BROKEN = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"]


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("how", ["empty", "half", "a byte short", "missing"])
def test_a_checkpoint_that_is_not_whole_is_passed_over(checkpoints, tmp_path, name, how):
    folder, args = checkpoints
    shutil.copytree(folder, tmp_path / "out")
    path = tmp_path / "out" / "checkpoint-4" / name
    size = path.stat().st_size
    if how == "missing":
        path.unlink()
    else:
        os.truncate(path, {"empty": 0, "half": size // 2, "a byte short": size - 1}[how])
    chosen, passed = last_whole_checkpoint(tmp_path / "out", args)
    # The Trainer reads no configuration that is not there, and a file of JSON may end with a line's end.
    if (name, how) in (("config.json", "missing"), ("config.json", "a byte short"), ("trainer_state.json", "a byte short")):
        assert chosen.name == "checkpoint-4" and not passed
        return
    assert chosen.name == "checkpoint-2" and list(passed) == ["checkpoint-4"]
    assert passed["checkpoint-4"] in (
        f"{name} cannot be read", f"no {name}", "no weights", "no optimizer.pt (`--save_only_model` leaves it out)",
    )  # fmt: skip


def test_every_layout_of_a_checkpoint_is_known(checkpoints, tmp_path):
    folder, args = checkpoints
    last = folder / "checkpoint-4"

    def made(name, files, without=()):
        copy = shutil.copytree(last, tmp_path / name, ignore=shutil.ignore_patterns(*without))
        for file, like in files.items():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(last / like, copy / file)
        return copy

    plain = ("model.safetensors", "optimizer.pt")
    fsdp = {"pytorch_model_fsdp_0/__0_0.distcp": "config.json", "optimizer_0/__0_0.distcp": "config.json"}
    assert problem_of(made("fsdp", fsdp, plain), args) is None
    whole = {"pytorch_model_fsdp.bin": "optimizer.pt", "optimizer.bin": "optimizer.pt"}
    assert problem_of(made("fsdp whole", whole, plain), args) is None
    deepspeed = made("deepspeed", {"global_step3/model_states.pt": "optimizer.pt"}, (*plain, "scheduler.pt"))
    (deepspeed / "latest").write_text("global_step3")
    assert problem_of(deepspeed, args) is None
    assert problem_of(made("adapter", {"adapter_model.safetensors": "model.safetensors"}, ["model.safetensors"]), args) is None
    several = {f"rng_state_{number}.pth": "rng_state.pth" for number in (0, 1)}
    assert problem_of(made("two processes", several, ["rng_state.pth"]), args) is None
    assert "`--save_only_model`" in problem_of(made("only model", {}, ["optimizer.pt", "scheduler.pt", "rng*"]), args)
    index = made("shards", {"model-00001-of-00002.safetensors": "model.safetensors"}, ["model.safetensors"])
    (index / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002-of-00002.safetensors"}}')
    assert problem_of(index, args) == "no model-00002-of-00002.safetensors"


def test_several_processes_need_the_noise_of_each(checkpoints, tmp_path):
    folder, _ = checkpoints
    copy = shutil.copytree(folder / "checkpoint-4", tmp_path / "two")

    class Two:
        world_size, process_index, save_on_each_node = 2, 0, False

    shutil.move(copy / "rng_state.pth", copy / "rng_state_0.pth")
    assert problem_of(copy, Two) == "no rng_state_1.pth"
    shutil.copy(copy / "rng_state_0.pth", copy / "rng_state_1.pth")
    assert problem_of(copy, Two) is None


def test_a_broken_checkpoint_is_refused_by_name_and_passed_over_as_last(script, checkpoints, tmp_path):
    folder, _ = checkpoints
    broken = shutil.copytree(folder / "checkpoint-4", tmp_path / "broken" / "checkpoint-4")
    (broken / "optimizer.pt").unlink()
    output = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=r"checkpoint-4 is not a whole checkpoint \(no optimizer.pt"):
        script.main([*RESUMABLE, *output, "--resume_from_checkpoint", str(broken)])
    assert not (tmp_path / "out").exists()
