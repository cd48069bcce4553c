"""`--cache_encoder`: the run is that without it, and what cannot be kept is refused before anything is computed."""

import pytest
import torch
from safetensors.torch import load_file

from helpers import SMALL, StoppedError, load_script, write_rows
from hf_vae.cli import train as run

TINY = [
    *SMALL, "--grammar_sentences", "40", "--max_test_samples", "2", "--latent_size", "4", "--max_new_tokens", "4", "--seed", "0",
    "--importance_samples", "1", "--max_steps", "3", "--encoder_pretraining_steps", "0", "--posterior_fit_steps", "2",
    "--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "no", "--collapse_report_samples", "0",
]  # fmt: skip
FROZEN = ["--freeze_encoder", "true", "--dropout", "0"]


@pytest.mark.slow
def test_a_run_ends_with_the_same_weights(tmp_path, capsys):
    script = load_script("train_vae")
    folder = tmp_path / "encoded"
    cached = ["--cache_encoder", str(folder)]
    for name, options in (("without", []), ("with", cached), ("again", cached)):
        script.main([*TINY, *FROZEN, *options, "--output_dir", str(tmp_path / name)])
        if name != "without":
            told = capsys.readouterr().out
            assert f"The encoder's outputs are read from {folder}: " in told
            # The validation sentences too.
            [of, read] = [int(word) for word in told.partition("\nOf ")[2].replace(",", "").split() if word.isdecimal()][:2]
            assert of == read > 3 * 4
    assert len(list((folder / "encoder").glob("part-*"))) == 2
    expected, *others = (load_file(tmp_path / name / "model.safetensors") for name in ("without", "with", "again"))
    for found in others:
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Runs the command up to where it would read the data, or as far as a later step."""

    def stop(*_, **__):
        raise StoppedError

    def run_with(*options, task="train_vae", until="start_run"):
        monkeypatch.setattr(run, until, stop)
        load_script(task).main([*TINY, "--output_dir", str(tmp_path / "out"), *options])

    return run_with


def test_what_cannot_be_kept_is_refused_before_data_is_read(refused, tmp_path):
    folder = ["--cache_encoder", str(tmp_path / "encoded")]
    with pytest.raises(ValueError, match="`--cache_encoder` keeps the outputs of an encoder that does not change: add `--"):
        refused(*folder)
    with pytest.raises(ValueError, match=r"`--token_noise` changes what the encoder reads in each step"):
        refused(*FROZEN, *folder, "--token_noise", '{"drop": 0.1}')
    with pytest.raises(ValueError, match=r"`--encoder_pretraining_steps` trains the encoder, which `--freeze_encoder`"):
        refused(*FROZEN, *folder, "--encoder_pretraining_steps", "3")
    with pytest.raises(ValueError, match=r"lies in `--output_dir`.*name a folder beside it"):
        refused(*FROZEN, "--cache_encoder", str(tmp_path / "out" / "encoded"))
    file = write_rows(tmp_path / "texts.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=r"`--cache_encoder` .* is a file: name a folder"):
        refused(*FROZEN, "--cache_encoder", file)
    data = ["--train_file", file, "--validation_file", file, "--test_file", file]
    with pytest.raises(ValueError, match="`--streaming` has no whole set"):
        refused(*FROZEN, *folder, *data, "--streaming")
    with pytest.raises(StoppedError):
        refused(*FROZEN, *folder)


def test_adapters_and_noise_are_refused_once_the_model_is_built(refused, tmp_path):
    folder = ["--cache_encoder", str(tmp_path / "encoded"), "--freeze_encoder", "true"]
    adapters = ["--lora", '{"r": 2, "target_modules": ["query", "q_proj"]}']
    with pytest.raises(ValueError, match=r"The encoder has 2 trained weights \(.*lora_A"):
        refused(*folder, *adapters, until="tokenize_pairs")
    # Without target modules the adapters are the decoder's alone.
    with pytest.raises(StoppedError):
        refused(*folder, "--lora", "2", until="tokenize_pairs")


def test_weights_in_pieces_are_refused(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ValueError, match=r"`--cache_encoder` is .*, which needs whole weights; FSDP and DeepSpeed"):
        refused(*FROZEN, "--cache_encoder", str(tmp_path / "encoded"), "--latent_free_steps", "0", "--posterior_fit_steps", "0",
                until="tokenize_pairs")  # fmt: skip
