"""What the package promises to those who import it."""

import re
import subprocess
import sys

import hf_vae
from helpers import ROOT


def test_everything_named_is_there_and_documented():
    for name in hf_vae.__all__:
        assert getattr(hf_vae, name).__doc__, name


def test_importing_registers_downloads_nothing_and_is_quiet():
    script = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "import hf_vae\n"
        "import sys\n"
        "print('transformers.trainer' in sys.modules or 'datasets' in sys.modules)\n"
        "from hf_vae.training import fit_posterior, pretrain_encoder, train_without_latent\n"
        "from transformers import AutoConfig\n"
        "print(type(AutoConfig.for_model('paraphrase-vae')).__name__, type(AutoConfig.for_model('text-vae')).__name__)\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    # The Trainer and datasets come with the stages that need them.
    assert result.stdout.split() == ["False", "ParaphraseVAEConfig", "VAEConfig"]
    assert "Warning" not in result.stderr


def test_the_oldest_versions_allowed_are_those_that_are_tested():
    lines = (ROOT / ".ci" / "oldest-constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    named = re.findall(r'"([\w-]+)>=([\w.]+)(?:,<[\d.]+)?"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    # Tools of development, beside what a user installs, are as new as they are.
    tools = {"mypy", "parameterized", "pytest", "pytest-xdist", "ruff", "types-PyYAML", "ipykernel", "nbclient", "nbformat"}
    tools |= {"playwright", "latex2mathml", "mkdocs", "mkdocs-material", "mkdocstrings-python", "Pygments", "pymdown-extensions"}
    allowed = {name: version for name, version in named if name not in tools}
    assert len(allowed) >= 14
    # Builds of torch 2.11 for CPUs alone are not at hand: it was tested on a GPU.
    assert allowed.pop("torch") == "2.11.0" and tested.pop("torch") == "2.13.0"
    assert allowed == tested
