"""What the terminal shows while a command works."""

import pytest
import torch
from transformers import TrainerState

from helpers import SMALL, load_script
from hf_vae.cli import progress
from hf_vae.cli.plots import plot_training
from hf_vae.cli.progress import Forecast, Progress, duration, measuring_shown
from hf_vae.evaluation.distributed import map_examples


@pytest.mark.parametrize(
    "seconds, words",
    [(4, "10 seconds"), (34, "30 seconds"), (70, "a minute"), (100, "2 minutes"), (3000, "50 minutes"), (9000, "2 hours")],
)
def test_a_forecast_is_in_the_unit_that_one_would_say(seconds, words):
    assert duration(seconds) == f"about {words}"


def at_pace(monkeypatch, seconds):
    """A clock that each look moves on by this much."""
    clock = iter(range(10_000))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: seconds * next(clock))


# From steps 1 to 3 four seconds: 97 steps of two seconds are left, or 3, which are over before one has read it.
@pytest.mark.parametrize(("steps", "told"), [(100, "  the model with z: about 3 minutes to go\n"), (6, "")])
def test_the_first_step_does_not_count_and_the_forecast_is_made_once_if_at_all(monkeypatch, capsys, steps, told):
    at_pace(monkeypatch, 2.0)
    forecast = Forecast("the model with z")
    for step in range(1, steps):
        forecast.step(step, steps)
    assert capsys.readouterr().out == told


def test_measuring_is_forecast_too_and_may_have_no_bar(monkeypatch, capsys):
    at_pace(monkeypatch, 5.0)
    with measuring_shown(disable=True):
        assert map_examples(lambda rows: [10 * row for row in rows], range(40), 2, "100 samples of z") == list(range(0, 400, 10))
    told = capsys.readouterr()
    assert told.out == "  100 samples of z: about 2 minutes to go\n" and told.err == ""


def test_headings_count_the_stages_that_there_are(capsys):
    stages = Progress({"one": 3, "none": 0, "two": 1, "measuring": 8})
    stages.begin("two")
    stages.head("measuring", "example")
    assert capsys.readouterr().out == "\n2 of 3: two, 1 step\n\n3 of 3: measuring, 8 examples\n"
    assert stages.logs == {"two": []}


def test_a_picture_shows_every_stage(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("hf_vae.cli.plots.Figure.savefig", lambda figure, *args, **options: drawn.append(figure))
    with_z = [{"step": step, "loss": 2.0, "reconstruction": 20.0, "kl": 3.0, "kl_weight": 1.0} for step in (1, 4)]
    plot_training({"without z": [{"step": 1, "loss": 3.0}, {"step": 5, "loss": 2.0}], "with z": with_z}, tmp_path / "t.png")
    panels = drawn[0].axes
    # A level line does not lie on the panel's edge.
    assert panels[2].get_ylim()[0] == 0 and panels[2].get_ylim()[1] > 1.04 * 3
    assert [list(line.get_xdata()) for line in panels[0].lines] == [[1, 5], [6, 9], [5, 5]]
    assert [list(line.get_xdata()) for line in panels[2].lines] == [[6, 9], [5, 5]]
    assert all("nats" in panel.get_ylabel() for panel in panels[:3]) and panels[3].get_ylabel() == "KL weight"
    assert [text.get_text() for text in panels[0].texts] == ["without z", "with z"]


@pytest.mark.slow
def test_a_run_shows_its_stages_and_without_tqdm_no_bar(tmp_path, capfd):
    more = ["--grammar_pairs", "40", "--posterior_fit_steps", "2", "--encoder_pretraining_steps", "2", "--logging_steps", "1"]
    load_script("train_paraphrase").main([*SMALL, *more, "--with_baseline", "--output_dir", str(tmp_path)])
    told = capfd.readouterr()
    headings = [line for line in told.out.splitlines() if " of 6: " in line]
    assert headings == [
        "1 of 6: the encoder as a masked language model, 2 steps",
        "2 of 6: the decoder without z, 2 steps",
        "3 of 6: the model with z, 4 steps",
        "4 of 6: the posterior alone, 2 steps",
        "5 of 6: measuring, 4 examples",
        "6 of 6: the same model without z, to compare with, 6 steps",
    ]
    assert "it/s]" not in told.err and "%|" not in told.err and "?, ?" not in told.err


@pytest.mark.slow
def test_what_z_s_soft_tokens_need_comes_before_the_model_with_z(tmp_path, capfd):
    stages = ["--latent_injection", "prefix", "--soft_token_fit_steps", "3", "--decoder_fit_steps", "1", "--prefix_length", "3"]
    stages += ["--encoder_pretraining_steps", "0", "--posterior_fit_steps", "0"]
    load_script("train_paraphrase").main(
        [*SMALL, "--grammar_pairs", "40", *stages, "--with_baseline", "--output_dir", str(tmp_path)]
    )
    headings = [line for line in capfd.readouterr().out.splitlines() if " of 6: " in line]
    assert headings == [
        "1 of 6: the decoder without z, 2 steps",
        "2 of 6: the soft tokens of z alone, 3 steps",
        "3 of 6: the decoder alone, 1 step",
        "4 of 6: the model with z, 4 steps",
        "5 of 6: measuring, 4 examples",
        "6 of 6: the same model without z, to compare with, 7 steps",
    ]


def test_a_stage_logs_the_mean_over_examples_of_nats_per_sentence():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kl_weight", torch.ones(()))

        def forward(self, nats):
            return {"reconstruction_loss": nats, "kl": None}

    model, state = Model(), TrainerState(log_history=[{"loss": 1.0}])
    callback = progress.StageCallback("the decoder without z", logs_parts=True)
    callback.on_train_begin(None, state, None, model=model)
    model(torch.tensor([2.0, 4.0]))
    model(torch.tensor([9.0]))
    with torch.no_grad():
        model(torch.tensor([100.0]))
    callback.on_log(None, state, None, logs={"loss": 1.0})
    # Not 6, the mean of the two batches' means, and without what was evaluated meanwhile.
    assert callback.log_history == [{"loss": 1.0, "reconstruction": 5.0}]
    callback.on_train_end(None, state, None)
