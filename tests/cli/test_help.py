"""`--help`: in groups, with the defaults that the command line in hand would have, and without torch."""

import subprocess
import sys
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
from transformers import TrainingArguments

from helpers import EXAMPLES, RECIPES, ROOT, child_environment, load_script
from hf_vae.cli.from_scratch import _TRAINED
from hf_vae.configuration_conditional_vae import SOURCE_CONDITIONINGS
from hf_vae.configuration_vae import LATENT_INJECTION_TYPES, PRIOR_TYPES
from hf_vae.data import PAIRINGS
from hf_vae.generation_options import LATENT_SOURCES
from hf_vae.latent_spread import LATENT_SPREADS
from hf_vae.options import door
from hf_vae.options.commands import COMMANDS
from hf_vae.options.groups import CHOICES, GROUPS, TRAINING
from hf_vae.options.help import asks_for_help, help_of
from hf_vae.training.schedules import SCHEDULES

TRAIN = [name for name, command in COMMANDS.items() if command.trains]
FILE = ["--train_file", "x.jsonl"]
PARTS = [*FILE, "--encoder_name_or_path", "e", "--decoder_name_or_path", "d"]


def default_of(text, name):
    """What a help says that an argument's default is."""
    [_, entry] = text.replace("\n  --", "\n\0--").replace("\n\n", "\n\0").split(f"\0--{name}", 1)
    entry = " ".join(entry.partition("\0")[0].split())
    return entry.partition("(default: ")[2].removesuffix(")") or None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_has_a_group_and_a_meaning(command):
    names = [each.name for arguments in COMMANDS[command].arguments for each in fields(arguments)]
    grouped = {name for group in GROUPS.values() for name in group}
    assert set(names) <= grouped and len(names) == len(set(names))
    text = help_of(command, [])
    assert "Other arguments" not in text and all(f"\n  --{name}" in text for name in names)
    assert ("The Trainer" in text) is COMMANDS[command].trains and max(map(len, text.splitlines())) <= 110


def test_arguments_of_ours_do_not_take_the_trainer_s_names():
    for command in TRAIN:
        ours = {each.name for arguments in COMMANDS[command].arguments for each in fields(arguments)}
        assert not ours & {each.name for each in fields(TrainingArguments)}


def test_the_trainer_s_defaults_are_as_the_help_has_them(tmp_path):
    own = {each.name: each.default for each in fields(TrainingArguments)}
    settled = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    for name, (default, _) in TRAINING.items():
        assert name in own
        if name not in ("output_dir", "use_cpu"):
            value = getattr(settled, name)
            value = getattr(value, "value", value)
            assert (value or None) == (default or None) or value in ([], ["none"]) or own[name] == default, name


def test_choices_are_the_package_s():
    assert CHOICES["latent_injection"] == tuple(LATENT_INJECTION_TYPES) and set(CHOICES["kl_schedule"]) == set(SCHEDULES)
    assert CHOICES["latent_source"] == LATENT_SOURCES and set(CHOICES["latent_spread"]) == set(LATENT_SPREADS)
    assert CHOICES["source_conditioning"] == tuple(SOURCE_CONDITIONINGS) and CHOICES["pairing"] == tuple(PAIRINGS)
    assert set(CHOICES["tokenizer_type"]) == set(_TRAINED) and set(CHOICES["prior_type"]) <= set(PRIOR_TYPES)


@pytest.mark.parametrize(
    "argv, recipe", [([], "embedded"), (FILE, "from_scratch"), (["--train_fi=x"], "from_scratch"), (PARTS, "pretrained")]
)
@pytest.mark.parametrize("command", TRAIN)
def test_defaults_are_those_of_the_run(command, argv, recipe):
    """As the command itself would read them."""
    task = command.split()[1]
    text = help_of(command, argv)
    assert f"recipe {task}_{recipe}.yaml" in " ".join(text.split())
    script = load_script(f"train_{task}")
    task_class = next(each for each in vars(script).values() if getattr(each, "name", None) == task)
    read = {}
    for each in script.train.parse_arguments(task_class.arguments, [*argv, "--use_cpu"], task, f"outputs/{task}"):
        read |= vars(each)
    for name in ("free_bits", "learning_rate", "max_steps", "latent_size", "max_new_tokens", "output_dir", "vocab_size"):
        shown = default_of(text, name)
        assert shown == str(read[name]) or float(shown) == read[name], name


def test_what_the_command_line_says_changes_other_defaults():
    assert default_of(help_of("train cvae", FILE), "latent_free_steps")
    for said, name, default in (
        (["--capacity", "5"], "free_bits", "0.0"),
        (["--num_train_epochs", "2"], "max_steps", "-1"),
        (["--objective", "gsnn"], "posterior_fit_steps", "0"),
    ):
        assert default_of(help_of("train cvae", [*said]), name) == default
    recipe = str(RECIPES["bowman_ptb"])
    assert default_of(help_of("train vae", [recipe]), "hidden_size") == "352"
    # A wrong value is the command's to refuse.
    assert "free_bits" in help_of("train vae", ["--latent_size", "many"])


@pytest.mark.parametrize(
    "argv, asked",
    [
        (["--help"], "short"),
        (["-h"], "short"),
        (["a.yaml", "--help"], "short"),
        (["--help", "all"], "all"),
        (["--seed", "1"], None),
    ],
)
def test_help_may_be_short_or_all(argv, asked):
    assert asks_for_help(argv) == asked


def test_all_adds_what_the_trainer_takes(capsys):
    with pytest.raises(SystemExit) as ended:
        door.run("train paraphrase", ["--help", "all"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "Against posterior collapse" in told and "--adam_beta1" in told and "--torch_compile" in told
    # With the recipe's value for it.
    assert "(default: 0.98)" in told


WITHOUT_TORCH = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "numpy", "datasets"):
            raise ImportError(f"--help imports {name}")

sys.meta_path.insert(0, Refuses())
"""


@pytest.mark.parametrize("command", ["train_vae", "train_paraphrase", "evaluate", "generate", "chat"])
def test_an_example_s_help_imports_neither_torch_nor_transformers(command, tmp_path):
    program = f"{WITHOUT_TORCH}import runpy\nsys.path.insert(0, {str(EXAMPLES)!r})\nsys.argv.append('--help')\n"
    program += f"runpy.run_path({str(EXAMPLES / f'{command}.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=child_environment())
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {command}.py"), done.stderr[-500:]


def test_the_console_script_s_help_imports_neither(tmp_path):
    """By the name that it is installed as."""
    (tmp_path / "hf_vae_command").symlink_to(ROOT / "hf_vae" / "options")
    program = f"{WITHOUT_TORCH}sys.path.insert(0, {str(tmp_path)!r})\nfrom hf_vae_command.door import main\n"
    program += "sys.argv = ['hf-vae', 'train', 'paraphrase', '--help']\nmain()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=child_environment())
    assert done.returncode == 0 and done.stdout.startswith("usage: hf-vae train paraphrase"), done.stderr[-500:]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert '"hf_vae_command": "hf_vae/options"' in setup and '"hf_vae_command.tasks"' in setup


def test_an_argument_s_type_is_one_that_a_command_line_can_give():
    for command in TRAIN:
        for arguments in COMMANDS[command].arguments:
            for each in fields(arguments):
                hint = get_type_hints(arguments)[each.name]
                assert {int, float, bool, str, dict, list} & {hint, *get_args(hint)} or hint == list[str], each.name
