"""The benchmark of spreads and of form transfer: what it sees of a text, and that it runs on the grammar as on any pairs."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

import hf_vae
from benchmarks import spread_and_transfer
from benchmarks.spread_and_transfer import (
    OWN,
    draw_sources,
    foreign_share,
    form_of,
    kept_openings,
    length_difference,
    main,
    marks,
    mean_and_error,
    rare_openings,
    repelled_where_z_speaks,
    same_ending,
    same_opening,
    same_participle,
    spread_table,
    transfer_table,
)
from hf_vae.data import grammar
from hf_vae.evaluation.distributed import spread_samples


def test_openings_and_endings_are_compared_word_by_word():
    assert same_opening("There is a dog", "there are cats") == 1 and same_opening("There is a dog", "there are cats", 2) == 0
    assert same_opening("what is it ?", "What is that", 2) == 1
    # Not its letters, and not what is not there.
    assert same_opening("them", "the") == same_opening("", "") == same_opening("a", "a", 2) == 0
    assert same_ending("a dog .", "cats .") == 1 and same_ending("a dog.", "cats .") == same_ending("", "") == 0
    assert same_participle("A dog running", "boys are jumping") == same_participle("a dog runs", "boys jump") == 1
    assert same_participle("a dog runs", "boys jumping") == same_participle("a Running dog", "boys jump") == 0
    assert length_difference("a b c", "a") == length_difference("a", "a b c") == 2 and length_difference("", "a") == 1


def test_what_comes_along_with_a_form_are_the_example_s_words_that_nobody_else_has():
    own = ["the dog runs", "a dog is running"]
    # "boy" alone: "the" and "runs" are the source's too, and "fast" is not the example's.
    assert foreign_share("the boy runs fast", "the boy runs", own) == 1 / 4
    assert foreign_share("The Boy", "a boy", own) == 1 / 2
    assert foreign_share("", "the boy", own) == foreign_share("the dog", "the dog", own) == 0


def test_a_source_counts_with_the_mean_over_its_outputs():
    outputs = [["there is a dog .", "a dog"], ["two cats sit ."]]
    found = form_of(outputs, ["there are two boys .", "two men"], ["the dog", "cats"], [["a dog"], ["two cats sit ."]])
    assert found["first word, %"] == [50, 100] and found["first two words, %"] == [0, 0]
    assert found["last word, %"] == [50, 0] and found["difference of length, words"] == [1.5, 2]
    assert found["BLEU to the source's references"][1] == pytest.approx(100)
    # Of five words "there" and "."; of four "two" is the reference's own.
    assert found["the example's own words, %"] == [20, 0]


def test_examples_that_begin_as_most_do_are_left_out():
    assert rare_openings(["A dog", "two cats", "a man", "the boy"]) == ("a", [1, 3])
    assert rare_openings(["a dog"]) == ("a", [])


def test_means_have_the_errors_of_a_mean():
    assert mean_and_error([1.0, 2.0, 3.0, 4.0]) == (2.5, pytest.approx(math.sqrt(5 / 3) / 2))
    assert mean_and_error([1.0])[0] == 1 and math.isnan(mean_and_error([1.0])[1])


def test_the_tables_show_differences_to_the_first_row_and_of_the_first_row():
    same = [["a dog", "a cat"], ["two men", "a man"]]
    other = [["a dog", "a dog"], ["two men", "two men"]]
    outputs, seconds = {"independent": other, "repelled": same}, {"independent": 0.1, "repelled": 0.2}
    lines = spread_table(outputs, [["a dog"], ["a man"]], seconds, num_resamples=50, seed=0)
    assert [line.split("|")[1].strip() for line in lines.splitlines()[2:]] == [
        "`independent`", "`repelled`", "`repelled` less `independent`"
    ]  # fmt: skip
    assert "| `independent` | 1.00 |" in lines and "| +1.00 (+1.00 to +1.00) |" in lines and "| 200 |" in lines
    # "two men" and "a man" are as long.
    assert "| 0.00 | 200 |" in lines
    row = {"first word, %": [100.0, 0.0], "difference of length, words": [1.0, 2.0]}
    less = {"first word, %": [0.0, 0.0], "difference of length, words": [1.0, 4.0]}
    lines = transfer_table({"mine": row, "its": less, OWN: row}, [0], "a").splitlines()
    assert lines[0] == "| z | first word, % | the same, if it is not `a`, % | difference of length, words |"
    assert lines[2:] == [
        "| mine | 50.0 | 100.0 | 1.50 |", "| its | 0.0 | 0.0 | 2.50 |", f"| {OWN} | 50.0 | 100.0 | 1.50 |",
        "| mine, less its | +50.0 ± 50.0 | +100.0 ± nan | -1.00 ± 1.00 |",
    ]  # fmt: skip
    told = kept_openings({"mine": row, "its": less, OWN: row}, ["a b", "the c"])
    assert told.endswith("in the order of the rows: `a` 100 / 0 of 1, `the` 0 / 0 of 1.")
    assert transfer_table({"mine": row, "its": less, OWN: row}, [], "a").splitlines()[2] == "| mine | 50.0 | | 1.50 |"


def test_z_repel_each_other_in_some_numbers_and_are_independent_in_the_others():
    drawn = []

    class Prior:
        noise_size = 6

        def from_noise(self, noise, temperature):
            drawn.append(noise)
            return temperature * noise

    class Evaluator:
        def __len__(self):
            return 50

        def prior(self):
            return Prior()

    latents = repelled_where_z_speaks(Evaluator(), [1, 4], 3, 2.0, seed=0)
    torch.testing.assert_close(latents, 2 * drawn[0])
    assert latents.shape == (50, 3, 6)
    # Three directions in a plane that keep away from each other: 120 degrees between any two.
    angles = torch.nn.functional.normalize(latents[..., [1, 4]], dim=-1)
    cosines = angles @ angles.mT
    torch.testing.assert_close(cosines[:, [0, 0, 1], [1, 2, 2]], torch.full((50, 3), -0.5), atol=1e-2, rtol=0)
    assert latents[..., [0, 2, 3, 5]].std() == pytest.approx(2, abs=0.15)
    torch.testing.assert_close(drawn[0][..., 0], spread_samples(range(50), 3, 6, 0, "independent")[..., 0])


@pytest.fixture
def test_file(tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in grammar.draw_pairs(12, seed=0, num_targets=3)))
    return str(file)


def test_sources_come_in_a_random_order_and_long_ones_not_at_all(test_file):
    processor = AutoProcessor.from_pretrained(hf_vae.demo("paraphrase"))
    sources, references = draw_sources(test_file, processor, 5, 24, seed=0)
    rows = {row["source"]: row["targets"] for row in map(json.loads, Path(test_file).read_text().splitlines())}
    assert len(sources) == 5 and [rows[source] for source in sources] == references and sources != list(rows)[:5]
    assert draw_sources(test_file, processor, 99, 24, seed=0)[0] != draw_sources(test_file, processor, 99, 24, seed=1)[0]
    with pytest.raises(ValueError, match="has 0 rows of at most 3 tokens, and three are needed"):
        draw_sources(test_file, processor, 5, 3, seed=0)


def test_it_runs_and_writes_into_the_page(test_file, tmp_path, monkeypatch, capsys):
    page = tmp_path / "spread.md"
    first, last = marks("grammar")
    page.write_text(f"before\n{first}\n{last}\nbehind\n")
    monkeypatch.setattr(spread_and_transfer, "PAGE", page)
    source, target = "the farmer bought the lamp in the park at noon .", "at noon the lamp was bought by the farmer in the park ."
    other = "it seems that the nurse sold the coat in the garden at dawn ."
    monkeypatch.setattr(spread_and_transfer, "EXAMPLES", {"grammar": [((source, target), [other])]})
    arguments = ["--model", hf_vae.demo("paraphrase"), "--test_file", test_file, "--name", "grammar"]
    main([*arguments, "--num", "8", "--resamples", "20", "--write"])
    printed = capsys.readouterr().out
    for row in ("`independent`", "`repelled` less `independent`", "of the example", "of the example, less from the prior"):
        assert f"| {row} |" in printed
    # What is asked of a model that transfers a form exactly.
    assert f"{source}  →  {target}\n    {other}  →  at dawn the coat was" in printed
    assert "the number of words with R² " in printed
    assert "of its 8 numbers are active units" in printed and "nan" not in printed
    written = page.read_text()
    assert written.startswith(f"before\n{first}\nz says") and written.endswith(f"```\n{last}\nbehind\n")
    # The grammar's transfer is exact: the example's z gives its opening where one from the prior seldom does.
    [line] = [line for line in printed.splitlines() if line.startswith("| of the example |")]
    [chance] = [line for line in printed.splitlines() if line.startswith("| from the prior |")]
    assert float(line.split("|")[2]) > float(chance.split("|")[2])
