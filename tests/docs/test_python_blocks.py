"""
Every Python block of the documents runs as it is pasted: the blocks of a page in their order, in one namespace and in one folder,
where tiny models have the names of the trained and the pretrained ones.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel, ProcessorMixin

import hf_vae
from helpers import ROOT
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.data import dialogues, grammar

CARDS = ROOT.glob("model_cards/*/*.md")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(CARDS)]
# It compiles and exports.
SLOW = ("docs/reference/compile_export.md",)
# A block of the page that holds these words is not run, for this reason.
NOT_RUN = {
    (
        "docs/guides/hub.md",
        'pipeline(model="you/paraphrases"',
    ): "asks the Hub for the model's task; `tests/hub/test_repositories.py` runs it",
}
# What takes minutes with many sentences says as much with few.
FEWER = {
    "docs/theory.md": {"20_000": "60", "8000": "50", "2000": "40", "500": "20"},
    "docs/guides/latent_space.md": {"20_000": "300", "max_steps=2000": "max_steps=5"},
}
NEEDS = {"docs/guides/adapters.md": "torchao"}


def python_blocks(document: Path) -> list[tuple[int, str]]:
    """Each with the number of its first line."""
    text = document.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text[: block.start(1)].count("\n"), block[1]) for block in found]


class Stock:
    """Tiny models by kind, each made once, and which kind stands for a name."""

    def __init__(self, folder: Path):
        self.folder = folder
        texts = grammar.draw_sentences(300, 0)
        texts += [turn["text"] for row in dialogues.draw_dialogues(50, 0) for turn in row["turns"]]
        self.tokenizers = train_tokenizers(iter(texts), 900)

    def configs(self, family: str) -> dict:
        encoder_type, decoder_type = ("lstm", "lstm") if family == "lstm" else ("bert", "gpt2")
        encoder, decoder = small_configs(
            self.tokenizers[0], encoder_type, decoder_type, hidden_size=16, num_attention_heads=2, encoder_layers=1,
            decoder_layers=1, max_position_embeddings=256,
        )  # fmt: skip
        return {"encoder": encoder, "decoder": decoder, "latent_size": 4}

    def composite(self, variant: str, family: str = "bert", acts: list[str] | None = None, **options) -> Callable[[Path], None]:
        def save(folder: Path) -> None:
            torch.manual_seed(0)
            known = {"num_acts": len(acts)} if acts else {}
            config = getattr(hf_vae, f"{variant}Config")(**self.configs(family), **known, **options)
            getattr(hf_vae, f"{variant}Model")(config).save_pretrained(folder)
            processor = getattr(hf_vae, f"{variant}Processor")
            processor(*self.tokenizers, **({"acts": acts} if acts else {})).save_pretrained(folder)

        return save

    def part(self, name: str) -> Callable[[Path], None]:
        def save(folder: Path) -> None:
            torch.manual_seed(0)
            auto = AutoModel if name == "encoder" else AutoModelForCausalLM
            auto.from_config(self.configs("bert")[name]).save_pretrained(folder)
            self.tokenizers[name == "encoder"].save_pretrained(folder)

        return save

    def around_a_frozen_decoder(self, folder: Path) -> None:
        parts = [str(self["bert-base-uncased"]), str(self["gpt2"])]
        hf_vae.VAEModel.from_encoder_decoder_pretrained(*parts, latent_size=4, freeze=["decoder"]).save_pretrained(folder)
        hf_vae.VAEProcessor(*self.tokenizers).save_pretrained(folder)

    def adapter(self, folder: Path) -> None:
        """Over a model around a frozen decoder; it names its base by the path from the folder in which it is used."""
        base = hf_vae.VAEModel.from_pretrained(self["outputs/trained_only"], part_folders={"decoder": str(self["gpt2"])})
        model = get_peft_model(base, LoraConfig(target_modules=r".*\.(query|value)"))
        model.peft_config["default"].base_model_name_or_path = "outputs/trained_only"
        model.save_pretrained(folder)

    def makers(self) -> list[tuple[str, Callable[[Path], None]]]:
        """By a pattern of the names; the first that matches counts."""
        return [
            (r"bert-base-(un)?cased", self.part("encoder")),
            (r"(models/)?gpt2", self.part("decoder")),
            (r"outputs/trained_only", self.around_a_frozen_decoder),
            (r"outputs/adapter", self.adapter),
            (r"outputs/prefix", self.composite("ParaphraseVAE", latent_injection=["prefix"])),
            (r"outputs/ptb_lm", self.composite("VAE", "lstm", pooling="pooler")),
            (r"(outputs/)?(dialog\w*|dailydialog_\w+|switchboard_\w+)", self.composite("DialogCVAE", acts=["doubt", "other"])),
            (r"(outputs/)?\w*cvae", self.composite("CVAE")),
            (r"(outputs/)?\w*(paraphrase|gupta)", self.composite("ParaphraseVAE")),
            (r"outputs/one", self.composite("VAE", bow_loss_weight=1.0)),
            (r"(outputs/)?(parts|optimus|weak|\w*_(inputless|optimus)|(\w+_)?vae)", self.composite("VAE")),
        ]

    def __getitem__(self, name: str) -> Path:
        folder = self.folder / name
        if not folder.exists():
            next(make for pattern, make in self.makers() if re.fullmatch(pattern, name))(folder)
        return folder

    def names(self, code: str) -> list[str]:
        """Those that stand as strings in a page's code."""
        strings = dict.fromkeys(re.findall(r'"([\w/.-]+)"', code))
        return [name for name in strings if any(re.fullmatch(pattern, name) for pattern, _ in self.makers())]


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Stock:
    return Stock(tmp_path_factory.mktemp("stock"))


