"""The benchmarks' statistics, their records, and every case at a toy size."""

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from benchmarks.__main__ import main, settle
from benchmarks.cases import CASES, DEFAULTS, langvae, quality, ragged_text, read_once, scaling
from benchmarks.comparison import Row, compare, interleave, interquartile_range, skipped, summarise
from benchmarks.models import make_decoder, make_vae
from benchmarks.options import Options
from benchmarks.report import markdown
from benchmarks.sizes import SIZES
from helpers import ROOT

FIELDS = {"case", "ours", "theirs", "ratio", "spread", "unit", "against", "target", "better", "repeats", "note", "reached"}
TOY = Options(sizes=("toy",), threads=1, repeats=2, quick=True)


def test_the_sides_take_turns_and_the_first_pair_does_not_count():
    order = []

    def side(name, costs):
        values = iter(costs)
        return lambda: order.append(name) or next(values)

    ours, theirs = interleave(side("A", [9.0, 1.0, 2.0]), side("B", [9.0, 3.0, 4.0]), repeats=2)
    assert (ours, theirs) == ([1.0, 2.0], [3.0, 4.0])
    assert "".join(order) == "ABABAB"


def test_the_ratio_is_the_median_of_the_pairs_ratios_and_not_the_medians_ratio():
    # The second pair ran on a disturbed machine: both sides took ten times as long.
    row = summarise("x", [1.0, 20.0, 3.0], [2.0, 10.0, 4.0], unit="s", against="y", target=0.8)
    assert row.ratio == statistics.median([0.5, 2.0, 0.75]) == 0.75
    assert (row.ours, row.theirs) == (3.0, 4.0)
    # Of 0.5, 0.75, 2.0 the quartiles lie halfway between neighbours: 0.625 and 1.375.
    assert row.spread == pytest.approx(0.75)
    assert row.reached is True and row.better == "lower" and row.repeats == 3


def test_seconds_become_a_throughput_of_which_more_is_better():
    row = summarise("x", [2.0, 4.0], [4.0, 4.0], per=8, unit="items/s", against="y", target=2.0)
    assert (row.ours, row.theirs) == (3.0, 2.0)
    assert row.ratio == 1.5 and row.better == "higher" and row.reached is False


def test_the_spread_of_a_single_value_is_none_and_of_five_the_middle_halfs():
    assert interquartile_range([7.0]) == 0.0
    assert interquartile_range([1.0, 2.0, 3.0, 4.0, 100.0]) == 2.0


def test_what_is_no_comparison_is_refused():
    with pytest.raises(ValueError, match=r"`repeats` is 0; a comparison needs at least one pair"):
        interleave(lambda: 1.0, lambda: 1.0, repeats=0)
    with pytest.raises(ValueError, match=r"2 and 1 measurements are no pairs"):
        summarise("x", [1.0, 2.0], [1.0], unit="s", against="")
    with pytest.raises(ValueError, match=r"`better` is 'more'"):
        Row("x", 1.0, 1.0, 1.0, 0.0, "s", "", better="more")


def test_a_comparison_takes_the_time_of_the_work_itself(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("benchmarks.comparison.time.perf_counter", lambda: now[0])

    def work(lasts: float):
        return lambda: now.__setitem__(0, now[0] + lasts)

    row = compare("x", work(0.5), work(0.25), Options(repeats=4), against="half of it", target=1.0)
    assert (row.ours, row.theirs, row.ratio, row.spread, row.repeats, row.unit) == (0.5, 0.25, 2.0, 0.0, 4, "s")


def test_the_table_tells_what_was_reached_and_with_what():
    rows = [
        Row("a", 1.234567, 1.0, 1.234567, 0.01, "s", "b", target=1.03, repeats=7),
        Row("c", 5000.0, 1000.0, 5.0, 0.1, "tokens/s", "d", target=1.5, better="higher"),
        skipped("e", "no peer"),
    ]
    text = markdown(rows, Options(seed=3), "python -m benchmarks")
    assert "| a | 1.23 | 1 b | s | 1.235 | 0.01 | ≤ 1.03 | **missed** |" in text
    assert "| c | 5,000 | 1,000 d | tokens/s | 5.000 | 0.1 | ≥ 1.5 | reached |" in text
    assert "skipped: no peer" in text
    for made_with in ("`python -m benchmarks`", "2 threads", "float32", "z by embedding", "torch 2.", "transformers 5.", "seed 3"):
        assert made_with in text


def test_the_runner_writes_records_and_a_table(tmp_path, capsys):
    files = ["--output", str(tmp_path / "results.json"), "--markdown", str(tmp_path / "results.md")]
    main(["--sizes", "toy", "--threads", "1", "--quick", "--repeats", "1", "--cases", "langvae", "ragged_text", *files])
    records = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [set(record) for record in records] == [FIELDS, FIELDS]
    assert records[0]["ratio"] is None and records[0]["note"].startswith("skipped: no --langvae_python")
    assert records[1]["ratio"] > 0 and records[1]["unit"] == "target tokens/s"
    assert "python -m benchmarks --sizes toy" in (tmp_path / "results.md").read_text(encoding="utf-8")
    assert records[1]["case"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "speed"], r"`--cases` is 'speed'; choose one of 'training_step'"),
        (["--sizes", "huge"], r"`--sizes` is 'huge'; choose one of 'toy', 'small'"),
        (["--latent_injection", "telepathy"], r"`--latent_injection` is 'telepathy'"),
        (["--dtype", "float8"], r"`--dtype` is 'float8'; choose one of 'float32', 'bfloat16'"),
        (["--threads", "0"], r"`--threads` is 0; it must be at least 1"),
        (["--repeats", "0"], r"`--repeats` is 0; it must be at least 1"),
        (["--device", "tpu"], r"`--device` is 'tpu'; choose one of 'cpu', 'cuda'"),
        (["--langvae_python", "nowhere/python"], r"`--langvae_python` nowhere/python is no file"),
        (["--ragged_file", "nowhere.txt"], r"`--ragged_file` nowhere.txt is no file"),
        (["--synthetic_dir", "nowhere"], r"`--synthetic_dir` nowhere holds no train.txt"),
        (["--output", "nowhere/results.json"], r"`--output` nowhere/results.json: there is no folder nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_measured(arguments, message):
    with pytest.raises(ValueError, match=message):
        settle(arguments)


def test_quick_takes_one_size_and_few_pairs():
    _, options = settle(["--quick"])
    assert options.sizes == ("small",) and options.repeats == 3
    _, options = settle([])
    assert options.sizes == ("small", "medium") and options.repeats == 7 and options.threads == 2


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in DEFAULTS if name not in ("quality", "langvae", "read_once")])
def test_every_case_runs(case):
    rows = list(CASES[case].run(TOY))
    assert rows and all(row.ratio > 0 and row.ours > 0 and row.theirs > 0 for row in rows)
    assert len({row.case for row in rows}) == len(rows)


