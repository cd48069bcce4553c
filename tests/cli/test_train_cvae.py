"""The CVAE's training script, run small: what it learns from, what reaches the model, what is refused, and what is left behind."""

import json
import logging
import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor

from helpers import RECIPES as RECIPE_FILES
from helpers import SMALL, load_script, write_rows
from hf_vae import CVAEModel, CVAEProcessor
from hf_vae.cli.arguments import parse_arguments
from hf_vae.cli.build import build_conditional_model
from hf_vae.cli.checks import check_arguments
from hf_vae.data import dialogues, expand_targets, split_texts
from hf_vae.data.completions import split_text
from hf_vae.evaluation import LikelihoodEvaluator, generate_texts, likelihood_metrics
from hf_vae.evaluation.distributed import example_noise

TINY = [*SMALL, "--num_dialogues", "40", "--posterior_fit_steps", "2"]
CAPTIONS = ["a dog runs .", "two black dogs play in the snow .", "snow .", "a child sits on a red swing ."] * 3


@pytest.fixture(scope="module")
def script():
    return load_script("train_cvae")


def parse(script, argv):
    """The arguments as the script reads them."""
    classes = (script.CVAEArguments, script.DataArguments, script.EvaluationArguments)
    return parse_arguments(classes, argv, "cvae", "outputs/cvae")


build = partial(build_conditional_model, CVAEModel, CVAEProcessor)


BOUNDS = {
    "elbo", "kl", "iw_nll", "mc_nll", "reconstruction", "nll_posterior", "nll_prior", "nll_shuffled", "nll_zero",
    "cll_is", "cll_mc",
}  # fmt: skip


@pytest.mark.slow
def test_the_embedded_default_leaves_a_whole_model_behind(script, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics = script.main([*TINY, "--with_baseline"])
    output = Path("outputs/cvae")
    judged = {"valid_reply", "distinct_valid_in_10", "cll_exact", "entropy"}
    assert metrics.keys() >= BOUNDS | judged | {"cll_is_error", "cll_mc_error", "references_cut"}
    assert metrics["baseline"].keys() >= BOUNDS | judged and metrics["baseline"]["sampling"].keys() >= judged
    assert "bleu" not in metrics and "act_match" not in metrics
    assert (metrics["cll_is"], metrics["cll_mc"]) == (-metrics["iw_nll"], -metrics["mc_nll"])
    assert (metrics["cll_is_error"], metrics["cll_mc_error"]) == (metrics["iw_nll_error"], metrics["mc_nll_error"])
    assert metrics["cll_exact"] == -math.log(16)
    for figures in (metrics, metrics["baseline"]):
        # Of as many tokens, EOS counted, as the test's replies have.
        assert figures["ppl_per_token_iw"] == pytest.approx(math.exp(figures["iw_nll"] * 4 / figures["tokens"]))
    assert json.loads((output / "metrics.json").read_text()) == metrics
    expected = {
        "config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "training.png",
        "README.md", "encoder_tokenizer", "modeling_cvae.py", "modeling_conditional_vae.py",
    }  # fmt: skip
    assert expected <= {path.name for path in output.iterdir()}
    card = (output / "README.md").read_text()
    assert "Share of replies that are right" in card and "Sohn, Kihyuk" in card
    printed = capsys.readouterr().out
    assert printed.count("\n  output     ") == 4 * 5 and printed.count("\n  reference  ") == printed.count("\n  source     ") == 4
    # The last word is the verdict, and the card's first.
    summary = metrics["collapse_report"]["summary"]
    assert summary in printed.partition("Saved to")[2] and f"**{summary}" in card.partition("## Results")[2].splitlines()[2]
    assert re.search(r"this model +without z\n", printed) and re.search(
        rf"\nELBO .* {metrics['elbo']:.3f} +{metrics['baseline']['elbo']:.3f}", printed
    )

    model, processor = AutoModel.from_pretrained(output).eval(), AutoProcessor.from_pretrained(output)
    assert isinstance(model, CVAEModel) and isinstance(processor, CVAEProcessor)
    assert isinstance(AutoModelForSeq2SeqLM.from_pretrained(output), CVAEModel)
    # What was saved is what was measured, on contexts that none was trained on.
    test = script.load_replies(4, seed=0)
    replies = [targets[0] for targets in test["targets"]]
    again = likelihood_metrics(LikelihoodEvaluator(model, processor, list(test["source"]), replies), num_samples=3, seed=0)
    assert again["elbo"] == pytest.approx(metrics["elbo"], abs=1e-3)
    inputs = processor("A : the farmer bought the lamp in the market at noon .")
    sequences = model.generate(**inputs, num_return_sequences=5, max_new_tokens=8)
    assert len(processor.batch_decode(sequences, skip_special_tokens=True)) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--objective", "cvae", "--free_bits", "1", "--source_noise", "0.2", "--prior_regularization", "0.1", "--with_baseline"],
        ["--objective", "hybrid", "--hybrid_alpha", "0.3", "--tie_encoders", "false", "--source_conditioning", "cross_attention",
         "--decoder_type", "gpt2"],
        ["--objective", "gsnn", "--posterior_fit_steps", "0"],
    ],
    ids=["cvae", "hybrid", "gsnn"],
)  # fmt: skip
def test_completions_of_texts_in_a_file(script, tmp_path, options):
    """Of each caption a part is given, and each objective completes it."""
    file = write_rows(tmp_path / "captions.jsonl", [{"captions": CAPTIONS[start : start + 2]} for start in range(0, 12, 2)])
    data = ["--train_file", file, "--test_file", file, "--given", "0.5", "--text_column", "captions", "--tokenizer_type", "word"]
    metrics = script.main([*TINY, *data, *options, "--output_dir", str(tmp_path / "out")])
    assert metrics.keys() >= BOUNDS | {"bleu", "best_bleu", "self_bleu", "distinct_2"}
    assert not metrics.keys() & {"valid_reply", "cll_exact", "copy_bleu", "ibleu"}
    assert ("baseline" in metrics) == ("--with_baseline" in options)
    config = AutoModel.from_pretrained(tmp_path / "out").config
    assert config.objective == options[1] and config.prior_type == "conditional"
    if config.objective == "gsnn":
        assert metrics["kl"] == pytest.approx(0, abs=1e-5)
    else:
        assert metrics["kl"] > 0


