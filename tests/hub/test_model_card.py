"""Model cards tell what was measured, in valid metadata."""

import json

import pytest
from huggingface_hub import ModelCard
from transformers import TrainingArguments

from helpers import make_model
from hf_vae.hub import RunRecord, make_model_card, run_record, write_attributes, write_metrics, write_model_card
from hf_vae.hub.attribute_section import attribute_section
from hf_vae.latent_attribute import LatentAttribute
from hf_vae.options.model import ConditionalArguments, ModelArguments

RECORD = RunRecord(
    name="someone/paraphrases",
    command="accelerate launch examples/train_paraphrase.py",
    dataset="sentences",
    metrics={"iw_nll": 3.61, "kl": 2.98, "bleu": 41.5, "unknown_figure": 1.0, "baseline": {"bleu": 40.0}},
    baseline={"bleu": 40.0},
    measured_on="Measured on 5 held-out sources.",
    training={"free bits": "3.0 nats per sentence", "seed": 0},
    samples=[('she said "no"', ["no, she said"]), ("a", ["b", "c"])],
    base_models=["bert-base-uncased", "gpt2"],
    dataset_ids=["someone/sentences"],
    license="apache-2.0",
)


def test_card_round_trip(tmp_path):
    (tmp_path / "latent.png").touch()
    path = write_model_card(make_model("paraphrase-prompt"), RECORD, tmp_path)
    card = ModelCard.load(path)
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "apache-2.0")
    assert data.base_model == ["bert-base-uncased", "gpt2"] and data.datasets == ["someone/sentences"]
    assert {"hf_vae", "paraphrase-vae"} <= set(data.tags)
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {"iw_nll": 3.61, "kl": 2.98, "bleu": 41.5}
    assert "| BLEU, average output | 41.500 | 40.000 |" in card.text
    assert "| KL(q ‖ p) (nats per sentence) | 2.980 | – |" in card.text
    assert 'inputs = processor("she said \\"no\\"")' in card.text
    assert "no, she said" in card.text and "@inproceedings{gupta2018deep," in card.text
    # Of the pictures, those that are there.
    assert "](latent.png)" in card.text and "](training.png)" not in card.text
    assert 'pipeline("paraphrase", model="someone/paraphrases", trust_remote_code=True)' in card.text
    assert "{{" not in card.content and "{%" not in card.content and "unknown_figure" not in card.content


def test_card_without_baseline_samples_or_ids(tmp_path):
    record = RunRecord("n", "c", "d", {"kl": 1.0}, "Measured.", {"seed": 0})
    card = make_model_card(make_model("vae"), record)
    assert "without z" not in card.text and "## Samples" not in card.text
    assert card.data.base_model is None


def attribute(labels, score):
    made = LatentAttribute(4, labels)
    made.score.fill_(score)
    return made


def test_a_card_lists_the_attributes_and_shows_how_to_ask_for_one():
    model = make_model("vae")
    assert "## Attributes" not in make_model_card(model, RECORD).text
    model.set_attribute("polite", attribute([True, False], 0.975))
    number = attribute(None, 0.5)
    number.lowest.fill_(3.0)
    number.highest.fill_(12.0)
    model.set_attribute("words", number)
    model.set_attribute("topic", attribute(["a | b", "<b>"], float("nan")))
    card = make_model_card(model, RECORD).text
    assert "| `polite` | True, False | accuracy 97.5 % |" in card
    assert "| `words` | a number from 3 to 12 | R² 0.50 |" in card
    assert r"| `topic` | a \| b, &lt;b&gt; | – |" in card
    assert 'model.generate(num_samples=5, attributes={"polite": True}, do_sample=False' in card
    assert card.index("## Use") < card.index("## Attributes") < card.index("## Results")
    # A conditional model is given its source too.
    model = make_model("paraphrase-prompt")
    model.set_attribute("words", number)
    code = 'model.generate(**inputs, num_return_sequences=5, attributes={"words": 7.5}, do_sample=False, max_new_tokens=40)'
    assert code in make_model_card(model, RECORD).text


def test_attributes_that_are_fitted_later_come_into_the_card_that_is_there(tmp_path):
    model = make_model("vae")
    with pytest.raises(ValueError, match=r"has no README\.md: write one with `hf_vae\.hub\.write_model_card`"):
        write_attributes(model, tmp_path)
    path = write_model_card(model, RECORD, tmp_path)
    before = path.read_text()
    assert write_attributes(model, tmp_path) == path and path.read_text() == before
    for score in (0.5, 0.75):
        model.set_attribute("voice", attribute(['say "a"', "b"], score))
        write_attributes(model, tmp_path)
    # As if the card were written now.
    after = path.read_text()
    assert after == write_model_card(model, RECORD, tmp_path).read_text()
    assert after.count("## Attributes") == 1 and "accuracy 75.0 %" in after and r'{"voice": "say \"a\""}' in after
    # A card of other headings has it at its end.
    path.write_text("# mine\n")
    write_attributes(model, tmp_path)
    assert path.read_text().startswith("# mine\n\n## Attributes\n") and path.read_text().endswith("to a text.\n")
    write_attributes(make_model("vae"), tmp_path)
    assert path.read_text() == "# mine\n\n"