@pytest.mark.slow
def test_every_row_of_reading_once_has_a_ratio_and_a_target(monkeypatch, tmp_path):
    def peak(case, function, options, **arguments):
        assert (case, function) == ("read_once", "generating")
        read_once.generating(options, **arguments)()
        return 1.0

    monkeypatch.setattr(read_once, "peak_memory", peak)
    rows = list(read_once.run(replace(TOY, plots=str(tmp_path))))
    assert all(row.ratio > 0 and row.ours > 0 and row.theirs > 0 and isinstance(row.target, float) for row in rows)
    # Two bounds, time and memory of two batches, an evaluation, four that read no source or read it once, and the growth.
    assert len({row.case for row in rows}) == len(rows) == 2 + 4 + 1 + 4 + 1
    assert (tmp_path / "read_once.svg").stat().st_size > 1000


def test_both_placements_have_the_same_weights_and_read_texts_of_the_lengths_that_are_named():
    ours, theirs = (read_once.evaluator_of(TOY, placement, source=30, target=7) for placement in (read_once.OURS, read_once.THEIRS))
    assert [each.model.config.latent_placement for each in (ours, theirs)] == ["after_source", "before_source"]
    of_theirs = theirs.model.state_dict()
    assert all(torch.equal(weight, of_theirs[name]) for name, weight in ours.model.state_dict().items())
    inputs = ours.processor(ours.texts, ours.targets, **ours.processor_options)
    assert inputs["prompt_attention_mask"].sum(1).tolist() == [30] * read_once.EXAMPLES
    assert (inputs["labels"] != -100).sum(1).tolist() == [7] * read_once.EXAMPLES


def test_the_plot_of_reading_once_is_the_same_from_the_same_numbers(tmp_path):
    sides = {"ours": [1.0, 2.0, 3.0], "theirs": [2.0, 4.0, 6.5]}
    for file in ("one.svg", "two.svg"):
        read_once.plot(tmp_path / file, (10, 20, 30), sides)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert read_once.slope((10, 20, 30), sides["ours"]) == pytest.approx(0.1)


def test_length_groups_pad_less_and_leave_no_text_out():
    ours, theirs, target_tokens = ragged_text.batches(TOY, measured=8, batch_size=8, vocabulary=300)
    counted = [sum(int((batch["labels"] != -100).sum()) for batch in side) for side in (ours, theirs)]
    assert counted == [target_tokens, target_tokens]
    assert all(batch["labels"].shape == (8, ragged_text.MAX_LENGTH) for batch in theirs)
    assert sum(batch["labels"].numel() for batch in ours) < 1.15 * target_tokens


def test_a_size_of_the_scaling_leaves_no_trace(tmp_path):
    before = dict(SIZES)
    scaling.measure(TOY, "layers", (1, 2))
    assert before == SIZES
    scaling.plot(tmp_path / "new" / "plot.png", "layers", (1, 2), ([1.0, 2.0], [1.0, 1.9]), ("ours", "theirs"))
    assert (tmp_path / "new" / "plot.png").stat().st_size > 1000


