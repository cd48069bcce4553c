"""The README shows what its code prints, and its drawing and its table are those of the demo models."""

import html
import re
import shutil

from shown_outputs import check_outputs, has_outputs
from test_python_blocks import stock, write_files  # noqa: F401 (`stock` is a fixture)

import hf_vae
from helpers import ROOT

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_the_readme_shows_what_its_code_prints(stock, tmp_path, monkeypatch):  # noqa: F811
    for name in stock.names(TEXT):
        shutil.copytree(stock[name], tmp_path / name)
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert has_outputs(README)
    check_outputs(README)


def test_the_drawing_shows_outputs_that_the_readme_shows():
    drawing = (ROOT / "docs/images/latent_between.svg").read_text(encoding="utf-8")
    sentences = [html.unescape(each) for each in re.findall(r">([^<>]+ [.?])</text>", drawing)]
    assert len(sentences) == 6
    assert [each for each in sentences if each not in TEXT] == []


def test_the_badges_say_what_is_true():
    badges = {path.stem.removeprefix("badge_"): path.read_text(encoding="utf-8") for path in ROOT.glob("docs/images/badge_*.svg")}
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'"version: {hf_vae.__version__}"' in badges["version"] and f"version {hf_vae.__version__}" in TEXT
    [oldest] = re.findall(r'python_requires=">=([\d.]+)"', setup)
    assert f'"python: {oldest} and later"' in badges["python"]
    assert 'license="Apache-2.0"' in setup and '"licence: Apache 2.0"' in badges["licence"]


def test_the_readme_is_read_in_minutes_and_asks_no_other_host():
    prose = re.sub(r"^```.*?^```|<!--.*?-->|\]\([^)]*\)", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert len([word for word in prose.split() if re.search(r"\w", word)]) <= 700
    assert re.findall(r"!\[[^\]]*\]\((?!docs/)|<img[^>]*src=\"(?!docs/)", TEXT) == []
