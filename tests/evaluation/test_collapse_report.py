"""The collapse report: a verdict that neither a high KL nor many active units deceives."""

import json
import math

import pytest

from hf_vae.evaluation import (
    collapse_report,
)

# Measured of another system, whose decoder writes one sentence for every z, on 400 sentences.
DECEPTIVE = {
    "kl": 13.07, "mutual_information": 0.57, "mutual_information_ceiling": math.log(400), "active_units_0.01": 23,
    "latent_size": 32, "nll_posterior": 30.45, "nll_prior": 32.19, "nll_shuffled": 32.04, "iw_nll": 37.70,
}  # fmt: skip


HEALTHY = {
    "kl": 15.72, "mutual_information": 5.6, "mutual_information_ceiling": math.log(400), "active_units_0.01": 32,
    "latent_size": 32, "nll_posterior": 12.4, "nll_prior": 41.0, "nll_shuffled": 44.2, "iw_nll": 27.9,
}  # fmt: skip


def test_a_high_kl_and_many_active_units_do_not_hide_an_ignored_z():
    report = collapse_report(DECEPTIVE, language_model_nll=31.06)
    assert report.ignored and report.verdict == "ignored"
    text = str(report)
    for expected in (
        "z is being ignored",
        "0.57 nats of at most 5.99",
        "12.50 of them",
        "23 of 32",
        "6.64 nats worse",
        "1.59 nats",
    ):
        assert expected in text
    # What the KL was spent on is named, and what to do about it.
    assert any("KL is paid for nothing" in advice for advice in report.advice)
    assert json.loads(json.dumps(report.to_dict()))["figures"]["shuffled_gap"] == pytest.approx(1.59)


def test_a_healthy_model_is_not_warned_of():
    report = collapse_report(HEALTHY, language_model_nll=31.06)
    assert report.verdict == "used" and not report.ignored and not report.advice
    assert "3.16 nats better" in str(report)


@pytest.mark.parametrize(
    "changes, verdict",
    [
        # The encoder says much, nobody listens.
        ({"nll_shuffled": 12.6}, "ignored"),
        # Its z costs little of what it says: the decoder reads a part.
        ({"nll_shuffled": 14.0}, "partly used"),
        # Plain collapse: the KL is gone.
        ({"kl": 0.02, "mutual_information": 0.01, "nll_shuffled": 12.41}, "ignored"),
        # A little that is used counts as used, and KL and active units have no say.
        ({"kl": 2.0, "mutual_information": 1.7, "nll_shuffled": 14.6, "active_units_0.01": 1}, "used"),
        # Five examples cannot show a nat and a half: half of what they can show is asked.
        ({"mutual_information": 0.9, "mutual_information_ceiling": math.log(5)}, "used"),
        ({"mutual_information": 0.7, "mutual_information_ceiling": math.log(5)}, "ignored"),
        # A broken model does not pass.
        ({"nll_posterior": math.nan}, "ignored"),
    ],
)
def test_verdicts_follow_information_and_the_shuffled_gap(changes, verdict):
    report = collapse_report({**HEALTHY, **changes})
    assert report.verdict == verdict
    assert bool(report.advice) == (verdict != "used")


def test_a_z_that_says_no_more_than_the_source_is_ignored():
    """A conditional model whose q is its prior: all that z says is about x, and another example's z is another x's."""
    figures = {
        "kl": 0.0, "mutual_information": 1.95, "mutual_information_ceiling": math.log(20), "prior_depends_on_source": True,
        "nll_posterior": 0.02, "nll_prior": 0.02, "nll_shuffled": 14.31,
    }  # fmt: skip
    report = collapse_report(figures)
    assert report.ignored and "one from the prior" in report.summary
    assert "KL - I" not in str(report) and "kl_minus_mutual_information" not in report.figures
    assert report.figures["prior_gap"] == pytest.approx(0.0) and report.figures["shuffled_gap"] == pytest.approx(14.29)
    said = collapse_report({**figures, "kl": 1.9, "nll_prior": 4.0})
    assert said.verdict == "used"
    assert collapse_report({**figures, "kl": 5.0, "mutual_information": 2.9, "nll_prior": 1.2}).verdict == "partly used"
    # KL alone does not make it: nobody listens.
    assert collapse_report({**figures, "kl": 5.0}).ignored
    broken = collapse_report({**figures, "kl": 1.9, "nll_prior": 4.0, "mutual_information": math.nan})
    assert broken.ignored
    with pytest.raises(ValueError, match="lacks nll_prior"):
        collapse_report({name: value for name, value in figures.items() if name != "nll_prior"})


@pytest.mark.parametrize(
    "changes, language_model, expected",
    [
        ({"iw_nll_error": 0.1}, 28.5, "0.60 nats better than the language model's 28.50: z pays for itself"),
        ({"iw_nll_error": 0.1}, 27.5, "0.40 nats worse than the language model's 27.50: z costs more than it brings, unless more"),
        ({"iw_nll_error": 0.4}, 28.5, "27.90 ± 0.40, the language model's 28.50: from these draws of z it cannot be told"),
        ({"iw_nll_error": math.inf}, 99.0, "it cannot be told"),
        ({"iw_nll": math.nan}, 28.5, "it cannot be told"),
    ],
)
def test_a_language_model_is_compared_within_the_error(changes, language_model, expected):
    assert expected in str(collapse_report({**HEALTHY, **changes}, language_model))


def test_texts_of_unknown_words_are_not_held_against_z():
    report = collapse_report({**HEALTHY, "nll_shuffled": HEALTHY["nll_posterior"], "unknown_tokens": 0.84})
    assert report.verdict == "unknown words" and not report.ignored
    assert "84.0 % of their tokens are not in the model's vocabulary" in report.summary and "z" not in report.advice[0].split()
    assert collapse_report({**HEALTHY, "unknown_tokens": 0.02}).verdict == "used"


def test_a_report_needs_its_figures():
    with pytest.raises(ValueError, match="lacks mutual_information, nll_shuffled"):
        collapse_report({key: value for key, value in HEALTHY.items() if key not in ("mutual_information", "nll_shuffled")})
