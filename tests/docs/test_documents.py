"""The documents hold together: links and anchors, the site's navigation, and the names in the API reference."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
import yaml

import hf_vae
from helpers import ROOT
from hf_vae.data import Fingerprint

PAGES = sorted(ROOT.glob("docs/**/*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES, *sorted(ROOT.glob("model_cards/**/*.md"))]
API_NAMES = [name for page in PAGES for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)]
ABOVE = ("training", "evaluation", "latent_space", "bulk", "data", "hub", "serving", "explorer")
WINGS = [hf_vae, *(importlib.import_module(f"hf_vae.{wing}") for wing in ABOVE)]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(document: Path) -> str:
    """A document without its fenced code."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def imported(name: str) -> object:
    """What a dotted name stands for: a module, or what it holds."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        return importlib.import_module(name)


@every_document
def test_relative_links_and_images_point_to_something(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_navigation_and_nothing_else():
    class Loader(yaml.SafeLoader):
        """The configuration names a function, which is mkdocs' to call."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python", lambda loader, suffix, node: suffix)
    configuration = yaml.load((ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def pages(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in pages(each)]

    # Made of the repository's other documents when the site is built.
    elsewhere = ["changelog.md", "contributing.md", "index.md", "model_cards/index.md"]
    assert sorted(pages(configuration["nav"])) == sorted([path.relative_to(ROOT / "docs").as_posix() for path in PAGES] + elsewhere)


@pytest.mark.parametrize("name", API_NAMES)
def test_names_in_the_reference_exist(name):
    imported(name)


def test_every_public_name_is_in_the_reference():
    shown = [imported(name) for name in API_NAMES]
    public = [getattr(module, name) for module in WINGS for name in module.__all__]
    assert [each for each in public if callable(each) and each not in shown] == []


def test_the_fields_of_a_fingerprint_are_in_the_reference():
    text = (ROOT / "docs" / "reference" / "data.md").read_text(encoding="utf-8")
    table = text.partition("`fingerprint.json`:")[2].partition("\n\n`load_vectors")[0]
    told = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")]
    assert sorted(told) == sorted(field.name for field in dataclasses.fields(Fingerprint))
