"""The benchmark of a learned prior on made-up texts."""

import math
import random

import pytest
import torch

from benchmarks import learned_prior
from benchmarks.learned_prior import MARKS, fit_trigrams, main, mean_and_error, nats_per_word
from helpers import listening, take_special_tokens, tiny_encoder_config, tiny_gpt2_config
from hf_vae import VAEConfig, VAEModel

WORDS = ["cat", "dog", "sat", "ran", "mat"]


def made_up(num: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(["the", *draw.choices(WORDS, k=draw.randint(2, 4))]) for _ in range(num)]


def test_the_probabilities_of_what_may_follow_add_up_to_one():
    model = fit_trigrams(made_up(50, 0))
    for context in (("<s>", "<s>"), ("<s>", "the"), ("the", "cat")):
        assert sum(model.score(word, context) for word in model.vocab if word != "<s>") == pytest.approx(1, abs=0.05)


def test_the_nats_of_a_text_count_its_end_once():
    model = fit_trigrams(["a b", "a b", "a c"])
    [found] = nats_per_word(model, ["A b"])
    steps = [("a", ("<s>", "<s>")), ("b", ("<s>", "a")), ("</s>", ("a", "b"))]
    assert found == pytest.approx(-sum(math.log(model.score(*step)) for step in steps) / 3)
    # A word that one text alone has is no word.
    assert nats_per_word(model, ["a c"]) == nats_per_word(model, ["a zebra"])


def test_texts_like_the_model_s_own_are_likelier():
    model = fit_trigrams(made_up(200, 0))
    ours, others = nats_per_word(model, made_up(50, 1)), nats_per_word(model, ["mat the cat", "ran ran ran the"])
    assert mean_and_error(ours)[0] + 5 * mean_and_error(ours)[1] < mean_and_error(others)[0]
    assert mean_and_error([1.0, 2.0, 3.0, 4.0]) == (2.5, pytest.approx(math.sqrt(5 / 3) / 2))


def test_the_table_is_written_into_the_page(tmp_path, monkeypatch, vae_processor, capsys):
    torch.manual_seed(0)
    encoder, decoder = tiny_encoder_config(), tiny_gpt2_config()
    encoder.vocab_size, decoder.vocab_size = len(vae_processor.encoder_tokenizer), len(vae_processor.tokenizer)
    take_special_tokens(decoder, vae_processor.tokenizer)
    model = listening(VAEModel(VAEConfig(encoder=encoder, decoder=decoder, latent_size=4)))
    model.save_pretrained(tmp_path / "model")
    vae_processor.save_pretrained(tmp_path / "model")
    for split, seed in (("train", 0), ("test", 1)):
        (tmp_path / f"{split}.txt").write_text("\n".join(made_up(60, seed)))
    page = tmp_path / "priors.md"
    page.write_text("\n".join(["before", *MARKS, "after"]))
    monkeypatch.setattr(learned_prior, "PAGE", page)
    files = [f"--{split}_file={tmp_path / split}.txt" for split in ("train", "test")]
    sizes = ["--texts", "12", "--samples", "40", "--max_steps", "20", "--importance_samples", "3", "--max_length", "8"]
    monkeypatch.setattr(learned_prior, "GROUP", 10)
    main(["--model", str(tmp_path / "model"), *files, *sizes, "--write"])
    written = page.read_text()
    assert written.startswith("before") and written.endswith("after")
    assert "| N(0, I) |" in written and "| flow |" in written and "| held-out texts |" in written
    assert "IW-NLL falls by" in written and "nan" not in written
