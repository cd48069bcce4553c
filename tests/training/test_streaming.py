"""Training data that is read while it is trained on, in all four scripts."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from datasets import IterableDataset
from transformers import AutoModel

from helpers import load_script, trainer_for, write_rows
from hf_vae.cli.arguments import parse_arguments
from hf_vae.cli.train import tokenize_pairs, tokenize_stream
from hf_vae.data import first_pairs, stream_pairs, streaming, texts_of

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "in", "park"]
TEXTS = [" ".join(WORDS[number % 5 : number % 5 + 2 + number % 4]) + f" {number}" for number in range(11)]
PAIRS = [{"source": text, "targets": [f"{text} again", f"so {text}", text]} for text in TEXTS]
TURNS = [[{"speaker": "AB"[i % 2], "text": f"{text} {i}", "act": "xy"[i % 2]} for i in range(3)] for text in TEXTS]
SCRIPTS = {
    "train_vae": ([{"text": text} for text in TEXTS], []),
    "train_paraphrase": (PAIRS, ["--pairing", "all"]),
    "train_cvae": (PAIRS, []),
    "train_dialog": ([{"turns": turns} for turns in TURNS], ["--knowledge_guided", "true"]),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks of a small file."""
    monkeypatch.setattr(streaming, "CHUNK", 4)


