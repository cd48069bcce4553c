"""examples/space is a Space as it is."""

import re
import runpy

import pytest
import yaml

from helpers import EXAMPLES, ROOT

SPACE = EXAMPLES / "space"


def test_the_card_s_metadata_is_that_of_the_app():
    card = (SPACE / "README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(card.split("---")[1])
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    assert metadata["sdk"] == "gradio" and metadata["sdk_version"] == pinned["gradio"]
    assert (SPACE / metadata["app_file"]).is_file() and metadata["license"] == "apache-2.0"
    assert len(metadata["short_description"]) <= 60 and metadata["python_version"] == "3.11"
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'python_requires=">={metadata["python_version"]}"' in setup
    [lowest, below] = re.findall(r'"gradio>=([\d.]+),<(\d+)"', setup)[0]
    assert lowest <= pinned["gradio"] and int(pinned["gradio"].split(".")[0]) < int(below)
    assert (SPACE / "requirements.txt").read_text(encoding="utf-8").split() == ["hf_vae[explorer]"]
    assert '"explorer": EXPLORER' in setup
    for variable in ("MODEL_ID", "TEXTS"):
        assert variable in card and f'environ.get("{variable}")' in (SPACE / "app.py").read_text(encoding="utf-8")


def test_the_app_has_a_page(monkeypatch):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hf_vae[explorer]'")
    for variable in ("MODEL_ID", "TEXTS"):
        monkeypatch.delenv(variable, raising=False)
    assert runpy.run_path(str(SPACE / "app.py"))["page"].title == "sentences: latent space"