def test_a_quality_is_timed_until_it_is_there_or_time_is_up():
    data = quality.corpus(TOY, 60)
    reached, nll, seen = quality.seconds_to(TOY, data, threshold=1e9, longest=60.0)
    assert reached > 0 and nll < 1e9 and 0 < seen <= 60
    reached, nll, _ = quality.seconds_to(TOY, data, threshold=0.0, longest=0.0)
    assert reached is None and nll > 0


PEER = """
import json, sys
settings = json.load(open(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    if line.startswith("fail"):
        sys.exit("out of order")
    print(settings["seconds"], flush=True)
"""


def fake_peer(tmp_path, monkeypatch, seconds: float) -> langvae.Peer:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "langvae_side.py").write_text(PEER)
    monkeypatch.setattr(langvae, "ROOT", tmp_path)
    return langvae.Peer(Options(langvae_python=sys.executable), {"seconds": seconds})


def test_a_peer_answers_in_turn_and_its_failure_is_told(tmp_path, monkeypatch):
    peer = fake_peer(tmp_path, monkeypatch, 0.25)
    assert [peer.ask("train"), peer.ask("generate 3")] == [0.25, 0.25]
    with pytest.raises(RuntimeError, match=r"LangVAE's process ended: out of order"):
        peer.ask("fail")
    peer.close()
    assert peer.process.returncode == 1


@pytest.mark.slow
def test_the_rows_against_langvae(monkeypatch):
    """With a peer that takes a second for everything."""

    class Slow:
        def __init__(self, options, settings):
            assert settings["max_length"] == langvae.MAX_LENGTH and len(settings["texts"]) == 200

        ask = staticmethod(lambda command: 1.0)
        close = staticmethod(lambda: None)

    monkeypatch.setattr(langvae, "MAX_LENGTH", 100)
    longest: dict = {}

    def watched(make):
        """What it makes, telling how long its texts are."""

        def made(size, options):
            model = make(size, options)
            generate = model.generate

            def watching(*args, **kwargs):
                sequences = generate(*args, **kwargs)
                longest[make].append(sequences.shape[1] - 1)
                return sequences

            model.generate = watching
            return model

        return made

    for make in (make_vae, make_decoder):
        longest[make] = []
        monkeypatch.setattr(langvae, make.__name__, watched(make))
    monkeypatch.setattr(langvae, "Peer", Slow)
    rows = list(langvae.run(Options(sizes=("toy",), threads=1, repeats=1, quick=True, langvae_python=sys.executable)))
    assert [row.theirs for row in rows] == [200.0, 200.0, 200.0, 1.0, 1.0, 50.0, 50.0]
    # Ours stop where the texts stop, and not where the peer does.
    assert all(lengths and max(lengths) < langvae.MAX_LENGTH for lengths in longest.values())
    assert all(row.ratio == pytest.approx(row.ours / row.theirs) for row in rows)


def test_a_row_of_generation_ends_where_it_is_told_to():
    model = langvae.make_vae(SIZES["toy"], TOY).eval()
    lengths = torch.tensor([2, 5])
    ends = langvae.LogitsProcessorList([langvae.EndAt(lengths, 2)])
    sequences = model.generate(num_samples=2, do_sample=False, max_new_tokens=8, logits_processor=ends)
    assert (sequences[:, 1:] == 2).int().argmax(1).tolist() == [1, 4]
    assert isinstance(model.decoder.lm, GPT2LMHeadModel)


GPU_SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def gpu_script(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = ["bash", str(GPU_SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a folder for the results"),
        (["out", "other"], "one folder for the results, not both out and other"),
        (["out", "--speed"], "there is no option --speed"),
        (["out", "--parts"], "--parts wants a value"),
        (["out", "--parts", "tests train"], "--parts names train; choose of tests, benchmarks, recipe"),
        (["out", "--recipe", "nowhere.yaml"], "--recipe nowhere.yaml is no file"),
        (["out"], "the recipe needs --data"),
        (["out", "--data", "nowhere"], "--data nowhere holds no train.jsonl"),
    ],
)
def test_the_script_for_a_gpu_refuses_what_it_cannot_run_and_writes_nothing(tmp_path, arguments, message):
    done = gpu_script(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_dry_and_goes_on_after_a_part_that_fails(tmp_path):
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\n[ "$2" = pytest ] && exit 3\nexec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    done = gpu_script("out", "--dry-run", "--python", str(program), cwd=tmp_path)
    assert done.returncode == 1
    summary = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in summary] == [
        "tests: exit status 3",
        "benchmarks_toy: exit status 0",
        "recipe: exit status 0",
    ]
    rows = json.loads((tmp_path / "out" / "benchmarks_toy.json").read_text(encoding="utf-8"))
    assert {row["case"].split(",")[0] for row in rows} >= {"training step", "generate", "importance-weighted bound"}
    assert json.loads((tmp_path / "out" / "recipe_metrics.json").read_text(encoding="utf-8"))["kl"] >= 0
