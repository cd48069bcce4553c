"""Runs that are stopped: what is gone on from, what is saved meanwhile, and what a diverged training leaves."""

import errno
import importlib.util
import json
import math
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_encoder_config, tiny_gpt2_config
from safetensors.torch import load_file
from transformers import AutoModel, GenerationConfig, Trainer, TrainingArguments

from hf_vae import VAEConfig, VAEModel
from hf_vae.hub import draw_pictures
from hf_vae.training import StopOnDivergenceCallback
from hf_vae.training.arguments import ModelArguments, parse_arguments
from hf_vae.training.checkpoints import last_whole_checkpoint, problem_of, remove_stages
from hf_vae.training.saving import finish_saving, replaced_model
from hf_vae.training.sharding import check_processes
from hf_vae.training.stages import full_disk_named

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = [
    "--max_steps", "4", "--save_steps", "2", "--grammar_sentences", "60", "--max_test_samples", "4", "--importance_samples", "2",
    "--hidden_size", "16", "--latent_size", "4", "--num_attention_heads", "2", "--decoder_layers", "1", "--max_new_tokens", "6",
    "--per_device_train_batch_size", "4", "--disable_tqdm", "true", "--use_cpu", "--report_to", "none", "--seed", "0",
    "--latent_free_steps", "3", "--encoder_pretraining_steps", "3", "--posterior_fit_steps", "3", "--eval_strategy", "no",
    "--collapse_report_samples", "0", "--logging_steps", "50", "--lr_scheduler_type", "constant", "--dropout", "0.1",
    "--save_strategy", "steps",
]  # fmt: skip
LAST = ["--resume_from_checkpoint", "last"]


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_vae", EXAMPLES / "train_vae.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
    script.main([*SMALL, "--output_dir", str(folder)])
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
    "stage, step", [("encoder_pretraining", 3), ("latent_free", 3), ("out", 3), ("posterior_fit", 1), ("posterior_fit", 3)]
)
def test_a_run_stopped_in_any_stage_goes_on_to_the_same_weights(script, undisturbed, stop_at, tmp_path, stage, step):
    output = ["--output_dir", str(tmp_path / "out")]
    again = stop_at(stage, step)
    with pytest.raises(StoppedError):
        script.main([*SMALL, *output])
    assert (tmp_path / "out" / "stages").is_dir() and not (tmp_path / "out" / "config.json").exists()
    again()
    script.main([*SMALL, *output, *LAST])
    same(undisturbed, tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()


@pytest.mark.slow
def test_adapters_go_on_in_a_stage_and_after_the_end(script, stop_at, tmp_path):
    lora = ["--lora", '{"r": 2, "target_modules": ".*decoder.lm.*(q_proj|v_proj)"}', "--encoder_pretraining_steps", "0"]
    script.main([*SMALL, *lora, "--output_dir", str(tmp_path / "whole" / "out")])
    for stage in ("latent_free", "posterior_fit"):
        output = ["--output_dir", str(tmp_path / stage / "out")]
        again = stop_at(stage, 3)
        with pytest.raises(StoppedError):
            script.main([*SMALL, *lora, *output])
        again()
        script.main([*SMALL, *lora, *output, *LAST])
        same(tmp_path / "whole" / "out", tmp_path / stage / "out")


@pytest.mark.slow
def test_a_stage_of_another_run_is_not_gone_on_with(script, undisturbed, stop_at, tmp_path):
    output = ["--output_dir", str(tmp_path / "out")]
    again = stop_at("latent_free", 3)
    with pytest.raises(StoppedError):
        script.main([*SMALL, *output, "--seed", "1"])
    again()
    script.main([*SMALL, *output, *LAST])
    same(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_a_run_that_had_ended_takes_no_further_step_and_finds_its_best(script, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    script.main([*SMALL, "--output_dir", str(tmp_path / "out"), *LAST])
    same(undisturbed, tmp_path / "out")
    best = ["--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end", "--learning_rate", "5"]
    best += ["--posterior_fit_steps", "0", "--output_dir", str(tmp_path / "best")]
    script.main([*SMALL, *best])
    state = json.loads((tmp_path / "best" / "checkpoint-4" / "trainer_state.json").read_text())
    evaluations = {log["step"]: log["eval_elbo"] for log in state["log_history"] if "eval_elbo" in log}
    assert state["best_global_step"] == max(evaluations, key=evaluations.get)
    kept = left_by(tmp_path / "best")
    script.main([*SMALL, *best, *LAST])
    assert all(torch.equal(kept[0][name], tensor) for name, tensor in left_by(tmp_path / "best")[0].items())


@pytest.mark.slow
def test_what_an_earlier_run_left_is_passed_over(script, undisturbed, stop_at, tmp_path):
    """The earlier run had more steps, and other weights."""
    output = ["--output_dir", str(tmp_path / "out")]
    script.main([*SMALL, *output, "--seed", "1", "--max_steps", "6"])
    again = stop_at("out", 3)
    with pytest.raises(StoppedError):
        script.main([*SMALL, *output])
    again()
    script.main([*SMALL, *output, *LAST])
    same(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_an_earlier_run_s_checkpoints_do_not_crowd_out_this_run_s(script, undisturbed, stop_at, tmp_path, caplog):
    """The Trainer would keep the earlier run's last one, and write into those of the same number."""
    output = ["--output_dir", str(tmp_path / "out")]
    script.main([*SMALL, *output, "--seed", "1", "--max_steps", "6"])
    again = stop_at("out", 4)
    with pytest.raises(StoppedError):
        script.main([*SMALL, *output, "--save_total_limit", "1"])
    again()
    assert {path.name for path in (tmp_path / "out" / "earlier").iterdir()} == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    caplog.clear()
    script.main([*SMALL, *output, *LAST, "--save_total_limit", "1"])
    assert "begins anew" not in caplog.text
    same(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_the_best_is_this_run_s_wherever_its_folder_lies(script, tmp_path):
    best = ["--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end", "--greater_is_better", "false"]
    best += ["--latent_free_steps", "0", "--encoder_pretraining_steps", "0", "--posterior_fit_steps", "0"]
    script.main([*SMALL, *best, "--output_dir", str(tmp_path / "one")])
    state = json.loads((tmp_path / "one" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["best_global_step"] == 2
    kept = left_by(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "other")
    shutil.copytree(tmp_path / "other", tmp_path / "third")
    script.main([*SMALL, *best, "--output_dir", str(tmp_path / "other"), *LAST])
    assert all(torch.equal(kept[0][name], tensor) for name, tensor in left_by(tmp_path / "other")[0].items())
    shutil.rmtree(tmp_path / "third" / "checkpoint-2")
    with pytest.raises(OSError, match=r"`--load_best_model_at_end` needs checkpoint-2, the best checkpoint up to .*checkpoint-4"):
        script.main([*SMALL, *best, "--output_dir", str(tmp_path / "third"), *LAST])


def test_a_checkpoint_of_another_model_is_refused(script, undisturbed, tmp_path):
    for number, options in enumerate((["--latent_size", "5"], ["--bow_loss_weight", "0"], ["--decoder_layers", "2"])):
        output = tmp_path / str(number)
        named = ["--resume_from_checkpoint", str(undisturbed / "checkpoint-2"), "--output_dir", str(output)]
        with pytest.raises(ValueError, match="is of another model than the arguments describe"):
            script.main([*SMALL, *options, *named])


# Whole checkpoints


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


def test_a_named_checkpoint_that_is_not_whole_is_refused_and_the_last_one_passed_over(script, checkpoints, tmp_path):
    folder, _ = checkpoints
    broken = shutil.copytree(folder / "checkpoint-4", tmp_path / "broken" / "checkpoint-4")
    (broken / "optimizer.pt").unlink()
    output = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=r"checkpoint-4 is not a whole checkpoint \(no optimizer.pt"):
        script.main([*SMALL, *output, "--resume_from_checkpoint", str(broken)])
    assert not (tmp_path / "out").exists()


# Saving


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
    write_model(tmp_path, "old", "model-00001-of-00002.safetensors", "model.safetensors.index.json")
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


@pytest.mark.parametrize("call", range(1, 11))
def test_an_exchange_that_is_broken_off_does_not_load_and_is_ended_by_the_next_run(tmp_path, monkeypatch, call):
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
    script.main([*SMALL, *options, "--logging_first_step", "false", "--output_dir", str(tmp_path)])
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


# Divergence


@pytest.mark.parametrize("logging", [["--logging_steps", "2"], ["--logging_strategy", "no", "--logging_first_step", "false"]])
@pytest.mark.parametrize("stage", [["--latent_free_steps", "0", "--posterior_fit_steps", "0"], ["--latent_free_steps", "4"]])
def test_a_training_that_diverges_says_so_and_saves_nothing(script, tmp_path, logging, stage):
    (tmp_path / "metrics.json").write_text("of the old model")
    options = ["--learning_rate", "1e30", "--max_grad_norm", "0", "--encoder_pretraining_steps", "0", *logging, *stage]
    with pytest.raises(FloatingPointError, match=r"diverged: at step \d.*`--learning_rate` \(1e\+30\)"):
        script.main([*SMALL, *options, "--output_dir", str(tmp_path)])
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


def test_processes_that_were_asked_for_and_not_started(monkeypatch, tmp_path):
    import psutil

    launched = ["python", "/bin/accelerate", "launch", "--cpu", "--num_processes=2", "train.py", "--max_steps", "3"]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: launched)
    with pytest.raises(ValueError, match=r"`accelerate launch --num_processes 2` has started one process"):
        check_processes(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), {})
    launched[4] = "--num_processes=1"
    check_processes(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), {})


# Recipes


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "holds nothing"),
        ("[1, 2]", "holds a list"),
        ("hello", "holds a str"),
        ("1: 2", r"no such argument\(s\): 1"),
        ("max_steps: {a: 1}", r"`max_steps` is {'a': 1}; it takes a whole number"),
        ("text_column: {a: 1}", r"`text_column` is {'a': 1}; it takes text"),
        ("train_file: [a, b]", r"`train_file` is \['a', 'b'\]; it takes text"),
        ("help: true", r"no such argument\(s\): help"),
        ("max-step: 3", r"no such argument\(s\): max-step \(did you mean max_steps\?\)"),
        ("seed: 1\nseed: 2", "names `seed` twice"),
        ("max_steps: [1]", r"`max_steps` is \[1\]; it takes a whole number"),
        ("latent_size: 7.5", "`latent_size` is 7.5; it takes a whole number"),
        ("learning_rate: much", "`learning_rate` is 'much'; it takes a number"),
        ("aggressive_encoder: 5", "`aggressive_encoder` is 5; it takes true or false"),
        ("latent_injection: {a: 1}", "it takes a list, each text"),
        ("save_strategy: sometimes", "it takes one of no, steps, epoch, best"),
        ("a: [", "is neither YAML nor JSON"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_a_sentence(script, tmp_path, content, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(content)
    with pytest.raises(ValueError, match=message):
        script.main([str(recipe), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_recipe_reads_as_it_is_meant(tmp_path):
    recipe = tmp_path / "recipe.YAML"
    recipe.write_text(
        "eval_strategy: no\nsave_strategy: No\nmax_steps:\nreport_to: []\noptim_target_modules: [query, value]\nlora: {r: 2}\n"
        "<<: {seed: 3}\nfreeze_encoder: yes\n"
    )
    model_args, args = parse_arguments((ModelArguments,), [str(recipe), "--use_cpu"], recipe, str(tmp_path))
    assert (args.eval_strategy, args.save_strategy, args.max_steps, args.seed) == ("no", "no", -1, 3)
    assert args.optim_target_modules == ["query", "value"] and model_args.lora == {"r": 2} and model_args.freeze_encoder is True
    with pytest.raises(ValueError, match=r"has no such argument\(s\): .*other.yaml.* a file of arguments comes first"):
        parse_arguments((ModelArguments,), [str(recipe), "other.yaml"], recipe, str(tmp_path))


# Lengths


@pytest.mark.parametrize("positions, expected", [(512, 128), (20, 19)])
def test_generation_without_a_length_warns_of_nothing_and_fits_the_decoder(recwarn, positions, expected):
    decoder = tiny_gpt2_config()
    decoder.n_positions = positions
    torch.manual_seed(0)
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=decoder, latent_size=4)).eval()
    model.generation_config.suppress_tokens = [model.config.eos_token_id]

    def new_tokens(**options):
        return model.generate(latents=torch.ones(1, 4), do_sample=False, **options).shape[1] - 1

    assert new_tokens() == expected
    assert not [warning for warning in recwarn if "max_length" in str(warning.message)]
    model.generation_config.max_new_tokens = 9
    assert new_tokens() == 9
    # What the caller says comes before what was saved.
    assert new_tokens(max_length=6) == new_tokens(generation_config=GenerationConfig(max_length=6)) == 5
    assert new_tokens(max_new_tokens=3) == new_tokens(generation_config=GenerationConfig(max_new_tokens=3)) == 3
    assert new_tokens(generation_config=GenerationConfig(do_sample=False)) == 9
