"""`hf-vae generate`: what it reads, refuses and prints, on one process and on two, and after a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import EXAMPLES, TEXTS, child_environment, listening, load_script, make_model, resized
from hf_vae.bulk import generate_to_file

SCRIPT = EXAMPLES / "generate.py"
SHORT = ["--num_outputs", "2", "--max_new_tokens", "5"]


@pytest.fixture(scope="module")
def script():
    return load_script("generate")


@pytest.fixture
def saved(processor, tmp_path):
    model = listening(resized(make_model("paraphrase-prompt"), processor))
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return model


@pytest.fixture
def arguments(saved, tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return [str(tmp_path / "model"), "--file", str(tmp_path / "in.txt"), "--output", str(tmp_path / "new" / "out.jsonl"), *SHORT]


def test_outputs_are_those_of_the_function_and_the_command_goes_on(script, saved, processor, arguments, tmp_path, capsys):
    output = tmp_path / "new" / "out.jsonl"
    script.main([*arguments, "--max_samples", "3"])
    assert capsys.readouterr().out == f"{output} has the outputs of 3 sources.\n"
    script.main([*arguments])
    assert capsys.readouterr().out == f"{output} has the outputs of 5 sources. 3 of them were there before.\n"
    script.main([*arguments])
    assert "is finished: it has the outputs of all 5 sources. Nothing was generated." in capsys.readouterr().out
    generate_to_file(saved, processor, TEXTS, tmp_path / "own.jsonl", num=2, max_new_tokens=5)
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (output, tmp_path / "own.jsonl")]
    assert [row["outputs"] for row in rows[0]] == [row["outputs"] for row in rows[1]] and len(rows[0]) == 5


def test_tokens_may_be_drawn_too(script, arguments, tmp_path):
    script.main([*arguments, "--do_sample", "--temperature", "0.8", "--top_k", "0", "--seed", "3"])
    settings = json.loads((tmp_path / "new" / "out.jsonl.run").read_text())
    assert settings["do_sample"] is True and settings["temperature"] == 0.8 and settings["top_k"] == 0 and settings["seed"] == 3


@pytest.mark.parametrize(
    "changed, message",
    [
        (["--num", "0"], "`--num_outputs` is 0; it must be at least 1"),
        (["--batch_size", "0"], "`--batch_size` is 0"),
        (["--seed", "4294967296"], "`--seed` is 4294967296; it must be at most"),
        (["--latent_temperature", "-1"], "`--latent_temperature` is -1.0"),
        (["--latent_spread", "foo"], "`--latent_spread` is 'foo'; choose one of"),
        (["--max_samples", "0"], "`--max_samples` is 0"),
        (["--max_length", "2"], "`--max_length` is 2, and the encoder's tokenizer adds 2 special tokens"),
        (["--dtype", "half"], "`--dtype` is 'half'; choose one of 'auto'"),
        (["--output", "out.json"], "does not end in .jsonl"),
        (["--output", "MODEL"], "is a directory; name a file in it"),
        (["--output", "IN/out.jsonl"], "cannot be written: .*in.txt is a file"),
        (["--file", "none.jsonl"], "There is no file none.jsonl"),
        (["--source_column", "x"], "has no column x; it has text"),
        (["--sed", "2"], "--sed .did you mean --seed"),
        (["--model_name_or_path", "./none"], "There is no folder ./none"),
    ],
)
def test_bad_arguments_are_refused_before_the_weights_are_loaded(script, arguments, tmp_path, monkeypatch, changed, message):
    monkeypatch.setattr(script.AutoModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("loaded"))
    changed = [each.replace("MODEL", arguments[0]).replace("IN", arguments[2]) for each in changed]
    start = ["--model_name_or_path", arguments[0]] if "--model_name_or_path" not in changed else []
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        script.main([*start, *arguments[1:], *changed])


def test_a_folder_without_a_model_and_another_model_are_named(script, arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no model that transformers knows: name a folder"):
        script.main([str(tmp_path / "empty"), *arguments[1:]])
    make_model("vae").decoder.lm.save_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match="a model of type 'gpt2', which is not a model of hf_vae"):
        script.main([str(tmp_path / "lm"), *arguments[1:]])
    unknown = json.loads(Path(arguments[0], "config.json").read_text(encoding="utf-8"))
    unknown["decoder"]["model_type"] = "of-tomorrow"
    (tmp_path / "empty" / "config.json").write_text(json.dumps(unknown))
    with pytest.raises(ValueError, match=r"empty holds a model of type '.*', and .* cannot read .*: of-tomorrow\..*: install the"):
        script.main([str(tmp_path / "empty"), *arguments[1:]])
    assert not (tmp_path / "new").exists()


def launched(arguments, *launcher):
    return [sys.executable, *launcher, str(SCRIPT), *arguments]


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(script, arguments, tmp_path):
    sizes = ["--batch_size", "1", "--block_size", "3"]
    script.main([*arguments, *sizes])
    expected = (tmp_path / "new" / "out.jsonl").read_bytes()
    # `accelerate launch --cpu` starts one process however many are asked for; torch's launcher starts them.
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    output = tmp_path / "two.jsonl"
    settings = (tmp_path / "new" / "out.jsonl.run").read_bytes()
    # One has begun it, within the first block, and two go on; or two begin it.
    for begun in (True, False):
        (tmp_path / "two.jsonl.run").write_bytes(settings)
        output.write_bytes(expected[: expected.index(b"\n") + 5] if begun else b"")
        command = launched([*arguments, *sizes, "--output", str(output)], *two)
        run = subprocess.run(command, timeout=240, env=child_environment(), capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        assert run.stdout.count("has the outputs of 5 sources") == 1
        assert output.read_bytes() == expected
    # A mistake ends both.
    refused = launched([*arguments, *sizes, "--output", str(output), "--seed", "5"], *two)
    run = subprocess.run(refused, timeout=240, env=child_environment(), capture_output=True, text=True, check=False)
    assert run.returncode != 0 and "was written with `seed` 0, and now it is 5" in run.stderr
    assert output.read_bytes() == expected


@pytest.mark.slow
def test_a_command_that_was_killed_goes_on(script, arguments, tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(f"{text} {i}" for i in range(60) for text in TEXTS) + "\n", encoding="utf-8")
    output, sizes = tmp_path / "new" / "out.jsonl", ["--batch_size", "2", "--block_size", "4"]
    command = launched([*arguments, *sizes])
    process = subprocess.Popen(command, env=child_environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (output.exists() and output.stat().st_size > 2000):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    there = output.read_bytes()
    assert 0 < there.count(b"\n") < 300
    script.main([*arguments, *sizes])
    resumed = output.read_bytes()
    assert resumed.startswith(there[: there.rindex(b"\n") + 1]) and resumed.count(b"\n") == 300
    script.main([*arguments, *sizes, "--output", str(tmp_path / "once.jsonl")])
    assert (tmp_path / "once.jsonl").read_bytes() == resumed
