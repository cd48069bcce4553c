"""The benchmark of the bulk generation, small."""

import re

from benchmarks.bulk_generation import main, measure_memory, measure_rate


def test_memory_is_measured_while_all_sources_are_written(tmp_path):
    found = measure_memory(20, tmp_path)
    assert 0 < found["before"] <= found["peak"] and found["seconds"] > 0
    assert len((tmp_path / "outputs.jsonl").read_text().splitlines()) == 20


def test_every_way_has_a_rate(tmp_path, capsys):
    rates = measure_rate(4, tmp_path)
    assert len(rates) == 4 and all(rate > 0 for rate in rates.values())
    main(["memory", "--sources", "3"])
    assert re.fullmatch(r"before: \d+\npeak: \d+\nseconds: \d+\n", capsys.readouterr().out)
