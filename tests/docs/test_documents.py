"""The documents hold together: links and anchors, the site's navigation, the code in them, and the names in the API reference."""

import ast
import builtins
import copy
import importlib
import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModel, AutoModelForCausalLM

import hf_vae
from helpers import ROOT
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.data import dialogues, grammar

PAGES = sorted(ROOT.glob("docs/**/*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES, *sorted(ROOT.glob("model_cards/**/*.md"))]
API_NAMES = [name for page in PAGES for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)]
WINGS = [hf_vae, *(importlib.import_module(f"hf_vae.{wing}") for wing in ("training", "evaluation", "latent_space", "data", "hub"))]

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


def blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@every_document
def test_python_in_documents_parses_and_imports_what_there_is(document):
    for block in blocks(document):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_vae"):
                for alias in node.names:
                    imported(f"{node.module}.{alias.name}")


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


PASTED = [page for page in PAGES if page.parent.name == "docs" and page.name not in ("hub.md", "families.md") and blocks(page)]


@pytest.mark.parametrize("page", PASTED, ids=lambda path: path.name)
def test_python_on_a_page_uses_no_name_that_it_has_not_made(page):
    known = set(dir(builtins))
    for block in blocks(page):
        nodes = list(ast.walk(ast.parse(block)))
        for node in nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                known.add(node.name)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
        assert {node.id for node in nodes if isinstance(node, ast.Name)} - known == set()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Tiny models where the pages have trained ones, and encoder and decoder under the names of pretrained ones."""
    root = tmp_path_factory.mktemp("pages")
    words = [*grammar.draw_sentences(300, 0), *(turn["text"] for row in dialogues.draw_dialogues(50, 0) for turn in row["turns"])]
    tokenizer, encoder_tokenizer = train_tokenizers(iter(words), 900)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    encoder, decoder = small_configs(tokenizer, encoder_type="bert", decoder_type="gpt2", **sizes)
    torch.manual_seed(0)
    for name, kind, options in (
        ("vae", "VAE", {}), ("paraphrase", "ParaphraseVAE", {}), ("cvae", "CVAE", {}), ("dialog", "DialogCVAE", {"num_acts": 2}),
    ):  # fmt: skip
        parts = {"encoder": copy.deepcopy(encoder), "decoder": copy.deepcopy(decoder), "latent_size": 4, **options}
        getattr(hf_vae, f"{kind}Model")(getattr(hf_vae, f"{kind}Config")(**parts)).save_pretrained(root / "outputs" / name)
        acts = {"acts": ["doubt", "other"]} if options else {}
        getattr(hf_vae, f"{kind}Processor")(tokenizer, encoder_tokenizer, **acts).save_pretrained(root / "outputs" / name)
    for names, part, words_of in (
        (("bert-base-uncased", "bert-base-cased"), AutoModel.from_config(encoder), encoder_tokenizer),
        (("gpt2",), AutoModelForCausalLM.from_config(decoder), tokenizer),
    ):
        for name in names:
            part.save_pretrained(root / name)
            words_of.save_pretrained(root / name)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", ["how_it_works", "latent_space", "conditional", "theory", "migrating_from_langvae"])
def test_python_on_a_page_runs_as_it_is_pasted(name, outputs, monkeypatch):
    monkeypatch.chdir(outputs)
    namespace = {"__name__": "pasted"}
    for block in blocks(ROOT / "docs" / f"{name}.md"):
        # What takes minutes with many sentences says as much with few, and what reads the outputs of trainings is theirs.
        if "metrics.json" not in block and "train.jsonl" not in block:
            exec(re.sub(r"20_000|8000|2000", "60", block).replace("500", "20"), namespace)