def test_the_embedded_contexts_are_whole_dialogues_and_no_split_shares_one(script):
    _, data_args, _, _ = parse(script, ["--num_dialogues", "30"])
    train, validation, test = script.load_data(data_args, 5, seed=3)
    assert (len(train), len(validation), len(test)) == (30, 200, 5)
    rows = dialogues.draw_dialogues(5, seed=3)
    for row, context, targets in zip(rows, test["source"], test["targets"]):
        lines = [f"{turn['speaker']} : {turn['text']}" for turn in row["turns"]]
        assert context.split("\n") == lines and targets == [row["response"]]
        assert script.last_turn(context) == row["turns"][-1]["text"]
    lasts = [{script.last_turn(context) for context in split["source"]} for split in (train, validation, test)]
    assert len(set.union(*lasts)) == sum(map(len, lasts))
    # The right replies are scored so, and nothing else.
    right = [list(dialogues.valid_replies(script.last_turn(context)))[:3] for context in test["source"]]
    figures = script.score([[*replies, "hm ."] for replies in right], test, on_dialogues=True)
    assert (figures["valid_reply"], figures["distinct_valid_in_4"]) == (0.75, 3)


def test_the_first_words_are_given_and_the_rest_is_wanted():
    assert split_text("a b  c\td e", 0.25) == ("a", "b c d e")
    assert split_text("a b c d", 0.25) == ("a", "b c d")
    assert split_text("a b c d", 0.5) == ("a b", "c d")
    assert split_text("a b c d e f", 0.75) == ("a b c d", "e f")
    assert split_text("a b c", 0.25) == ("", "a b c") and split_text("a", 0.75) == ("", "a")


def test_texts_too_short_to_split_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        pairs = split_texts(["a b c d", "a b c", "e f g h i"], 0.25)
    assert pairs[:] == {"source": ["a", "e"], "targets": [["b c d"], ["f g h i"]]}
    assert "Left out 1 of 3 text(s)" in caplog.text
    with pytest.raises(ValueError, match=r"None of 2 text\(s\) is long enough for `given` 0.25"):
        split_texts(["a b", "c"], 0.25)
    with pytest.raises(ValueError, match="`given` is 1; it must be a share above 0 and below 1"):
        split_texts(["a b"], 1)


