"""`evaluate --frontier`, and the model without z that a training keeps for it."""

import itertools
import json

import pytest
import torch
from matplotlib.figure import Figure
from transformers import AutoModel, AutoProcessor, BertConfig

from helpers import (
    SMALL,
    TARGETS,
    TEXTS,
    VARIANTS,
    generation_inputs,
    listening,
    load_script,
    make_batch,
    make_model,
    resized,
)
from hf_vae import DialogCVAEProcessor, ParaphraseVAEModel
from hf_vae.cli.plots import plot_frontier
from hf_vae.cli.saving import save_baseline
from hf_vae.evaluation import LATENT_CURVES, Estimate, FrontierPoint, baseline_curves, bleu, frontier
from hf_vae.hub.privacy import files_to_upload

REFERENCES = [[target, "the cat"] for target in TARGETS]
FEW = ["--importance_samples", "2", "--max_new_tokens", "5", "--frontier_outputs", "3"]


@pytest.fixture(scope="module")
def script():
    return load_script("evaluate")


def save(model, processor, folder) -> str:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def model(processor):
    return listening(resized(make_model("paraphrase-prompt"), processor))


@pytest.fixture
def saved(model, processor, tmp_path):
    return save(model, processor, tmp_path / "model")


@pytest.fixture
def pairs(tmp_path):
    rows = [{"source": source, "targets": targets} for source, targets in zip(TEXTS, REFERENCES)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def test_both_models_are_loaded_in_the_dtype_that_is_asked_for(script, model, processor, saved, pairs, tmp_path, monkeypatch):
    save_baseline(resized(make_model("paraphrase-prompt"), processor), processor, tmp_path / "run")
    dtypes = []

    def noting(model, *args, **options):
        dtypes.append(model.dtype)
        return frontier(model, *args, **options)

    monkeypatch.setattr("hf_vae.cli.frontier.frontier", noting)
    baseline = ["--frontier_baseline", str(tmp_path / "run" / "baseline")]
    metrics = script.main([saved, "--file", pairs, *FEW, "--frontier", *baseline, "--dtype", "bfloat16"])
    assert len(dtypes) == len(metrics["frontier"]["points"]) - 1 and set(dtypes) == {torch.bfloat16}
    exact = script.main([saved, "--file", pairs, "--importance_samples", "2"])
    assert metrics["elbo"] == pytest.approx(exact["elbo"], rel=0.02) and metrics["elbo"] != exact["elbo"]


def test_points_of_both_models_are_printed_saved_and_drawn(script, model, processor, saved, pairs, tmp_path, capsys):
    save_baseline(resized(make_model("paraphrase-prompt"), processor), processor, tmp_path / "run")
    output, plot = tmp_path / "out" / "metrics.json", tmp_path / "pictures" / "frontier.svg"
    arguments = [saved, "--file", pairs, *FEW, "--seed", "3", "--batch_size", "2", "--frontier", "--output_file", str(output)]
    metrics = script.main([
        *arguments, "--frontier_baseline", str(tmp_path / "run" / "baseline"), "--frontier_plot", str(plot)
    ])  # fmt: skip
    assert json.loads(output.read_text())["frontier"] == metrics["frontier"] and metrics["num_examples"] == len(TEXTS)
    points = metrics["frontier"]["points"]
    curves = {**LATENT_CURVES, **baseline_curves(3)}
    assert [(each["curve"], each["options"]) for each in points[:-1]] == [
        (name, options) for name, several in curves.items() for options in several
    ]
    options = {"num_outputs": 3, "max_new_tokens": 5, "seed": 3, "batch_size": 2}
    for found, expected in zip(points, frontier(model, processor, TEXTS, REFERENCES, **options)):
        assert {name: found[name] for name in expected.metrics} == {name: each.value for name, each in expected.metrics.items()}
        assert found["intervals"]["chrf"] == list(expected.metrics["chrf"][1:])
    assert points[-1]["curve"] == "copying the source" and points[-1]["bleu"] == pytest.approx(bleu(TEXTS, REFERENCES))
    assert {name: each.keys() for name, each in metrics["frontier"]["z_above"].items()} == {
        name: {"bleu", "best_bleu"} for name in LATENT_CURVES
    }
    printed = capsys.readouterr().out
    assert (
        printed.count("| sampling | temperature ") == len(baseline_curves(3)["sampling"])
        and printed.count("that reaches there (BLEU of the best of 3).") == 2
    )
    assert plot.read_text().startswith("<?xml")
    # Without a model to compare with, z is above none.
    alone = script.main(arguments)["frontier"]
    assert alone["z_above"] == {} and len(alone["points"]) == 11


def test_each_point_is_said_and_kept_as_soon_as_it_is_measured(script, saved, pairs, tmp_path, monkeypatch, capsys):
    measured = []

    def until_the_third(*args, **options):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.extend(frontier(*args, **options))
        return measured[-1:]

    monkeypatch.setattr("hf_vae.cli.frontier.frontier", until_the_third)
    output = tmp_path / "metrics.json"
    with pytest.raises(KeyboardInterrupt):
        script.main([saved, "--file", pairs, *FEW, "--frontier", "--output_file", str(output)])
    kept = json.loads(output.read_text())
    assert kept["num_examples"] == len(TEXTS)
    assert [each["bleu"] for each in kept["frontier"]["points"]] == [each.metrics["bleu"].value for each in measured]
    # Which curve is above cannot be said yet.
    assert "z_above" not in kept["frontier"]
    count = sum(map(len, LATENT_CURVES.values()))
    said = [line for line in capsys.readouterr().out.splitlines() if f" of {count}, z, greedy, " in line]
    assert [line.split(":")[0].strip() for line in said] == [
        f"{number} of {count}, z, greedy, latent_temperature {temperature}" for number, temperature in ((1, 0.5), (2, 0.7))
    ]
    for line, point in zip(said, measured):
        value = point.metrics["self_bleu"].value
        assert f"self-BLEU {value:.1f}, average BLEU {point.metrics['bleu'].value:.1f}" in line


def test_a_model_without_z_that_cannot_be_loaded_is_refused_before_anything_is_measured(
    script, model, processor, saved, pairs, tmp_path, monkeypatch
):
    save_baseline(resized(make_model("paraphrase-prompt"), processor), processor, tmp_path / "run")
    baseline = tmp_path / "run" / "baseline"
    (baseline / "model.safetensors").unlink()
    monkeypatch.setattr(script, "evaluate_vae", None)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        script.main([saved, "--file", pairs, *FEW, "--frontier", "--frontier_baseline", str(baseline)])


def test_a_part_that_was_left_out_of_the_model_with_z_alone_is_not_asked_for_in_the_other(script, processor, pairs, tmp_path):
    donor = resized(make_model("paraphrase-prompt"), processor)
    donor.encoder.save_pretrained(tmp_path / "encoder")
    donor.decoder.lm.save_pretrained(tmp_path / "decoder")
    parts = (str(tmp_path / "encoder"), str(tmp_path / "decoder"))
    build = ParaphraseVAEModel.from_encoder_decoder_pretrained
    saved = save(listening(build(*parts, latent_size=4, freeze=["decoder"])), processor, tmp_path / "model")
    save_baseline(build(*parts, latent_size=4), processor, tmp_path / "run")
    baseline = ["--frontier_baseline", str(tmp_path / "run" / "baseline")]
    metrics = script.main([saved, "--file", pairs, *FEW, "--frontier", *baseline])
    assert {"z, greedy", "beams"} <= {point["curve"] for point in metrics["frontier"]["points"]}


def test_how_much_is_kept_of_the_source_is_measured_if_an_embedder_is_named(script, processor, saved, pairs, tmp_path):
    tokenizer = processor.encoder_tokenizer
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    AutoModel.from_config(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "embedder")
    tokenizer.save_pretrained(tmp_path / "embedder")
    metrics = script.main([saved, "--file", pairs, *FEW, "--frontier", "--frontier_embedder", str(tmp_path / "embedder")])
    cosines = [each.get("source_cosine") for each in metrics["frontier"]["points"]]
    assert all(-1 <= each <= 1 for each in cosines[:-1])


def test_replies_are_not_told_their_act_and_a_dialogue_is_not_copied(script, tokenizers, tmp_path):
    processor = DialogCVAEProcessor(*tokenizers, acts=["x", "y", "z"], max_turns=2)
    model = resized(make_model("dialog-acts"), processor)
    folder = save(model, processor, tmp_path / "model")
    turns = [{"speaker": speaker, "text": text, "act": act} for speaker, text, act in zip("abab", TEXTS, "xyzx")]
    written = []
    for name, acts in (("known", "xyzx"), ("others", "xzyz")):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"turns": [{**turn, "act": act} for turn, act in zip(turns, acts)]}) + "\n", encoding="utf-8")
        metrics = script.main([folder, "--file", str(path), *FEW, "--frontier"])
        written.append([{**each, "seconds": 0} for each in metrics["frontier"]["points"]])
    assert written[0] == written[1] and len(written[0]) == 10
    with pytest.raises(ValueError, match=r"`--frontier_embedder` .* a dialogue is no text"):
        script.main([folder, "--file", str(path), *FEW, "--frontier", "--frontier_embedder", "x"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--frontier_outputs", "4"], "`--frontier_outputs` needs `--frontier`"),
        (["--frontier_plot", "x.png"], "`--frontier_plot` needs `--frontier`"),
        (["--max_new_tokens", "4"], "`--max_new_tokens` needs `--frontier`"),
        (["--frontier", "--frontier_outputs", "1"], "`--frontier_outputs` is 1"),
        (["--frontier", "--max_new_tokens", "0"], "`--max_new_tokens` is 0"),
        (["--frontier", "--frontier_plot", "x.xyz"], r"`--frontier_plot` ends in .xyz, which is no kind of picture"),
        (["--frontier", "--frontier_plot", "."], "`--frontier_plot` . is a directory"),
        (["--frontier", "--frontier_baseline", "{other}"], "of type 'text-cvae', and .* is of type 'paraphrase-vae'"),
        (["--frontier", "--frontier_baseline", "{model}"], "`--frontier_baseline` .* generates with z at a temperature of 1: "),
        (["--frontier", "--frontier_baseline", "{none}"], "none"),
        (["--frontier", "--frontier_embedder", "{none}"], "none"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_weights_are_loaded(
    script, processor, saved, pairs, tmp_path, monkeypatch, arguments, message
):
    save(resized(make_model("cvae"), processor), processor, tmp_path / "other")
    monkeypatch.setattr(script, "AutoModel", None)
    given = [each.format(model=saved, other=tmp_path / "other", none=tmp_path / "none") for each in arguments]
    with pytest.raises((ValueError, OSError), match=message):
        script.main([saved, "--file", pairs, *given])


def test_a_vae_has_no_source_to_compare_the_outputs_of(script, vae_processor, tmp_path):
    folder = save(resized(make_model("vae"), vae_processor), vae_processor, tmp_path / "model")
    with pytest.raises(ValueError, match=r"`--frontier` .* a VAE of sentences, which has no source"):
        script.main([folder, "--file", "none.txt", "--frontier"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_without_z_is_loaded_as_one(variant, processor, tmp_path, caplog):
    """Its z is zero, whatever its prior was, and nothing is missing or left over."""
    model = make_model(variant, bow_loss_weight=1.0)
    model.config.bow_loss_weight = 0.0
    save_baseline(model, processor, tmp_path)
    caplog.clear()
    loaded = AutoModel.from_pretrained(tmp_path / "baseline").eval()
    assert not caplog.records and isinstance(AutoProcessor.from_pretrained(tmp_path / "baseline"), type(processor))
    inputs = generation_inputs(make_batch(loaded))
    if variant.startswith("vae"):
        inputs = {"num_samples": 3}
    output = loaded.generate(**inputs, max_new_tokens=5, return_dict_in_generate=True)
    assert torch.equal(output.latents, torch.zeros(3, loaded.config.latent_size))


def test_the_picture_of_one_curve_alone(tmp_path):
    point = FrontierPoint("mine", {}, {name: Estimate(3.0, 2.0, 5.0) for name in ("self_bleu", "bleu", "best_bleu")})
    plot_frontier([point], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 0


def test_no_curves_name_lies_on_another_and_no_two_look_alike(monkeypatch, tmp_path):
    at = {
        "z, greedy": [(81.8, 33.4), (76.2, 33.8), (70.9, 34.0), (64.7, 34.5)],
        "z, 4 beams each": [(77.5, 36.3), (68.8, 37.2), (60.5, 36.3)],
        "sampling": [(79.2, 34.2), (69.7, 36.2), (60.0, 35.4), (49.3, 35.0), (17.9, 25.8)],
        "nucleus": [(89.5, 30.1), (64.2, 37.7), (53.6, 37.1), (41.3, 35.5), (24.4, 29.1)],
        "sampling, 4 beams each": [(92.0, 35.0), (83.0, 35.8), (72.5, 36.8)],
        "beams": [(87.5, 37.0)],
    }
    points = []
    for name, x, y in ((name, *place) for name, places in at.items() for place in places):
        metrics = {"self_bleu": Estimate(x, x, x), "bleu": Estimate(y, y, y), "best_bleu": Estimate(y, y, y)}
        points.append(FrontierPoint(name, {}, metrics))
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **options: drawn.append(figure))
    plot_frontier(points, tmp_path / "all.png")
    for panel in drawn[0].axes:
        names = [text.get_window_extent() for text in panel.texts]
        assert len(names) == 6 and not any(one.overlaps(other) for one, other in itertools.combinations(names, 2))
        looks = {
            (line.get_color(), line.get_marker(), line.get_linestyle()) for line in panel.lines if line.get_marker() in "osD^vP"
        }
        assert len(looks) == 6


@pytest.mark.slow
def test_a_training_keeps_its_model_without_z_and_does_not_publish_it(script, tmp_path, capsys):
    train, output = load_script("train_cvae"), tmp_path / "out"
    small = [*SMALL, "--num_dialogues", "60", "--max_source_length", "48", "--bow_loss_weight", "0.5"]
    lora = ["--lora", '{"r": 2, "target_modules": ".*decoder.lm.*c_attn"}']
    metrics = train.main([*small, *lora, "--with_baseline", "--output_dir", str(output)])
    baseline = AutoModel.from_pretrained(output / "baseline")
    assert baseline.config.bow_loss_weight == 0 and baseline.generation_config.latent_temperature == 0
    assert baseline.generation_config.max_new_tokens == 8
    assert not any(name.startswith("baseline") for name in files_to_upload(output)) and (output / "README.md").is_file()
    rows = [{"source": "A : the farmer bought the lamp .", "targets": ["yes"]}, {"source": "A : no .", "targets": ["no"]}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    figures = script.main([
        str(output), "--file", str(tmp_path / "pairs.jsonl"), *FEW, "--frontier", "--frontier_baseline", str(output / "baseline")
    ])  # fmt: skip
    assert {each["curve"] for each in figures["frontier"]["points"]} >= {"z, greedy", "sampling", "nucleus", "beams"}
    assert "baseline" in metrics
    # It belongs to its run's model: the next run in the folder takes it away, and no other model is written over or removed.
    again = [*small, "--output_dir", str(output), "--overwrite_output_dir"]
    train.main(again)
    assert not (output / "baseline").exists() and (output / "config.json").exists()
    (output / "baseline").mkdir()
    (output / "baseline" / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    for more in ([], ["--with_baseline"]):
        with pytest.raises(ValueError, match=r"baseline holds a model of type 'gpt2'"):
            train.main([*again, *more])