def test_what_the_user_has_written_around_the_attributes_stays(tmp_path):
    model, path = make_model("vae"), tmp_path / "README.md"
    mine = ["# mine\n\n## Attributes\n\nOf my own making.\n\n", "\n\nMy paragraph.\n\n# My licence\n\nNone.\n"]
    for score in (0.5, 0.75):
        model.set_attribute("voice", attribute(["a", "b"], score))
        section = attribute_section(model.latent_attributes, False)
        path.write_text(section.join(mine) if score == 0.5 else path.read_text())
        write_attributes(model, tmp_path)
        assert path.read_text() == section.join(mine) and f"accuracy {100 * score:.1f} %" in section
    write_attributes(make_model("vae"), tmp_path)
    assert path.read_text() == mine[0] + mine[1].lstrip()


@pytest.mark.parametrize("variant, key", [("vae", "bowman2015generating"), ("cvae", "sohn2015learning")])
def test_every_variant_cites_its_paper(variant, key):
    assert f"@inproceedings{{{key}," in make_model_card(make_model(variant), RECORD).text


def test_a_card_without_figures_is_refused():
    with pytest.raises(ValueError, match="holds none of the known metrics"):
        make_model_card(make_model("vae"), RunRecord("n", "c", "d", {"mystery": 1.0}, "m", {}))


def test_a_run_s_record_tells_what_was_not_left_at_its_default(tmp_path):
    settings = TrainingArguments(output_dir=str(tmp_path / "out"), max_steps=7, seed=3)
    arguments = ("script.py", ["--free_bits", "2"], ModelArguments(free_bits=2.0, hidden_size=64), settings)
    record = run_record(*arguments, "pairs/train.jsonl", "our own sentences", metrics={}, measured_on="Nowhere.")
    assert record.command == "accelerate launch script.py --free_bits 2" and record.dataset == "train.jsonl"
    assert record.training == {
        "free_bits": 2.0, "optimiser steps": 7, "batch size per device": 8, "learning rate": 5e-5, "seed": 3
    }  # fmt: skip
    assert (record.license, record.dataset_ids) == (None, [])
    # A name without an ending is a dataset's on the Hub.
    assert run_record(*arguments, "someone/pairs", "", metrics={}, measured_on="").dataset_ids == ["someone/pairs"]
    settings.max_steps = -1
    record = run_record(*arguments, None, "our own sentences", metrics={}, measured_on="")
    assert (record.dataset, record.license, record.language) == ("our own sentences", "apache-2.0", "en")
    assert record.training["epochs"] == 3 and "optimiser steps" not in record.training


def test_a_card_shows_a_line_break_as_code_does(tmp_path):
    settings = TrainingArguments(output_dir=str(tmp_path))
    for template, shown in (("{source}\n", r"'{source}\n'"), ("{source}", "{source}")):
        arguments = ("script.py", [], ConditionalArguments(prompt_template=template), settings)
        assert run_record(*arguments, None, "", metrics={}, measured_on="").training["prompt_template"] == shown


def test_a_card_names_no_folder_of_this_machine(tmp_path):
    folder = tmp_path / "halves"
    folder.mkdir()
    model_args = ModelArguments(encoder_name_or_path=str(folder), decoder_name_or_path="gpt2")
    training_args = TrainingArguments(output_dir="out", report_to="none", use_cpu=True)
    record = run_record("examples/train_vae.py", [], model_args, training_args, str(folder), "", metrics={}, measured_on="")
    assert record.base_models == ["gpt2"] and record.dataset_ids == []


def test_figures_are_written_as_json_that_any_parser_reads(tmp_path):
    nan = float("nan")
    metrics = {"ppl": float("inf"), "elbo": nan, "kl": 1.5, "baseline": {"kl": 0.0, "iw_nll": nan}, "each": [nan, 2]}
    finite = write_metrics(metrics, tmp_path / "metrics.json")
    assert finite == {"ppl": None, "elbo": None, "kl": 1.5, "baseline": {"kl": 0.0, "iw_nll": None}, "each": [None, 2]}
    assert json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail) == finite