def test_pairs_and_completions_in_files(script, tmp_path):
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"x": "one two", "y": ["three", "four"]}, {"x": "five six", "y": ["seven"]}])
    held_out = ["--validation_file", pairs, "--source_column", "x", "--target_column", "y"]
    _, data_args, _, _ = parse(script, ["--train_file", pairs, *held_out])
    train, _, test = script.load_data(data_args, 500, seed=0)
    assert train["target"] == ["three", "four", "seven"] and test["targets"] == [["three", "four"], ["seven"]]
    # A row of several texts is as many completions, of which as many are measured as were asked for.
    texts = write_rows(tmp_path / "texts.jsonl", [{"y": ["a b c d", "e f"]}, {"y": ["g h", "i j"]}])
    _, data_args, _, _ = parse(
        script, ["--train_file", texts, "--test_file", texts, "--given", "0.5", "--text_column", "y", "--max_train_samples", "1"]
    )
    train, validation, test = script.load_data(data_args, 3, seed=0)
    assert train[:] == {"source": ["a b"], "target": ["c d"]}
    assert validation["source"] == ["a b", "e", "g", "i"] and test["source"] == ["a b", "e", "g"]


def test_every_choice_reaches_the_model(script):
    options = {
        "objective": "hybrid", "hybrid_alpha": 0.2, "prior_regularization": 0.3, "source_noise": 0.1, "tie_encoders": False,
        "source_conditioning": "cross_attention", "latent_size": 5,
    }  # fmt: skip
    argv = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    model_args, data_args, _, _ = parse(script, [*argv, "--hidden_size", "16", "--decoder_type", "gpt2"])
    model, processor = build(model_args, data_args, 8, expand_targets(script.load_replies(8, 0)))
    assert {name: getattr(model.config, name) for name in options} == options
    assert model.config.prior_type == "conditional" and hasattr(model, "source_encoder")
    assert processor.source_conditioning == "cross_attention"
    model_args, data_args, _, _ = parse(script, ["--prior_type", "standard", "--hidden_size", "16", "--tie_encoders", "true"])
    model, _ = build(model_args, data_args, 8, expand_targets(script.load_replies(8, 0)))
    assert not list(model.prior_network.parameters())


def test_what_is_measured_is_generated_from_the_prior_of_its_context(script):
    model_args, data_args, _, _ = parse(script, ["--hidden_size", "16", "--latent_size", "3", "--initializer_range", "0.3"])
    test = script.load_replies(6, 0)
    model, processor = build(model_args, data_args, 8, expand_targets(test))
    contexts = list(test["source"])
    with torch.no_grad():
        # Far from N(0, I), so that it shows.
        model.prior_network.head.linear.bias[:3] = 40
    options = {"num_return_sequences": 2, "seed": 1, "do_sample": False, "max_new_tokens": 6, "suppress_tokens": list(range(5))}
    prior = LikelihoodEvaluator(model, processor, contexts, contexts).prior()
    noise = example_noise(6, 2, 3, 1)
    latents = prior.mean.unsqueeze(1) + 0.5 * prior.std.unsqueeze(1) * noise
    outputs = generate_texts(model, processor, contexts, latent_temperature=0.5, **options)
    assert outputs == generate_texts(model, processor, contexts, latents=latents, **options)
    assert outputs != generate_texts(model, processor, contexts, latents=0.5 * noise, **options)


def test_targets_that_are_cut_are_counted(script, caplog):
    model_args, data_args, _, _ = parse(script, ["--hidden_size", "16"])
    model, processor = build(model_args, data_args, 8, expand_targets(script.load_replies(8, 0)))
    targets = ["yes , the farmer did .", "maybe the farmer did ."]
    # Seven tokens and six, EOS counted.
    shares = {
        length: LikelihoodEvaluator(model, processor, ["a", "b"], targets, max_length=4, max_target_length=length).truncated_share()
        for length in (5, 6, 7)
    }
    assert shares == {5: 1.0, 6: 0.5, 7: 0.0}
    assert "1 of 2 targets are cut" in caplog.text
    assert LikelihoodEvaluator(model, processor, ["a", "b"], targets).truncated_share() == 0


