"""What a run says at its end."""

import pytest

from hf_vae.cli.outcome import output_warnings, verdict, verdict_line
from hf_vae.evaluation import collapse_report
from hf_vae.evaluation.metrics import metrics_table

ALIVE = {"kl": 5.0, "mutual_information": 4.0, "mutual_information_ceiling": 6.0, "nll_posterior": 20.0, "nll_shuffled": 30.0}
DEAD = {**ALIVE, "nll_shuffled": 20.1, "nll_prior": 20.2}


@pytest.mark.parametrize("figures, words", [(ALIVE, "z is used"), (DEAD, "z is being ignored")])
def test_the_verdict_is_in_words_and_in_numbers(figures, words):
    metrics = {"collapse_report": collapse_report(figures).to_dict()}
    line = verdict_line(metrics)
    assert (
        line.startswith(words) and "\n" not in line and "The KL is 5.00 nats, the mutual information 4.00 of at most 6.00" in line
    )
    assert f"Another example's z costs {figures['nll_shuffled'] - 20:.2f} nats" in line and ("one from the prior" in line) == (
        figures is DEAD
    )
    assert verdict(metrics).startswith(words) and ("What to try" in verdict(metrics)) == (figures is DEAD)


def test_without_a_posterior_the_verdict_says_why_there_is_none():
    assert verdict({}) == verdict_line({}) and "no posterior" in verdict({})


@pytest.mark.parametrize(
    "outputs, told",
    [
        ([["a", "b"], ["c", "c b"]], []),
        ([["a", "a"], ["b", "c"], ["d", "d"]], ["all outputs of 2 of 3 sources are equal"]),
        ([["a", "a"]], ["all outputs of the 1 source are equal"]),
        ([["", " "], ["b", "c"]], ["1 of 2 sources got empty outputs alone"]),
        ([["", ""], ["b", "b"]], ["1 of 2 sources got empty outputs alone", "all outputs of 1 of 2 sources are equal"]),
        # One output has no other to be equal to.
        ([["a"], ["b"]], []),
    ],
)
def test_outputs_that_are_equal_or_empty_are_told_of(outputs, told):
    found = output_warnings(outputs)
    assert len(found) == len(told) and all(words in line for words, line in zip(told, found))


def test_the_table_has_a_column_for_each_model():
    lines = metrics_table({"kl": 2.0, "elbo": -3.0}, without_z={"elbo": -4.0}).splitlines()
    assert lines[0].split() == ["this", "model", "without", "z"]
    assert [line.split()[-2:] for line in lines[1:]] == [["-3.000", "-4.000"], ["2.000", "-"]]
