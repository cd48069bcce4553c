"""The evaluation script, run small: what it reads, refuses, prints and saves, on one process and on two."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers import EXAMPLES, TEXTS, child_environment, load_script, make_model, resized, tiny_gpt2_config, tiny_llama_config
from hf_vae import DialogCVAEProcessor
from hf_vae.data import load_dialogs, load_texts
from hf_vae.evaluation import LikelihoodEvaluator, evaluate_vae, language_model_nll
from hf_vae.evaluation.metrics import known_metrics

SCRIPT = EXAMPLES / "evaluate.py"


@pytest.fixture(scope="module")
def script():
    return load_script("evaluate")


@pytest.fixture
def saved(vae_processor, tmp_path):
    model = resized(make_model("vae", latent_size=1), vae_processor)
    model.save_pretrained(tmp_path / "model")
    vae_processor.save_pretrained(tmp_path / "model")
    return model


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def save_language_model(processor, path, config=None):
    torch.manual_seed(0)
    config = config or tiny_llama_config()
    config.vocab_size = len(processor.tokenizer)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(path)
    return model


def test_figures_are_printed_and_saved(script, saved, vae_processor, text_file, tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"kl": 1.0, "reconstruction": 20.0}), encoding="utf-8")
    output, plot = tmp_path / "out" / "metrics.json", tmp_path / "pictures" / "plot.png"
    options = [
        "--importance_samples",
        "6",
        "--seed",
        "3",
        "--batch_size",
        "2",
        "--refine_steps",
        "2",
        "--language_model_nll",
        "9.5",
    ]
    figures = script.main([
        str(tmp_path / "model"), "--file", str(text_file), *options, "--output_file", str(output), "--compare_with", str(other),
        "--plot_file", str(plot),
    ])  # fmt: skip
    assert json.loads(output.read_text()) == figures
    expected = evaluate_vae(
        LikelihoodEvaluator(saved, vae_processor, TEXTS, TEXTS), 6, seed=3, refine_steps=2, language_model_nll=9.5
    )
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        if name != "collapse_report":
            assert figures[name] == pytest.approx(value, abs=1e-3, rel=1e-4), name
    printed = capsys.readouterr().out
    # Every metric has a line in the table; the report stands below it.
    shown = known_metrics(figures)
    assert set(figures) - {metric.name for metric in shown} == {"collapse_report"}
    assert all(metric.title in printed for metric in shown)
    assert figures["collapse_report"]["summary"] in printed and "| 1.00 | 20.00 | 21.00 |" in printed
    assert plot.stat().st_size > 0


# Of a folder without one transformers gives no tokenizer of Llama's, and one of GPT-2's that reads every text as nothing.
@pytest.mark.parametrize("config", [tiny_llama_config, tiny_gpt2_config])
@pytest.mark.parametrize("own_tokenizer", [True, False])
def test_a_language_model_is_measured_on_the_same_tokens(script, saved, vae_processor, text_file, tmp_path, own_tokenizer, config):
    model = save_language_model(vae_processor, tmp_path / "lm", config())
    if own_tokenizer:
        vae_processor.tokenizer.save_pretrained(tmp_path / "lm")
    figures = script.main([
        str(tmp_path / "model"), "--file", str(text_file), "--importance_samples", "2", "--language_model", str(tmp_path / "lm")
    ])  # fmt: skip
    tokenizer = vae_processor.tokenizer
    rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in TEXTS]
    expected = language_model_nll(model, rows, saved.config.decoder_start_token_id).mean().item()
    assert figures["language_model_nll"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_columns_are_read(script, tmp_path, suffix):
    path = tmp_path / f"test{suffix}"
    rows = [{"id": i, "sentence": text} for i, text in enumerate(['a "quoted", text', "null", "the mat"])]
    if suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "sentence"], delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    options = {"quoting": "minimal"} if suffix == ".tsv" else {}
    assert load_texts(str(path), text_column="sentence", **options) == [row["sentence"] for row in rows]
    assert load_texts(str(path), text_column="sentence", max_rows=2, **options) == ['a "quoted", text', "null"]
    with pytest.raises(ValueError, match="has no column text; it has id, sentence"):
        load_texts(str(path))


def test_a_conditional_model_needs_pairs(script, processor, tmp_path):
    model = resized(make_model("paraphrase-prompt"), processor)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"x": a, "y": [b, "a cat"]}) for a, b in zip(TEXTS, TEXTS[::-1])), encoding="utf-8")
    arguments = [str(tmp_path / "model"), "--file", str(path), "--importance_samples", "2"]
    with pytest.raises(ValueError, match="has no column source"):
        script.main(arguments)
    with pytest.raises(ValueError, match="does not see the source"):
        script.main([*arguments, "--language_model", "x"])
    figures = script.main([*arguments, "--source_column", "x", "--target_column", "y"])
    # The middle row's first target equals its source, so its second one is scored.
    expected = evaluate_vae(LikelihoodEvaluator(model, processor, TEXTS, [*TEXTS[:2:-1], "a cat", *TEXTS[1::-1]]), 2)
    assert figures["elbo"] == pytest.approx(expected["elbo"], abs=1e-4)


def test_a_dialogue_model_is_measured_on_turns(script, tokenizers, tmp_path):
    processor = DialogCVAEProcessor(*tokenizers, acts=["x", "y", "z"], max_turns=2)
    model = resized(make_model("dialog-acts"), processor)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    turns = [{"speaker": speaker, "text": text, "act": act} for speaker, text, act in zip("abab", TEXTS, "xyzx")]
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"turns": turns}) + "\n", encoding="utf-8")
    figures = script.main([str(tmp_path / "model"), "--file", str(path), "--importance_samples", "2"])
    pairs = load_dialogs(str(path))
    targets = [targets[0] for targets in pairs["targets"]]
    expected = evaluate_vae(LikelihoodEvaluator(model, processor, list(pairs["source"]), targets), 2)
    assert figures["num_examples"] == 3 and figures["elbo"] == pytest.approx(expected["elbo"], abs=1e-4)
    # The acts of the file are nothing to a model without.
    model = resized(make_model("dialog", meta_categories=None, num_meta_values=0), processor)
    model.save_pretrained(tmp_path / "plain")
    DialogCVAEProcessor(*tokenizers, max_turns=2).save_pretrained(tmp_path / "plain")
    assert script.main([str(tmp_path / "plain"), "--file", str(path), "--importance_samples", "2"])["num_examples"] == 3


def test_a_file_of_an_unknown_kind_is_named(tmp_path):
    (tmp_path / "texts.dat").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"texts.dat is a file of an unknown kind: its name must end in .json, .jsonl"):
        load_texts(str(tmp_path / "texts.dat"))
    (tmp_path / "texts.TXT").write_text("a\nb\n", encoding="utf-8")
    assert load_texts(str(tmp_path / "texts.TXT")) == ["a", "b"]


@pytest.mark.parametrize(
    "content, arguments, message",
    [
        ("a\nb\n", ["--max_length", "2"], "`--max_length` is 2, and the encoder's tokenizer adds 2 special tokens"),
        ("a\nb\n", ["--max_length", "-1"], "`--max_length` is -1"),
        ("a\nb\n", ["--language_model_nll", "nan"], "`--language_model_nll` is nan"),
        ("a\nb\n" + "the cat " * 60, [], "1 of 3 examples make more tokens than the encoder holds"),
        ("a\n\nthe mat\n  \n", [], r"no text in 2 row\(s\), counted from 1: 2, 4"),
        ("the mat\n", [], r"has 1 sentence\(s\)"),
        ("a\nb\n", ["--importance_samples", "0"], "`--importance_samples` is 0"),
        ("a\nb\n", ["--max_samples", "1"], "`--max_samples` is 1"),
        ("a\nb\n", ["--seed", "-1"], "`--seed` is -1; it must be at least 0"),
        ("a\nb\n", ["--refine_steps", "-1"], "`--refine_steps` is -1"),
        ("a\nb\n", ["--language_model", "x", "--language_model_nll", "3"], "not both"),
        ("a\nb\n", ["--plot_file", "x.png"], "needs `--compare_with`"),
        ("a\nb\n", ["--dtype", "half"], "`--dtype` is 'half'; choose one of 'auto', 'float32', 'bfloat16', 'float16'"),
        ("a\nb\n", ["--compare_with", "none.json"], "There is no file none.json"),
    ],
)
def test_bad_input_is_refused(script, saved, tmp_path, content, arguments, message):
    path = tmp_path / "bad.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        script.main([str(tmp_path / "model"), "--file", str(path), *arguments])


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"nokl": 1}', "other.json' hold no finite 'kl' .found None"),
        ('{"kl": null, "reconstruction": 3.0}', "other.json' hold no finite 'kl' .found None"),
        ('{"kl": 1.0, "reconstruction": NaN}', "other.json' hold no finite 'reconstruction' .found nan"),
        ('{"kl": "1.0", "reconstruction": 3}', "other.json' hold no finite 'kl' .found '1.0'"),
        ("[1, 2]", "other.json' hold no finite 'kl'"),
        ("kl: 1", "other.json is no JSON"),
        (b"\xff\xfe", "other.json is no JSON"),
    ],
)
def test_figures_that_cannot_be_compared_are_refused_before_any_is_measured(
    script, saved, text_file, tmp_path, monkeypatch, content, message
):
    monkeypatch.setattr(script, "evaluate_vae", lambda *args, **kwargs: pytest.fail("measured first"))
    other = tmp_path / "other.json"
    other.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        script.main([str(tmp_path / "model"), "--file", str(text_file), "--compare_with", str(other)])


@pytest.mark.parametrize(
    "name, path, message",
    [
        ("output_file", "model", "model is a directory"),
        ("plot_file", "model", "model is a directory"),
        ("output_file", "test.txt/new/metrics.json", "cannot be written: .*test.txt is a file"),
        ("plot_file", "test.txt/plot.png", "cannot be written: .*test.txt is a file"),
        ("plot_file", "plot.xyz", "no kind of picture; choose one of .*png"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(
    script, saved, text_file, tmp_path, monkeypatch, name, path, message
):
    monkeypatch.setattr(script, "evaluate_vae", lambda *args, **kwargs: pytest.fail("measured first"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"kl": 1.0, "reconstruction": 20.0}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"`--{name}` .*{message}"):
        script.main([
            str(tmp_path / "model"), "--file", str(text_file), "--compare_with", str(other), f"--{name}", str(tmp_path / path)
        ])  # fmt: skip


def test_figures_are_saved_before_the_picture_is_drawn(script, saved, vae_processor, text_file, tmp_path, monkeypatch):
    def full_disk(points, path):
        raise OSError("no space left")

    monkeypatch.setattr(script, "plot_rate_distortion", full_disk)
    # The file that is compared may be the one that is written.
    output = tmp_path / "metrics.json"
    output.write_text(json.dumps({"kl": 1.0, "reconstruction": 20.0}), encoding="utf-8")
    with pytest.raises(OSError, match="no space left"):
        script.main([
            str(tmp_path / "model"), "--file", str(text_file), "--importance_samples", "2", "--output_file", str(output),
            "--compare_with", str(output), "--plot_file", str(tmp_path / "plot.png"),
        ])  # fmt: skip
    assert json.loads(output.read_text())["num_examples"] == len(TEXTS)


def test_a_model_of_another_kind_and_a_missing_file_are_named(script, saved, vae_processor, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file none"):
        script.main([str(tmp_path / "model"), "--file", "none.txt"])
    save_language_model(vae_processor, tmp_path / "lm")
    with pytest.raises(ValueError, match="a model of type 'llama', which is not a model of hf_vae"):
        script.main([str(tmp_path / "lm"), "--file", "none.txt"])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 64], ids=["uneven batches", "fewer batches than processes"])
def test_two_processes_give_the_figures_of_one(script, saved, vae_processor, text_file, tmp_path, batch_size):
    save_language_model(vae_processor, tmp_path / "lm")
    arguments = [
        str(tmp_path / "model"), "--file", str(text_file), "--importance_samples", "130", "--refine_steps", "2",
        "--language_model", str(tmp_path / "lm"), "--output_file", str(tmp_path / "metrics.json"),
    ]  # fmt: skip
    one = script.main(arguments)
    # `accelerate launch --cpu` starts one process however many are asked for; torch's launcher starts them.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    command = [*launcher, *arguments, "--batch_size", str(batch_size)]
    run = subprocess.run(command, check=True, timeout=240, env=child_environment(), capture_output=True, text=True)
    # They have shared the work: one of them speaks.
    assert run.stdout.count("Saved to") == 1
    two = json.loads((tmp_path / "metrics.json").read_text())
    assert one.keys() == two.keys() and two["num_examples"] == len(TEXTS)
    for name in one.keys() - {"collapse_report"}:
        assert two[name] == pytest.approx(one[name], abs=1e-4), name