RECIPES = [RECIPE_FILES[name] for name in ("cvae_embedded", "sohn_captions")]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_its_model_trains(script, recipe, tmp_path):
    argv = [str(recipe), "--output_dir", str(tmp_path / "out"), "--train_file", "x.jsonl", "--test_file", "x.jsonl"]
    model_args, data_args, evaluation_args, training_args = parse(script, argv)
    check_arguments(model_args, training_args, True, "text-cvae")
    script.CVAETask(model_args, data_args, evaluation_args, training_args).check()
    pairs = expand_targets(script.load_replies(8, 0))
    model, processor = build(model_args, data_args, evaluation_args.max_new_tokens, pairs)
    loss = model.train()(**processor(list(pairs["source"]), list(pairs["target"]))).loss
    loss.backward()
    assert torch.isfinite(loss) and model.prior_network.hidden.weight.grad.abs().sum() > 0
    assert yaml.safe_load(recipe.read_text())["seed"] == 0


def test_without_arguments_the_embedded_recipe_is_read(script):
    model_args, data_args, _, training_args = parse(script, [])
    recipe = yaml.safe_load(RECIPE_FILES["cvae_embedded"].read_text())
    assert training_args.output_dir == "outputs/cvae" and training_args.max_steps == recipe["max_steps"]
    assert data_args.train_file is None and model_args.prior_type == "conditional"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--given", "0.5"], "`--given` splits texts of your own: add a `--train_file`"),
        (["--train_file", "none.jsonl", "--test_file", "none.jsonl", "--given", "0"], "`--given` is 0.0; it is a share between"),
        (["--train_file", "none.jsonl", "--test_file", "none.jsonl", "--given", "1"], "`--given` is 1.0; it is a share between"),
        (["--train_file", "none.jsonl", "--test_file", "none.jsonl", "--given", "25"], "`--given` is 25.0; it is a share between"),
        (["--train_file", "none.jsonl", "--test_file", "none.jsonl", "--given", "0.5"], "There is no file none.jsonl"),
        (["--train_file", "none.jsonl"], "needs a `--validation_file`"),
        (["--num_outputs", "1"], "`--num_outputs` is 1; it must be at least 2"),
        (["--max_test_samples", "1"], "`--max_test_samples` is 1; it must be at least 2"),
        (["--num_dialogues", "0"], "`--num_dialogues` is 0; it must be at least 1"),
        (["--max_target_length", "1"], "`--max_target_length` is 1; it must be at least 2"),
        (["--latent_temperature", "-1"], "`--latent_temperature` is -1.0; it must be a finite number, at least 0"),
        (["--objective", "vae"], "`objective` is 'vae'; choose one of 'cvae', 'gsnn', 'hybrid'"),
        (["--objective", "gsnn", "--free_bits", "2", "--posterior_fit_steps", "0"], "leave `free_bits` and `capacity` out"),
        (["--objective", "gsnn", "--free_bits", "0"], "`--posterior_fit_steps` trains q, and `--objective gsnn` does without q"),
        (["--hybrid_alpha", "2"], "`hybrid_alpha` is 2.0; it must be a finite number"),
        (["--prior_type", "normal"], "`prior_type` is 'normal'; choose one of 'standard', 'conditional'"),
        (
            ["--prior_type", "standard", "--prior_regularization", "1", "--tie_encoders", "true"],
            "`prior_regularization` has nothing",
        ),
        (["--source_noise", "1"], "`source_noise` is 1.0; it must be a finite number, at least 0 and below 1"),
        (["--source_conditioning", "prefix"], "`source_conditioning` is 'prefix'; choose one of"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(script, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError, StrictDataclassError), match=message):
        script.main([*TINY, "--output_dir", "out", *arguments])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "texts, given, message",
    [
        (["a b", "c"], "0.5", "has 1 source; metrics need at least two"),
        (["a", "b"], "0.5", "is long enough for `given` 0.5"),
        ([" ", "a b"], "0.5", r"has no text in 1 row\(s\)"),
        (["a b", "c d"], None, "has no column source, targets"),
    ],
)
def test_files_that_cannot_be_measured_on_are_refused(script, tmp_path, texts, given, message):
    good = write_rows(tmp_path / "train.jsonl", [{"text": "a b c d", "source": "a", "targets": "b"}])
    bad = write_rows(tmp_path / "test.jsonl", [{"text": text} for text in texts])
    argv = ["--train_file", good, "--test_file", bad, "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        script.main([*TINY, *argv, *(["--given", given] if given else [])])
    assert not (tmp_path / "out").exists()


def test_an_output_directory_with_a_model_of_another_kind_is_refused(script, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "paraphrase-vae"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"`--output_dir` .* holds a model of type 'paraphrase-vae'"):
        script.main([*TINY, "--output_dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
