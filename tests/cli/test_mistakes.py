"""A user's mistake is one line, with what was probably meant."""

import subprocess
import sys

import pytest

from helpers import EXAMPLES, RECIPES, SMALL, child_environment, load_script
from hf_vae.cli.checks import check_model_name, check_unfinished
from hf_vae.options import door
from hf_vae.options.mistakes import told_in_one_line, with_guess
from hf_vae.options.recipes import find_recipe


@pytest.mark.parametrize(
    "command, argv, message",
    [
        ("train paraphrase", ["--latent_sise", "3"], "no such argument(s): --latent_sise (did you mean --latent_size?) 3."),
        ("train vae", ["--max-stepz", "3", "--use_cpu"], "--max-stepz (did you mean --max_steps?)"),
        ("train vae", ["--seed", "1", "recipe.yaml"], "recipe.yaml; a file of arguments comes first"),
        ("train vae", ["vae_embeded.yaml"], "no file vae_embeded.yaml (did you mean vae_embedded.yaml?)"),
        ("train vae", ["--latent_size", "0"], "latent_size"),
        ("train vae", [str(RECIPES["bowman_ptb"]), "--use_cpu"], "This recipe is for your own data: add `--train_file`"),
        ("evaluate", ["outputs/none", "--fil", "x"], "There is no folder outputs/none"),
        ("evaluate", ["m", "--file", "x", "--importance_sample_s", "3"], "did you mean --importance_samples?"),
        ("chat", [""], "The model's name is '': name a folder or a Hub id."),
        ("generate", ["", "--file", "x", "--output", "y.jsonl"], "The model's name is ''"),
        ("chat", ["m", "--seed", "100000000000000000000"], "`--seed` is 100000000000000000000; it must be at most 4294967295."),
        ("explore", ["m", "--seed", "4294967296"], "`--seed` is 4294967296; it must be at most"),
        ("train vae", ["--seed", "4294967296", "--use_cpu"], "`--seed` is 4294967296; it must be at most"),
        ("train paraphrase", ["--latent_temperature", "-1", "--use_cpu"], "`--latent_temperature` is -1.0; it must be"),
        ("chat", ["m", "--latent_temperature", "-1"], "`--latent_temperature` is -1.0; it must be"),
        ("chat", ["m", "--latent_spread", "foo"], "`--latent_spread` is 'foo'; choose one of 'independent'"),
        ("chat", ["outputs/none"], "There is no folder outputs/none"),
        ("chat", ["m", "--num_reply", "3"], "--num_reply (did you mean --num_replies?)"),
    ],
)
def test_a_mistake_is_told_in_a_line(command, argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_x.py"])
    with pytest.raises(SystemExit) as ended:
        door.run(command, argv)
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and told[-1].startswith("train_x.py: ") and message in told[-1], told
    assert not any("Traceback" in line for line in told) and not any(tmp_path.iterdir())


def test_a_number_that_is_none_is_told_without_a_heap_of_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        door.run("train vae", ["--latent_size", "many"])
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(told) == 2 and "invalid int value: 'many'" in told[1]


def test_what_may_be_a_bug_keeps_its_traceback(monkeypatch):
    for error in (int, KeyError("x").__class__):
        with pytest.raises((ValueError, KeyError)), told_in_one_line():
            raise KeyError("x") if error is KeyError else ValueError("raised outside of the package")
    with pytest.raises(SystemExit), told_in_one_line():
        find_recipe("none.yaml")
    monkeypatch.setenv("HF_VAE_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError), told_in_one_line():
        find_recipe("none.yaml")


def test_whoever_stops_a_command_sees_no_traceback(capsys):
    with pytest.raises(SystemExit) as ended, told_in_one_line():
        raise KeyboardInterrupt
    assert ended.value.code == 130 and "stopped" in capsys.readouterr().err


def test_a_guess_is_made_only_if_it_is_near():
    assert with_guess("sead", ["seed", "steps"]) == "sead (did you mean seed?)" and with_guess("xyz", ["seed"]) == "xyz"


@pytest.mark.slow
def test_under_accelerate_launch_the_line_comes_before_what_accelerate_says(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--quiet", str(EXAMPLES / "train_vae.py")]
    options = {"capture_output": True, "text": True, "cwd": tmp_path, "env": child_environment()}
    done = subprocess.run([*command, "--latent_sise", "3"], **options, check=False)
    assert done.returncode != 0 and done.stderr.strip().splitlines()[-1].startswith("train_vae.py: The command line has no such")


# Those of an example that is no command say nothing of the sort: it asks for its files itself.
OF_COMMANDS = [name for name, path in RECIPES.items() if "examples" in path.parts and not name.startswith("embedding_to_text")]


@pytest.mark.parametrize("name", OF_COMMANDS)
def test_a_recipe_for_own_data_says_so(name):
    assert "own_data: true" in RECIPES[name].read_text().splitlines()


@pytest.mark.slow
def test_a_finished_model_is_kept(tmp_path, monkeypatch):
    """Until the user says otherwise. What a run that broke off has left is no model."""
    script, output = load_script("train_vae"), tmp_path / "out"
    argv = [*SMALL, "--grammar_sentences", "40", "--logging_steps", "1", "--output_dir", str(output)]
    output.mkdir()
    (output / "checkpoint-1").mkdir()
    script.main(argv)
    before = (output / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="holds a finished model: choose another directory, or add `--overwrite_output_dir`"):
        script.main([*argv, "--seed", "7"])
    assert (output / "model.safetensors").read_bytes() == before
    script.main([*argv, "--seed", "7", "--overwrite_output_dir"])
    assert (output / "model.safetensors").read_bytes() != before


def test_resuming_is_no_overwriting(tmp_path):
    class Settings:
        output_dir, resume_from_checkpoint = str(tmp_path), None

    for name in ("config.json", "model.safetensors"):
        check_unfinished(Settings, overwrite=False)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="finished model"):
        check_unfinished(Settings, overwrite=False)
    check_unfinished(Settings, overwrite=True)
    Settings.resume_from_checkpoint = "last"
    check_unfinished(Settings, overwrite=False)


def test_a_name_on_the_hub_is_not_taken_for_a_folder(tmp_path):
    for name in ("gpt2", "someone/model", str(tmp_path)):
        check_model_name(name)
    for name in ("outputs/none", "./none", "/none", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f"There is no folder {name}"):
            check_model_name(name)
    (tmp_path / "texts.txt").write_text("the cat\n")
    with pytest.raises(ValueError, match=r"texts.txt is a file, and a model is a folder: .* with `--file`"):
        check_model_name(str(tmp_path / "texts.txt"), reads_file=True)
    # `chat` and `export-vllm` have no such option.
    with pytest.raises(ValueError, match=r"texts.txt is a file, and a model is a folder: name that\.$"):
        check_model_name(str(tmp_path / "texts.txt"))