def arguments_for(name: str, file: str, tmp_path, *more: str) -> list[str]:
    return [
        "--train_file", file, "--validation_file", file, "--output_dir", str(tmp_path / "out"), "--hidden_size", "16",
        "--vocab_size", "300", "--max_steps", "3", "--per_device_train_batch_size", "4", "--importance_samples", "2", "--use_cpu",
        "--max_test_samples", "4", "--max_new_tokens", "4", "--report_to", "none", "--disable_tqdm", "true",
        "--save_strategy", "no",
        *SCRIPTS[name][1], *more,
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_stream_holds_what_the_whole_file_does_in_its_order(name, encoding, tmp_path):
    script = load_script(name)
    file = write_rows(tmp_path / "rows.jsonl", SCRIPTS[name][0])
    Path(file).write_text(Path(file).read_text(encoding="utf-8"), encoding=encoding)
    classes = {"train_vae": "ModelArguments", "train_dialog": "DialogArguments", "train_cvae": "CVAEArguments"}
    model_class = getattr(script, classes.get(name, "ConditionalArguments"))
    argv = arguments_for(name, file, tmp_path, "--encoding", encoding)
    classes = (model_class, script.DataArguments, script.EvaluationArguments)
    parsed = parse_arguments(classes, argv, name.removeprefix("train_"), "out")
    model_args, data_args = parsed[0], parsed[1]
    if name == "train_vae":
        texts = script.load_data(data_args, 4, 0)["train"]
        expected = [{"source": text, "target": text} for text in texts]
        stream = script.stream_train(data_args)
    elif name == "train_dialog":
        expected = list(script.load_data(data_args, 4, 0)[0])
        stream = script.stream_train(data_args, model_args.knowledge_guided)
        assert {row["source"]["act"] for row in script.stream_train(data_args, False)} == {None}
    else:
        expected = list(script.load_data(data_args, 4, 0)[0])
        stream = script.stream_train(data_args)
    assert len(expected) > 10
    assert list(stream) == expected
    # A second reading begins anew, and the first rows are the first ones.
    assert list(stream) == expected
    assert list(first_pairs(stream, 5)) == expected[:5]


def test_batches_of_a_stream_are_those_of_the_data_set(vae_processor, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    stream = stream_pairs(file, lambda rows, first: [{"source": t, "target": t} for t in texts_of(rows, file, "text", first)])
    whole = tokenize_pairs(vae_processor, {"train": first_pairs(stream, 100)}, max_length=8)["train"]
    tokenized = tokenize_stream(vae_processor, stream, shuffle_buffer=1, seed=0, max_length=8)
    assert isinstance(tokenized, IterableDataset)
    assert set(tokenized.column_names) == set(whole.column_names)
    loaders = []
    for data in (whole, tokenized):
        trainer = trainer_for(Stub(), vae_processor, tmp_path, train_sampling_strategy="sequential")
        trainer.train_dataset = data
        loaders.append(list(itertools.islice(trainer.get_train_dataloader(), 6)))
    # A pass has 11 rows, and the stream goes on with the next one.
    assert len(loaders[0]) == len(loaders[1]) == 6
    loaders = [batches[:5] for batches in loaders]
    for expected, found in zip(*loaders):
        assert expected.keys() == found.keys()
        for key in expected:
            assert torch.equal(expected[key], found[key]), key
    shuffled = tokenize_stream(vae_processor, stream, shuffle_buffer=5, seed=0, max_length=8)
    unshuffled = [tuple(row["labels"]) for row in tokenized.take(11)]
    two_passes = [[tuple(row["labels"]) for row in shuffled.take(22)] for _ in range(2)]
    # The same draws whenever it is read, others in the second pass, and no row lost.
    assert two_passes[0] == two_passes[1]
    orders = [two_passes[0][:11], two_passes[0][11:]]
    assert orders[0] != orders[1] and unshuffled not in orders
    assert all(sorted(order) == sorted(unshuffled) for order in orders)


class Stub(torch.nn.Module):
    """What the Trainer asks of a model before it trains it."""

    accepts_loss_kwargs = True

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, labels=None):
        return None


@pytest.mark.parametrize("name", [each if each == "train_vae" else pytest.param(each, marks=pytest.mark.slow) for each in SCRIPTS])
def test_a_script_trains_on_a_stream(name, tmp_path):
    script = load_script(name)
    file = write_rows(tmp_path / "rows.jsonl", SCRIPTS[name][0])
    stages = ["--latent_free_steps", "1", "--posterior_fit_steps", "1", "--encoder_pretraining_steps", "1"]
    more = ["--streaming", "--shuffle_buffer", "4", "--first_rows", "6", *stages]
    more += ["--with_baseline"] if name == "train_vae" else ["--max_source_length", "24"]
    metrics = script.main(arguments_for(name, file, tmp_path, *more))
    assert metrics["iw_nll"] > 0
    assert AutoModel.from_pretrained(tmp_path / "out").config.latent_size == 32
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert any("kl" in entry for entry in log)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max_steps", "-1"], "`--max_steps`"),
        (["--max_train_samples", "3"], "`--max_train_samples` counts rows"),
        (["--aggressive_encoder", "--eval_strategy", "steps"], "`--aggressive_encoder` draws further examples"),
        (["--shuffle_buffer", "0"], "`--shuffle_buffer` is 0"),
        (["--first_rows", "1"], "`--first_rows` is 1"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(more, message, tmp_path):
    script = load_script("train_vae")
    file = write_rows(tmp_path / "rows.jsonl", SCRIPTS["train_vae"][0])
    with pytest.raises(ValueError, match=message):
        script.main(arguments_for("train_vae", file, tmp_path, "--streaming", *more))
    with pytest.raises(ValueError, match="`--streaming` reads data of your own"):
        script.main(["--streaming", "--output_dir", str(tmp_path / "out"), "--use_cpu"])
    assert not (tmp_path / "out").exists()


def test_bad_rows_are_named_by_their_number_in_the_file(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [*({"text": text} for text in TEXTS[:9]), {"text": " "}])
    stream = stream_pairs(file, lambda rows, first: [{"source": t, "target": t} for t in texts_of(rows, file, "text", first)])
    with pytest.raises(ValueError, match=r"no text in 1 row\(s\), counted from 1: 10"):
        list(stream)
    with pytest.raises(FileNotFoundError, match=r"no file none\.txt"):
        stream_pairs("none.txt", lambda rows, first: [])
    with pytest.raises(ValueError, match="holds no pair"):
        first_pairs(stream_pairs(file, lambda rows, first: []), 3)


@pytest.mark.parametrize("name", ["rows.txt", "rows.csv", "rows.tsv", "rows.jsonl", "rows.json"])
def test_a_stream_goes_on_where_it_was_left(name, tmp_path):
    rows = [json.dumps({"text": text}) for text in TEXTS]
    contents = {"jsonl": "\n".join(rows), "json": f"[{', '.join(rows)}]", "txt": "\n".join(TEXTS)}
    file = tmp_path / name
    file.write_text(contents.get(file.suffix[1:], "\n".join(["text", *TEXTS])), encoding="utf-8")

    def stream():
        def as_pairs(rows, first):
            return [{"source": text, "target": text} for text in texts_of(rows, name, "text", first)]

        return stream_pairs(str(file), as_pairs)

    first = stream()
    reading = iter(first)
    read = [next(reading)["target"] for _ in range(6)]
    rest = stream()
    rest.load_state_dict(first.state_dict())
    assert read + [row["target"] for row in rest] == TEXTS
