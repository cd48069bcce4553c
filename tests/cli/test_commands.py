"""The console script, what it needs, and the package without that."""

import re
import runpy
import subprocess
import sys

import pytest
from transformers import AutoModel, AutoModelForCausalLM

from helpers import EXAMPLES, RECIPES, ROOT, child_environment, tiny_encoder_config, tiny_gpt2_config
from hf_vae.options import door as console
from hf_vae.options.commands import COMMANDS
from hf_vae.options.recipes import find_recipe


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_gets_the_rest_of_the_line(command, monkeypatch):
    given = []
    monkeypatch.setattr(sys, "argv", ["hf-vae"])
    monkeypatch.setattr(f"hf_vae.cli.{COMMANDS[command].module}.main", given.append)
    console.main([*command.split(), "recipe.yaml", "--seed", "3"])
    assert given == [["recipe.yaml", "--seed", "3"]] and sys.argv[0] == f"hf-vae {command}"


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["train", "--help"]])
def test_help_names_every_command(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        console.main(argv)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert (
        "hf-vae train vae|cvae|dialog|paraphrase" in told
        and "hf-vae evaluate" in told
        and "hf-vae generate" in told
        and "hf-vae chat" in told
        and "hf-vae explore" in told
    )


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "a command is missing; choose one of train vae, train cvae"),
        (["tain", "vae"], "there is no command tain"),
        (["train"], "there is no command train.*; choose one of train vae"),
        (["train", "gan"], "there is no command train gan"),
        (["train", "paraphrases"], r"there is no command train paraphrases \(did you mean train paraphrase\?\)"),
    ],
)
def test_a_command_that_does_not_exist_is_refused_with_those_that_do(argv, message):
    with pytest.raises(SystemExit, match=message):
        console.main(argv)


DOORS = ("train_vae", "train_cvae", "train_dialog", "train_paraphrase", "evaluate", "generate", "chat", "explore")


@pytest.mark.parametrize("name", DOORS)
def test_an_example_is_a_door_to_its_command(name, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert f"examples/{name}.py" in text and len(text.split('"""')[2].split("\n")) < 12
    command = text.partition('run("')[2].partition('"')[0]
    assert COMMANDS[command].module.endswith(name.removeprefix("train_"))
    assert callable(runpy.run_path(str(EXAMPLES / f"{name}.py"))["run"])


def test_a_recipe_is_a_path_or_the_package_s_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = RECIPES["vae_embedded"]
    assert find_recipe("vae_embedded.yaml") == find_recipe("examples/recipes/vae_embedded.yaml") == own
    (tmp_path / "vae_embedded.yaml").write_text("seed: 1\n")
    assert find_recipe("vae_embedded.yaml").resolve() == tmp_path / "vae_embedded.yaml"
    with pytest.raises(FileNotFoundError, match=r"no file none.yaml of arguments.*cvae_embedded.yaml"):
        find_recipe("none.yaml")


def test_the_commands_extra_is_what_they_import(monkeypatch):
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    told = ('"cli": CLI,', '"examples": CLI,', "*CLI", "hf-vae = hf_vae_command.door:main")
    assert all(each in setup for each in told)
    imports = re.compile(r"^\s*(?:import|from) (matplotlib|yaml|tensorboard)\b", re.M)
    found = [path for path in (ROOT / "hf_vae").rglob("*.py") if imports.search(path.read_text(encoding="utf-8"))]
    assert {path.relative_to(ROOT / "hf_vae").parts[0] for path in found} == {"cli", "options"}


# The Hub's own client needs PyYAML, so that it is never missing.
WITHOUT = "import sys\nsys.modules['matplotlib'] = sys.modules['tensorboard'] = None\n"


def run(program, folder):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=child_environment(), check=False)


def test_what_is_missing_is_named_with_the_extra(tmp_path):
    done = run(WITHOUT + "import hf_vae.cli.tasks.vae", tmp_path)
    assert done.returncode != 0 and "need matplotlib: install them with `pip install 'hf_vae[cli]'`" in done.stderr


@pytest.mark.slow
def test_the_package_alone_imports_and_trains(tmp_path, vae_processor):
    """As `pip install` of the wheel leaves it, by the plain Trainer's words."""
    for name, auto, config in (
        ("encoder", AutoModel, tiny_encoder_config()),
        ("decoder", AutoModelForCausalLM, tiny_gpt2_config()),
    ):
        config.vocab_size = len(vae_processor.tokenizer)
        auto.from_config(config).save_pretrained(tmp_path / name)
    vae_processor.save_pretrained(tmp_path / "processor")
    done = run(WITHOUT + PLAIN, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained 2" in done.stdout and not any(name.startswith("hf_vae.cli") for name in done.stdout.split())


PLAIN = """
import hf_vae.evaluation, hf_vae.hub, hf_vae.latent_space, hf_vae.training
from datasets import Dataset
from transformers import AutoProcessor, Trainer, TrainingArguments
from hf_vae import KLAnnealingCallback, VAEDataCollator, VAEModel
from hf_vae.training import fit_posterior

model = VAEModel.from_encoder_decoder_pretrained("encoder", "decoder", latent_size=4)
processor = AutoProcessor.from_pretrained("processor")
texts = ["the cat sat on the mat", "a dog ran in the park"] * 4
data = Dataset.from_dict(dict(processor(texts, texts, return_tensors=None)))
args = TrainingArguments("out", max_steps=2, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True)
trainer = Trainer(model, args, train_dataset=data, data_collator=VAEDataCollator(processor), callbacks=[KLAnnealingCallback()])
trainer.train()
print("trained", trainer.state.global_step, *sys.modules)
"""
