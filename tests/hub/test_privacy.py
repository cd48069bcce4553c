"""Nothing of the machine and no secret is published; what the data says is shown as text."""

import io
import json
import math
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, RepoUrl
from transformers import TrainingArguments

from helpers import EXAMPLES, make_model
from hf_vae.cli.arguments import parse_arguments
from hf_vae.cli.report import write_report
from hf_vae.cli.tasks.cvae import CVAETask
from hf_vae.cli.tasks.dialog import DialogTask
from hf_vae.cli.tasks.vae import VAETask
from hf_vae.cli.train import settle_arguments, start_run
from hf_vae.hub import Repository, RunRecord, make_model_card, run_record, upload_model
from hf_vae.hub.markdown import LONGEST, as_text, code_block
from hf_vae.hub.privacy import _TEXTS, HIDDEN, check_upload, files_to_upload, public_command, public_value
from hf_vae.options.model import ConditionalArguments, ModelArguments
from hf_vae.options.report import ReportArguments

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz01234567"


def told(*argv):
    return shlex.split(public_command("examples/train_vae.py", argv))[3:]


@pytest.mark.parametrize("option", ["--hub_token", "--hub_tok", "--hub-token", "--hub-tok", "--push_to_hub_token", "--api_key"])
def test_a_token_is_hidden_however_it_is_given(option):
    assert told("--seed", "1", option, TOKEN, "--seed", "2") == ["--seed", "1", option, HIDDEN, "--seed", "2"]
    assert told(f"{option}={TOKEN}", "--seed", "2") == [f"{option}={HIDDEN}", "--seed", "2"]
    # The first of two is no less a token.
    assert TOKEN not in told(option, TOKEN, option, "another")


def test_what_is_no_secret_is_told():
    plain = ["--push_to_hub", "--hub_model_id", "someone/mine", "--token_noise", '{"drop": 0.1}', "--tokenizer_type", "word"]
    plain += ["--encoder_name_or_path", "google-bert/bert-base-cased", "--decoder_name_or_path", "Qwen/Qwen2.5-0.5B", "--bf16"]
    plain += ["--lora", '{"target_modules": "(encoder\\\\..*\\\\.(query|value))|(decoder\\\\.lm\\\\..*\\\\.c_attn)"}']
    plain += ["--learning_rate", "-1e-3", "--kl_schedule_options", '{"steps": 10}', "--latent_injection", "memory", "embedding"]
    assert told(*plain) == plain


@pytest.mark.parametrize(
    "option, text",
    [
        ("--prompt_template", "[INST] {source} [/INST]"), ("--prompt_template", "Question/Answer: {source}"),
        ("--prompt_template", '{"question": "{source}", "answer/s":'), ("--prompt_template", "--Q/A: {source}="),
        ("--prompt-template", "https://{source}"), ("--prompt", r"C:\{source}"), ("--decoder_start_token", "</s>"),
        ("--decoder-start-tok", "</s>"), ("--text_column", "of/text"), ("--source_column", "~"), ("--label_names", "/y"),
    ],
)  # fmt: skip
def test_text_is_no_path_and_no_secret(option, text):
    assert told(option, text, "--train_file", "/a/b") == [option, text, "--train_file", "b"]
    assert told(f"{option}={text}", "/a/b", "--hub_token", "x") == [f"{option}={text}", "b", "--hub_token", HIDDEN]
    assert told(option, f"{text} {TOKEN}", f"{option}={TOKEN}") == [option, f"{text} {HIDDEN}", f"{option}={HIDDEN}"]


def test_the_arguments_that_are_texts_are_those_of_trainings():
    known = {each.name for task in (VAETask, CVAETask, DialogTask) for arguments in task.arguments for each in fields(arguments)}
    assert known | {each.name for each in fields(TrainingArguments)} >= _TEXTS


def test_several_texts_of_an_option_are_texts():
    assert told("--meta_columns", "a/b", "c/d", "--hub_tok", "x") == ["--meta_columns", "a/b", "c/d", "--hub_tok", HIDDEN]
    assert public_value({"meta_columns": ["a/b", TOKEN], "mask_token": "x"}) == {
        "meta_columns": ["a/b", HIDDEN],
        "mask_token": HIDDEN,
    }


