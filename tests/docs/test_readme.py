"""The README shows what its code prints, and its drawing and its table are those of the demo models."""

import html
import re

from shown_outputs import check_outputs, has_outputs
from test_python_blocks import stock, write_files  # noqa: F401 (`stock` is a fixture)

from helpers import ROOT

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_the_readme_shows_what_its_code_prints(stock, tmp_path, monkeypatch):  # noqa: F811
    import shutil

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


def test_the_readme_is_read_in_minutes_and_asks_no_other_host():
    prose = re.sub(r"^```.*?^```|<!--.*?-->|\]\([^)]*\)", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert len(prose.split()) <= 750
    assert re.findall(r"!\[[^\]]*\]\((?!docs/)|<img[^>]*src=\"(?!docs/)", TEXT) == []
