"""The example that writes texts from vectors runs on the grammar, and by its recipes with files and an embedder in a folder."""

import importlib.util
import json
import sys

import pytest
import torch
import yaml
from transformers import AutoModel, AutoProcessor

from helpers import EXAMPLES, RECIPES
from hf_vae.data import grammar
from hf_vae.evaluation import TextEmbedder
from hf_vae.latent_space import invert

SMALL = [
    "--max_train_samples", "60", "--max_test_samples", "4", "--max_steps", "2", "--hidden_size", "16", "--latent_size", "4",
    "--num_candidates", "2", "--max_length", "8", "--per_device_train_batch_size", "4", "--use_cpu", "--disable_tqdm", "true",
]  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("embedding_to_text", EXAMPLES / "embedding_to_text.py")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the names in their annotations.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_it_trains_an_embedder_inverts_it_and_saves_what_writes(script, tmp_path, capsys):
    metrics = script.main([*SMALL, "--embedder_steps", "3", "--output_dir", str(tmp_path)])
    names = {"exact_match", "bleu", "token_f1", "cosine"}
    assert metrics.keys() == names | {f"best_of_2_{name}" for name in names}
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert capsys.readouterr().out.count("given the vector of:") == 4
    model, processor = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    embedder = TextEmbedder(str(tmp_path / "embedder"))
    written = invert(model, processor, embedder(grammar.draw_sentences(2, seed=0)), max_new_tokens=8)
    assert model.config.encoder is None and len(written.texts) == 2
    # The embedder is an encoder like any other: its vectors say that two sentences differ.
    assert torch.linalg.matrix_rank(embedder(grammar.draw_sentences(3, seed=0))) == 3


def test_a_recipe_inverts_a_given_embedder_and_keeps_its_vectors(script, tmp_path, capsys):
    script.main([*SMALL, "--embedder_steps", "1", "--output_dir", str(tmp_path / "first")])
    sentences = grammar.draw_sentences(30, seed=1)
    in_order = sorted(sentences[16:])
    for split, rows in (("train", sentences[:16]), ("test", in_order)):
        lines = [json.dumps({"source": text, "targets": [text]}) for text in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = ["--train_file", str(tmp_path / "train.jsonl"), "--test_file", str(tmp_path / "test.jsonl")]
    more = ["--embedder", str(tmp_path / "first" / "embedder"), "--vectors_dir", str(tmp_path / "vectors"), "--vocab_size", "300"]
    run = [str(RECIPES["embedding_to_text_captions"]), *SMALL, *files, *more, "--output_dir", str(tmp_path / "out")]
    capsys.readouterr()
    script.main(run)
    given = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("given the vector of")]
    # Four held-out texts are drawn: the first ones of a sorted file begin alike.
    places = [[text.split() for text in in_order].index(text.split()) for text in given]
    assert len(set(places)) == 4 and sorted(places) != [0, 1, 2, 3]
    (tmp_path / "out" / "metrics.json").unlink()
    # The second run reads the vectors from the disk.
    script.main(run)
    assert (tmp_path / "out" / "metrics.json").is_file() and (tmp_path / "vectors" / "train" / "fingerprint.json").is_file()
    with pytest.raises(SystemExit, match="Give --train_file, --test_file and --embedder together"):
        script.main(["--embedder", "somewhere"])


@pytest.mark.parametrize("name", ["embedding_to_text_captions", "embedding_to_text_quora"])
def test_a_recipe_names_arguments_of_the_script(name, script):
    parser = script.HfArgumentParser((script.Arguments, script.TrainingArguments))
    recipe = yaml.safe_load((EXAMPLES / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert script.read_recipe(EXAMPLES / "recipes" / f"{name}.yaml", parser).keys() == recipe.keys()