def test_a_record_shows_texts_as_they_were_given(tmp_path):
    texts = {"prompt_template": "Question/Answer: {source} [/INST]", "decoder_start_token": "</s>"}
    training_args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    record = run_record("t.py", [], ConditionalArguments(**texts), training_args, None, "", metrics={}, measured_on="")
    assert {name: record.training[name] for name in texts} == texts


def test_files_and_folders_go_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice" / "private").mkdir(parents=True)
    words = ["/home/alice/recipe.yaml", "--train_file", "/home/alice/my data/train.txt", "--test_file=/home/alice/test.txt"]
    words += ["--validation_file", "~/data/valid.txt", "--output_dir", "../alice/out", "--logging_dir", "alice/private"]
    words += ["--lora", '{"path": "/home/alice/x.json", "r": 2, "each": ["/home/alice/y"]}', r"--run_name=C:\Users\alice\run"]
    words += ["--other", "https://alice:secret@host/data.csv?sig=secret", "--logs", "a/b/c/"]
    assert told(*words) == [
        "recipe.yaml", "--train_file", "train.txt", "--test_file=test.txt", "--validation_file", "valid.txt",
        "--output_dir", "out", "--logging_dir", "private", "--lora", '{"path": "x.json", "r": 2, "each": ["y"]}',
        "--run_name=run", "--other", "data.csv", "--logs", "c",
    ]  # fmt: skip
    # Not every command has a `--text_column`.
    assert told("--te", "/home/alice/test.txt", "--tex", "a/b") == ["--te", "test.txt", "--tex", "a/b"]
    assert public_value(str(Path.home())) == public_value("~") == "~"
    assert public_value({"a": [1, "/x/y"], "hub_token": TOKEN}) == {"a": [1, "y"], "hub_token": HIDDEN}


def test_a_run_s_record_names_no_place_of_this_machine(tmp_path):
    private = tmp_path / "alice" / "private"
    private.mkdir(parents=True)
    model_args = ModelArguments(encoder_name_or_path=str(private), lora=json.dumps({"r": 2, "path": str(private / "x")}))
    training_args = TrainingArguments(output_dir=str(private / "out"), report_to="none", use_cpu=True)
    argv = ["--train_file", str(private / "train.txt"), "--hub_token", TOKEN]
    record = run_record(
        "examples/train_vae.py", argv, model_args, training_args, argv[1], "", metrics={"kl": 1.0}, measured_on="Nowhere."
    )
    assert record.name == "out" and record.dataset == "train.txt"
    card = make_model_card(make_model("vae"), record).content
    assert "alice" not in card and TOKEN not in card and str(tmp_path) not in card and "# out\n" in card


@pytest.mark.parametrize(
    "place, name",
    [
        ("https://alice:secret@host/a/data.jsonl?sig=secret", "data.jsonl"), ("https://alice:secret@host/data", "data"),
        (r"C:\Users\alice\data", "data"), ("~alice/data.txt", "data.txt"), ("../alice/data", "data"),
    ],
)  # fmt: skip
def test_a_place_is_the_name_of_no_repository(place, name, tmp_path):
    model_args = ModelArguments(encoder_name_or_path=place, decoder_name_or_path="someone/decoder-v1.1")
    training_args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    record = run_record("train.py", [], model_args, training_args, place, "", metrics={"kl": 1.0}, measured_on="")
    assert (record.dataset, record.dataset_ids, record.base_models) == (name, [], ["someone/decoder-v1.1"])


