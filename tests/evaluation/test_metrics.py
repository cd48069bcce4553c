"""The table of metrics: nothing that is measured lacks an entry, and no number in a name hides one."""

import pytest
import torch

from helpers import make_model, resized
from hf_vae.data import dialogues, grammar
from hf_vae.evaluation import (
    LikelihoodEvaluator,
    bow_similarities,
    conditional_log_likelihoods,
    dialog_metrics,
    evaluate_vae,
    paraphrase_metrics,
)
from hf_vae.evaluation.metrics import METRICS, known_metrics, metrics_table
from hf_vae.latent_space.grammar_probe import CHANGES, CONTROLLED

TEXTS = ["the cat sat on the mat", "a dog ran in the park", "the mat", "a park", "the dog sat"]


def measured(variant, processor):
    model = resized(make_model(variant), processor)
    evaluator = LikelihoodEvaluator(model, processor, TEXTS, TEXTS)
    return evaluate_vae(evaluator, importance_samples=2, refine_steps=1, language_model_nll=9.0)


def without_entry(metrics):
    return set(metrics) - {metric.name for metric in known_metrics(metrics)}


def test_everything_that_evaluation_measures_has_an_entry(vae_processor, processor):
    # Of a report the metrics that it follows from are among the others.
    for variant, its_processor in (("vae", vae_processor), ("paraphrase-prompt", processor)):
        metrics = measured(variant, its_processor)
        assert without_entry(metrics) == {"collapse_report"}
        assert not without_entry(
            conditional_log_likelihoods({"mc_nll": 1.0, "mc_nll_error": 0.1, "iw_nll": 1.0, "iw_nll_error": 0.1})
        )


@pytest.mark.parametrize("count", [1, 5, 10])
def test_everything_that_the_commands_score_has_an_entry(count):
    outputs, references = [TEXTS[:2] * count] * 2, [TEXTS[2:]] * 2
    vectors = dict.fromkeys(" ".join(TEXTS).split(), torch.ones(3).numpy())
    acts = {"hypothesis_acts": [["a"] * len(row) for row in outputs], "reference_acts": [["a"] * len(row) for row in references]}
    sentences = grammar.draw_sentences(2, 0)
    last_turns = [source["messages"][-1]["content"] for source in dialogues.load_examples(2)["source"]]
    scores = {
        **paraphrase_metrics(TEXTS[:2], outputs, references),
        **dialog_metrics(outputs, references, **acts),
        **bow_similarities(outputs, references, vectors),
        **grammar.judge([[text] for text in sentences], sentences),
        **dialogues.judge([["yes"]] * 2, last_turns, [["a"]] * 2),
        **{f"arithmetic_{factor}": 0.0 for factor, _, _ in CHANGES},
        **{f"{name}_{factor}": 0.0 for name in ("control_accuracy", "control_kept") for factor in CONTROLLED},
    }
    for name in ("distinct_correct", "distinct_valid"):
        scores[f"{name}_in_{count}"] = scores.pop(name)
    others = (
        "entropy",
        "cll_exact",
        "references_cut",
        "sentences_cut",
        "arithmetic",
        "control_accuracy",
        "control_kept",
        "midpoints_grammatical",
        "path_edit_distance",
    )
    assert not without_entry({**scores, **dict.fromkeys(others, 0.0)})


def test_a_number_in_a_name_is_in_the_label():
    known = known_metrics(["distinct_correct_in_5", "active_units_1e-05", "active_units_0.02_fraction", "bleu_3_recall", "bleu"])
    assert [metric.name for metric in known] == [
        "active_units_1e-05", "active_units_0.02_fraction", "bleu", "distinct_correct_in_5", "bleu_3_recall"
    ]  # fmt: skip
    titles = [metric.title for metric in known]
    assert titles[0].endswith("above 1e-05)") and titles[3:] == [
        "Distinct correct paraphrases in 5",
        "BLEU-3, recall over the references",
    ]
    assert not known_metrics(["distinct_correct_in_", "active_units_x", "made_up"])


def test_names_are_unique_and_errors_are_better_lower():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.better == "lower" for metric in METRICS if metric.name.endswith("_error"))


def test_a_table_has_a_line_for_each_metric_and_shows_what_is_no_number():
    metrics = {"ppl_per_word_iw": float("inf"), "elbo": -12.3456, "num_examples": 7, "prior_depends_on_source": True, "x": {}}
    lines = metrics_table(metrics).splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == ["-12.346", "7", "inf", "yes"]
    assert lines[1].startswith("  examples, N") and len({len(line) for line in lines}) == 1
    assert metrics_table({}) == ""