def write_files(folder: Path) -> None:
    """What the pages read besides models: metrics of trainings, and dialogues."""
    for name, kl in (("plain", 0.5), ("vae", 4.0), ("weak", 9.0)):
        (folder / "outputs" / name).mkdir(parents=True, exist_ok=True)
        (folder / "outputs" / name / "metrics.json").write_text(json.dumps({"kl": kl, "reconstruction": 30 - 2 * kl}))
    words = [f"word{number}" for number in range(120)]
    turns = [{"speaker": "AB"[number % 2], "text": " ".join(words[number:] + words[:number])} for number in range(12)]
    (folder / "train.jsonl").write_text(json.dumps({"turns": turns}) + "\n")


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def page_of(document: Path):
    marks = [pytest.mark.slow] if name_of(document) in SLOW else []
    return pytest.param(document, marks=marks, id=name_of(document))


@pytest.mark.parametrize("document", [page_of(document) for document in DOCUMENTS if python_blocks(document)])
def test_python_on_a_page_runs_as_it_is_pasted(document, stock, tmp_path, monkeypatch):
    page = name_of(document)
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    blocks = python_blocks(document)
    for name in stock.names("".join(code for _, code in blocks)):
        shutil.copytree(stock[name], tmp_path / name)
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for each in (PreTrainedModel, ProcessorMixin):
        monkeypatch.setattr(each, "push_to_hub", lambda self, name, **options: self.save_pretrained(name))
    namespace, read = {"__name__": "pasted"}, ""
    for line, code in blocks:
        read += code
        if any(page == where and words in code for where, words in NOT_RUN):
            continue
        # Here the package is imported anyway; on a reader's machine the auto classes know its models by this.
        assert "trust_remote_code" in code or not re.search(r"\bAuto(Model|Processor)\b|\bpipeline\(", code) or "hf_vae" in read
        for number, smaller in FEWER.get(page, {}).items():
            code = re.sub(rf"\b{number}\b", smaller, code)
        # Behind as many empty lines, so that an error names the page's own.
        exec(compile("\n" * line + code, str(document), "exec"), namespace)


def test_what_is_not_run_or_made_smaller_is_on_its_page():
    code = {name_of(page): "".join(code for _, code in python_blocks(page)) for page in ROOT.glob("docs/**/*.md")}
    assert all(words in code[page] for page, words in NOT_RUN) and len(NOT_RUN) < 5
    assert all(re.search(rf"\b{number}\b", code[page]) for page, numbers in FEWER.items() for number in numbers)