def test_a_user_without_a_home_folder_has_a_card_too(folder, monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert told("--train_file", "/data/x.txt", "--logs", "~alice") == ["--train_file", "x.txt", "--logs", "~"]
    assert told("--run_name", f"by {TOKEN}") == ["--run_name", f"by {HIDDEN}"]
    check_upload(folder, TOKEN)


@pytest.mark.parametrize("how", ["option", "abbreviation", "recipe"])
def test_the_trainer_s_arguments_hold_no_token(how, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"hub_token": TOKEN} if how == "recipe" else {"seed": 1}))
    argv = [str(recipe), "--report_to", "none", "--use_cpu"]
    argv += {"option": ["--hub_token", TOKEN], "abbreviation": [f"--hub_tok={TOKEN}"], "recipe": []}[how]
    model_args, report_args, training_args = parse_arguments((ModelArguments, ReportArguments), argv, "vae", str(tmp_path))
    assert training_args.hub_token == TOKEN
    report_args.with_baseline = False
    assert start_run(model_args, training_args, report_args)[1] is None
    settle_arguments(training_args, streaming=False)
    pickled = io.BytesIO()
    torch.save(training_args, pickled)
    assert TOKEN.encode() not in pickled.getvalue() and training_args.hub_token is None


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "alice" / "out"
    kept = ["config.json", "README.md", "model.safetensors", "encoder_tokenizer/tokenizer.json", "modeling_vae.py", "latent.png"]
    left = ["checkpoint-3/optimizer.pt", "adapter/checkpoint-1/rng_state.pth", "runs/a/events.out.tfevents.1", "stages/x/model.bin"]
    left += [".env", ".cache/x.json", "adapter/.DS_Store", "__pycache__/a.pyc", "training_args.bin", "trainer_state.json"]
    for name in [*kept, *left]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_only_what_belongs_to_the_model_is_uploaded(folder):
    check_upload(folder, TOKEN)
    assert set(files_to_upload(folder)) == {
        "config.json", "README.md", "model.safetensors", "encoder_tokenizer/tokenizer.json", "modeling_vae.py", "latent.png"
    }  # fmt: skip


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("README.md", f"pushed with {TOKEN}.", "README.md holds your token"),
        ("encoder_tokenizer/tokenizer_config.json", '{"path": "PLACE/x"}', "tokenizer_config.json holds the path of the output"),
        ("adapter/adapter_config.json", '{"base": "HOME/models/x"}', "adapter_config.json holds the path of your home folder"),
        (
            "adapter/adapter_config.json",
            '{"base_model_name_or_path": "/data/base"}',
            "adapter_config.json holds a path for the name",
        ),
        ("notes", "of somebody: hf_" + "aB3" * 12, "notes holds a token of the Hub"),
        ("config.json", json.dumps({"place": "/home/alice/caf\u00e9"}), "config.json holds the path of your home folder"),
        ("config.json", '{"from": "file://QUOTED/x"}', "config.json holds the path of the output folder"),
        ("adapter/README.md", "---\nbase_model:\n- /data/base\n---", "adapter/README.md holds a path for the name"),
        ("adapter/README.md", "---\nbase_model: ./base\n---", "adapter/README.md holds a path for the name"),
        ("notes", "environment: hf_of_the_environment", "notes holds the token of this machine"),
        ("adapter/more.pt", "x", r"adapter/more.pt is a pickle, .* save it as safetensors"),
        ("pytorch_model.bin", "x", "pytorch_model.bin is a pickle"),
    ],
)
def test_what_would_betray_something_is_not_uploaded(folder, name, content, message, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    monkeypatch.setenv("HOME", "/home/alice")
    folder = folder.rename(folder.with_name("sortie \u00e9"))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(
        content.replace("QUOTED", quote(str(folder))).replace("PLACE", str(folder)).replace("HOME", "/home/alice")
    )
    with pytest.raises(ValueError, match=message) as refused:
        upload_model(Repository("someone/mine", TOKEN), folder)
    assert TOKEN not in str(refused.value) and "hf_of_the_environment" not in str(refused.value)
    assert TOKEN not in repr(Repository("someone/mine", TOKEN))


def test_a_word_that_only_contains_a_token_or_a_place_is_none(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/al")
    (folder / "README.md").write_text(f"/home/alice/x x{TOKEN} {folder}x")
    check_upload(folder, TOKEN)


@pytest.mark.slow
def test_a_training_publishes_neither_token_nor_paths(tmp_path, monkeypatch):
    sys.path.insert(0, str(EXAMPLES))
    import train_vae

    private = tmp_path / "alice" / "private"
    private.mkdir(parents=True)
    text, recipe = private / "texts.txt", private / "recipe.yaml"
    text.write_text(
        "\n".join(f"the {a} saw the {b} ." for a in ("farmer", "baker", "king") for b in ("lamp", "dog", "house")) + "\n"
    )
    recipe.write_text(
        yaml.safe_dump({"max_steps": 2, "vocab_size": 300, "hidden_size": 16, "latent_size": 4, "num_attention_heads": 2})
    )
    published = {}

    class Api:
        def __init__(self, token):
            assert token == TOKEN

        def create_repo(self, name, private, exist_ok):
            return RepoUrl("https://hub.invalid/someone/mine", endpoint="https://hub.invalid")

        def upload_folder(self, repo_id, folder_path, ignore_patterns):
            published.update({name: (folder_path / name).read_bytes() for name in files_to_upload(folder_path)})

    monkeypatch.setattr("hf_vae.hub.publishing.HfApi", Api)
    argv = [str(recipe), "--train_file", str(text), f"--validation_file={text}", "--output_dir", str(private / "out")]
    argv += ["--save_steps", "1", "--per_device_train_batch_size", "4", "--importance_samples", "2", "--max_new_tokens", "4"]
    argv += ["--report_to", "none", "--use_cpu", "--hub_model_id", "someone/mine", "--push_to_hub", "--hub_tok", TOKEN]
    train_vae.run("train vae", argv)
    assert {"README.md", "config.json", "metrics.json", "model.safetensors"} <= set(published)
    for name, content in published.items():
        assert b"alice" not in content and str(tmp_path).encode() not in content and TOKEN.encode() not in content, name
        assert Path(name).suffix not in (".bin", ".pt", ".pth", ".pkl")
    # Pickled with each checkpoint, and without the token.
    left = [path for path in private.rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in left)
    assert not [path for path in left if TOKEN.encode() in path.read_bytes()]


HOSTILE = [
    "<img src=x onerror=alert(1)>", "![p](http://evil.example/p.png)", "[a](http://evil.example)", "http://evil.example", "a `b` c",
    "www.evil.example", "a | b", "---", "- x", "1. x", "# x", "> x", "{{ 7 * 7 }}", "{% raw %}",
    "&lt;b&gt; &amp;", "*a* _b_ ~~c~~", "$$x$$",
    "a\n\n---\n\n# b", "\\<b\\>", "<!-- x", "```\nx", "@someone", "</td></table>", "=== x", "| --- |",
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE)
def test_what_comes_from_outside_is_shown_as_it_is(data):
    record = RunRecord(
        data, f"run {data}", data, {"kl": 1.0}, data, {data: data, "more": [data]}, samples=[(data, [data, "plain"])], language="en"
    )
    card = make_model_card(make_model("vae"), record)
    # Metadata and text are two, and say the same.
    line = " ".join(data.split())
    metadata = yaml.safe_load(card.content.split("\n---\n")[0].removeprefix("---\n"))
    assert metadata["model-index"][0]["name"] == line == ModelCard(card.content).data.eval_results[0].dataset_name
    tokens = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card.text)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in [*tokens, *inline]}
    assert not kinds & {"html_block", "html_inline", "image", "link_open", "hr", "s_open", "blockquote_open", "ordered_list_open"}
    shown = ["".join(child.content for child in token.children or ()) for token in tokens if token.type == "inline"]
    assert shown.count(line) == 6 and "plain" in shown and f"Trained on {line}." in shown
    assert [token.tag for token in tokens if token.type == "heading_open"].count("h1") == 1
    [command] = [token.content for token in tokens if token.type == "fence" and token.content.startswith("run ")]
    assert command == f"run {data}\n"


