"""
What mkdocs does not do by itself: pages that live outside docs/, formulas without a script, names in one piece, and a way to the
glossary below each page.

Formulas become MathML, which browsers draw by themselves, so that a page makes no request to another host.
"""

import html
import re
from pathlib import Path
from posixpath import relpath

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Where in the site a page stands that is not in docs/.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"} | {
    path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).with_name("index.md").as_posix()
    for path in [ROOT / "model_cards/README.md", *sorted(ROOT.glob("model_cards/*/README.md"))]
}
SOURCES = {page: source for source, page in PAGES.items()}
_CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")
# An option or a class in running text, short enough for a phone's width.
_NAME = re.compile(r"<code>([^<\s]{1,34})</code>")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_files(files, config):
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    # What pages link to besides pages.
    for path in [
        *ROOT.glob("model_cards/*/*.png"),
        *ROOT.glob("examples/plain/*.py"),
        *ROOT.glob("examples/notebooks/*"),
        ROOT / "LICENSE",
    ]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name in ("extra.css", "search_options.js"):
        files.append(File.generated(config, name, content=(ROOT / "docs/site" / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as the repository has them become links in the site."""
    here = page.file.src_uri
    source = ROOT / SOURCES.get(here, f"docs/{here}")

    def moved(match: re.Match) -> str:
        target = (source.parent / match[1]).resolve().relative_to(ROOT).as_posix()
        return relpath(PAGES.get(target, target.removeprefix("docs/")), Path(here).parent.as_posix())

    # Two spaces make a list in a list on the Hub, four here. Code stays as it is: it stands at the odd places.
    pieces = _CODE.split(markdown)
    pieces[::2] = [re.sub(r"^  (?=- )", "    ", _LINK.sub(moved, prose), flags=re.MULTILINE) for prose in pieces[::2]]
    return "".join(pieces)


def on_page_content(content, page, config, files):
    def mathml(match: re.Match) -> str:
        return convert(html.unescape(match[2])[2:-2], display="inline" if match[1] == "span" else "block")

    glossary = relpath("guides/glossary.html", Path(page.file.src_uri).parent.as_posix())
    words = f'\n<p class="glossary">Words such as KL, ELBO and posterior collapse: <a href="{glossary}">glossary</a></p>'
    return _NAME.sub(r'<code class="name">\1</code>', _FORMULA.sub(mathml, content)) + words
