"""The demo models: small, without code, float32 when they are loaded, and good enough to be shown."""

import ast
import json
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, pipeline

import hf_vae
from helpers import ROOT, make_published
from hf_vae.data import grammar
from hf_vae.demos.folders import FOLDER, NAMES
from hf_vae.demos.packing import pack
from hf_vae.evaluation import generate_texts
from hf_vae.latent_attribute import LatentAttribute
from hf_vae.latent_space import reconstruct

every_demo = pytest.mark.parametrize("name", NAMES)


def load(name: str):
    return AutoModel.from_pretrained(hf_vae.demo(name)), AutoProcessor.from_pretrained(hf_vae.demo(name))


@every_demo
def test_a_demo_is_float16_in_the_file_and_float32_in_memory(name):
    stored = load_file(FOLDER / name / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    model, _ = load(name)
    assert model.dtype == torch.float32 and {each.dtype for each in model.parameters()} == {torch.float32}


@every_demo
def test_a_demo_has_a_card_and_no_code(name):
    files = [path for path in (FOLDER / name).rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".py"]
    for path in (path for path in files if path.suffix == ".json"):
        assert not {"auto_map", "custom_pipelines"} & set(json.loads(path.read_text(encoding="utf-8")))
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert f'hf_vae.demo("{name}")' in card and "NLL, importance-weighted bound (nats per sentence)" in card


def test_all_files_of_the_demos_come_with_the_package_and_are_few_megabytes():
    code = (ROOT / "setup.py").read_text(encoding="utf-8")
    [patterns] = [
        ast.literal_eval(node.value)
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEMO_FILES"
    ]
    files = [path for name in NAMES for path in (FOLDER / name).rglob("*") if path.is_file()]
    for path in files:
        inside = path.relative_to(FOLDER)
        assert any(fnmatch(str(Path(*inside.parts[1:])), pattern) for pattern in patterns), inside
    assert sum(path.stat().st_size for path in files) < 4e6


def test_a_demo_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="choose one of sentences, paraphrase"):
        hf_vae.demo("paraphrases")


def test_the_paraphrases_are_right_and_differ():
    """Ten copies of one paraphrase would be one distinct one in ten."""
    sources = [row["source"] for row in grammar.draw_pairs(20, seed=0)]
    outputs = generate_texts(*load("paraphrase"), sources, 10, do_sample=False, max_new_tokens=24)
    judged = grammar.judge(outputs, sources)
    assert judged["meaning_kept"] > 0.95 and judged["distinct_correct"] > 5


def test_the_sentences_are_told_or_asked_as_the_card_says():
    model, processor = load("sentences")
    card = (FOLDER / "sentences" / "README.md").read_text(encoding="utf-8")
    assert set(model.latent_attributes) == {"mood", "voice", "time_position"}
    for name, each in model.latent_attributes.items():
        assert f"| `{name}` | {', '.join(each.labels)} | accuracy {100 * each.score:.1f} % |" in card
    assert "Share of edits in z that set the wanted factor | 1.000 |" in card
    assert "Share of edits in z that keep all other factors | 1.000 |" in card
    asked = {"mood": "asked", "voice": "passive"}
    tokens = model.generate(num_samples=20, attributes=asked, generator=torch.Generator().manual_seed(0), do_sample=False)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    assert sum(text.endswith("?") and " by the " in text for text in texts) >= 18


def test_the_sentences_come_back_word_for_word():
    texts = grammar.draw_sentences(20, seed=0)
    assert reconstruct(*load("sentences"), texts).texts == texts


@pytest.mark.parametrize(("name", "task"), [("sentences", "latent-text-generation"), ("paraphrase", "paraphrase")])
def test_a_pipeline_loads_a_demo_and_warns_of_words_that_it_does_not_know(name, task, caplog):
    pipe = pipeline(task, model=hf_vae.demo(name), device=-1)
    [record] = pipe("the farmer bought the lamp in the park at noon .")
    assert grammar.parse(record["generated_text"]) is not None and not caplog.text
    pipe("zebras like quantum physics .")
    assert "80.0 %" in caplog.text


def test_packing_keeps_the_model_but_for_its_rounding(tmp_path):
    model, processor, text = make_published("paraphrase")
    model.save_pretrained(tmp_path / "trained")
    processor.save_pretrained(tmp_path / "trained")
    (tmp_path / "trained" / "metrics.json").write_text(json.dumps({"kl": 1.5, "iw_nll": 2.0, "num_examples": 7}))
    attribute = LatentAttribute(model.config.total_latent_size, ["long", "short"])
    torch.nn.init.normal_(attribute.weight)
    for _ in range(2):
        pack(tmp_path / "trained", tmp_path / "small", "model of a test", {"size": attribute})
    packed = AutoModel.from_pretrained(tmp_path / "small")
    model.set_attribute("size", attribute)
    expected = {name: tensor.half().float() for name, tensor in model.state_dict().items()}
    assert packed.state_dict().keys() == expected.keys()
    for name, tensor in packed.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, equal_nan=True)
    assert packed.latent_attributes["size"].labels == ["long", "short"]
    assert AutoProcessor.from_pretrained(tmp_path / "small")(text).input_ids.tolist() == processor(text).input_ids.tolist()
    card = (tmp_path / "small" / "README.md").read_text(encoding="utf-8")
    assert "| `size` | long, short | – |" in card and "generate(**inputs, num_return_sequences=5" in card
    assert "# small\n" in card and "| KL(q ‖ p) (nats per sentence) | 1.500 |" in card and "examples" not in card
