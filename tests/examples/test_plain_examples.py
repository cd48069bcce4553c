"""The plain examples run as they are, on tiny models that lie in folders of the names that they load."""

import json
import runpy
from pathlib import Path

import pytest
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from helpers import EXAMPLES, take_special_tokens, tiny_encoder_config, tiny_gpt2_config
from hf_vae.cli.from_scratch import train_tokenizers

PLAIN = EXAMPLES / "plain"
ENCODERS, DECODER = ("google-bert/bert-base-cased", "google-bert/bert-base-uncased"), "openai-community/gpt2"
TEXTS = [f"the {who} {what} the {which}" for who in ("cat", "dog", "king") for what in ("saw", "ate") for which in ("lamp", "cup")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tokenizer, encoder_tokenizer = train_tokenizers([*TEXTS, "hello , how are you ?"] * 3, vocab_size=300)
    for names, config, each in ((ENCODERS, tiny_encoder_config(), encoder_tokenizer), ((DECODER,), tiny_gpt2_config(), tokenizer)):
        config.update({"vocab_size": len(each), "max_position_embeddings": 256, "n_positions": 256})
        take_special_tokens(config, each)
        for name in names:
            auto = AutoModelForCausalLM if name == DECODER else AutoModel
            auto.from_config(config).save_pretrained(tmp_path / name)
            each.save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_data(folder: Path, name: str) -> None:
    turns = [{"speaker": "AB"[number % 2], "text": text, "act": "xy"[number % 2]} for number, text in enumerate(TEXTS)]
    rows = {
        "dialog": [{"turns": turns}],
        "cvae": [{"source": text, "targets": [other]} for text, other in zip(TEXTS, reversed(TEXTS))],
    }
    rows["paraphrase"] = rows["cvae"]
    # More than ten steps of 32 rows with z, so that something is logged.
    for split, copies in (("train", 100), ("test", 2)):
        if name in rows:
            lines = [json.dumps(row) for row in rows[name]]
            (folder / f"{split}.jsonl").write_text("\n".join(lines * copies) + "\n", encoding="utf-8")
        else:
            (folder / f"{split}.txt").write_text("\n".join(TEXTS * copies) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", ["sentence_vae", "paraphrase", "cvae", "dialog"])
def test_an_example_trains_judges_uses_and_saves(name, folder, capsys):
    write_data(folder, name)
    made = runpy.run_path(str(PLAIN / f"{name}.py"))
    assert made["trainer"].state.global_step > 0 and any("kl" in entry for entry in made["trainer"].state.log_history)
    printed = capsys.readouterr().out
    assert "z is" in printed or "z says" in printed
    saved = made["trainer"].args.output_dir
    model, processor = AutoModel.from_pretrained(saved), AutoProcessor.from_pretrained(saved)
    assert type(model) is type(made["model"]) and type(processor) is type(made["processor"])
    if name == "sentence_vae":
        # What comes next starts from what was saved.
        runpy.run_path(str(PLAIN / "latent_space.py"))
        assert "From the fitted prior:" in capsys.readouterr().out
        assert AutoModel.from_pretrained(saved).fitted_prior is not None


@pytest.mark.parametrize("path", sorted(PLAIN.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_read_on_one_page(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
    # `Trainer` is in sight in what trains, and nothing of an example lies in another file.
    assert path.stem == "latent_space" or any(line.startswith("trainer = Trainer(") for line in lines)
