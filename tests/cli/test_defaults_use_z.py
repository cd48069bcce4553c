"""What the commands do by default with files ends with a z that the decoder reads."""

import json

import pytest

from helpers import load_script, write_rows
from hf_vae import VAEModel, VAEProcessor
from hf_vae.data import grammar

# The recipes' own settings but for sizes and steps.
SHORT = [
    "--per_device_train_batch_size", "32", "--max_test_samples", "40", "--importance_samples", "5", "--max_new_tokens", "16",
    "--warmup_steps", "10", "--logging_steps", "50", "--save_strategy", "no", "--disable_tqdm", "true", "--use_cpu",
]  # fmt: skip
SMALL = ["--hidden_size", "64", "--vocab_size", "600", "--decoder_layers", "2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pairs of the grammar, and pretrained parts: a model of it without z."""
    folder = tmp_path_factory.mktemp("files")
    rows = [{"source": row["source"], "targets": row["targets"]} for row in grammar.load_paraphrases(2040, seed=0)]
    pairs = [
        "--train_file",
        write_rows(folder / "train.jsonl", rows[40:]),
        "--test_file",
        write_rows(folder / "test.jsonl", rows[:40]),
    ]
    texts = [{"text": text} for row in rows[40:] for text in (row["source"], *row["targets"])]
    out = folder / "language_model"
    without_z = ["--latent_free_steps", "300", "--max_steps", "1", "--learning_rate", "3e-3", "--dropout", "0"]
    sentences = ["--train_file", write_rows(folder / "texts.jsonl", texts), "--validation_file", str(folder / "texts.jsonl")]
    load_script("train_vae").main([*sentences, *SHORT, *SMALL, *without_z, "--output_dir", str(out)])
    model, processor = VAEModel.from_pretrained(out), VAEProcessor.from_pretrained(out)
    for part, tokenizer in (("encoder", processor.encoder_tokenizer), ("decoder", processor.tokenizer)):
        (model.encoder if part == "encoder" else model.decoder.lm).save_pretrained(folder / part)
        tokenizer.save_pretrained(folder / part)
    parts = ["--encoder_name_or_path", str(folder / "encoder"), "--decoder_name_or_path", str(folder / "decoder")]
    return pairs, parts


@pytest.mark.slow
def test_paraphrases_between_pretrained_parts(files, tmp_path):
    pairs, parts = files
    steps = ["--latent_free_steps", "150", "--max_steps", "400", "--prior_fit_steps", "50", "--learning_rate", "1e-3"]
    out = tmp_path / "out"
    load_script("train_paraphrase").main([*pairs, *parts, *SHORT, *steps, "--output_dir", str(out)])
    uses_z(json.loads((out / "metrics.json").read_text()))


@pytest.mark.slow
def test_paraphrases_from_scratch(files, tmp_path):
    steps = ["--latent_free_steps", "200", "--max_steps", "400", "--prior_fit_steps", "50", "--learning_rate", "3e-3"]
    out = tmp_path / "out"
    load_script("train_paraphrase").main([*files[0], *SHORT, *SMALL, *steps, "--output_dir", str(out)])
    uses_z(json.loads((out / "metrics.json").read_text()))


def uses_z(metrics):
    """Another text's z costs a nat, and ten outputs of a source differ."""
    assert metrics["nll_shuffled"] - metrics["nll_posterior"] > 1
    assert metrics["self_bleu"] < 98