def test_a_card_is_written_whatever_was_measured_and_said(tmp_path):
    """Half a character, as JSON files hold; figures that are no numbers, or numbers of other libraries."""
    metrics = {"kl": torch.tensor(1.5), "elbo": math.nan, "bleu": None, "chrf": np.float32(2.5), "ter": np.float32("inf")}
    record = RunRecord("n", "c", "d", metrics, "m", {}, baseline={"kl": None}, samples=[("half \ud83d", ["\ud83d"])])
    written = write_report(make_model("vae"), record, tmp_path, {})
    assert written == {"kl": 1.5, "elbo": None, "bleu": None, "chrf": 2.5, "ter": None}
    card = ModelCard.load(tmp_path / "README.md")
    assert "half ?" in card.text and "| nan |" in card.text
    assert {each.metric_type: each.metric_value for each in card.data.eval_results} == {"kl": 1.5, "chrf": 2.5}


def test_text_stays_on_its_line():
    assert as_text('no, she said: "it\'s 3.5 m - or 4" (free_bits)!') == 'no, she said: "it\'s 3.5 m - or 4" (free_bits)!'
    assert as_text(" a \n\t b ") == "a b" and as_text("") == as_text(" \n") == "(empty)"
    long = RunRecord("n", "c", "d", {"kl": 1.0}, "m", {}, samples=[("x" * 10_000, ["y" * 10_000])])
    assert len(make_model_card(make_model("vae"), long).content) < 8_000
    assert len(as_text("x" * 10_000)) == LONGEST and as_text("word " * 1_000).endswith(" …")
    assert code_block("a\n````\nb").startswith("`````\n")
