"""The last stage of a training: q fitted to the finished decoder."""

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from helpers import SENTENCES, moved_by, training_arguments
from hf_vae import (
    ParaphraseVAEConfig,
    ParaphraseVAEModel,
    ParaphraseVAEProcessor,
    VAEConfig,
    VAEDataCollator,
    VAEModel,
    VAEProcessor,
)
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.cli.progress import StageCallback
from hf_vae.training import train_without_latent
from hf_vae.training.fits import fit_posterior


def build(encoder_type="bert", decoder_type="llama", dropout=0.0, **options):
    """A small VAE, its processor and its training rows."""
    tokenizers = train_tokenizers(SENTENCES, 400)
    parts = small_configs(tokenizers[0], encoder_type, decoder_type, hidden_size=16, num_attention_heads=2, dropout=dropout)
    torch.manual_seed(0)
    model = VAEModel(VAEConfig(encoder=parts[0], decoder=parts[1], latent_size=4, **options))
    processor = VAEProcessor(*tokenizers)
    return model, processor, Dataset.from_dict(dict(processor(SENTENCES, SENTENCES, return_tensors=None)))


def test_a_decoder_that_takes_no_notice_of_z_has_the_prior_as_its_posterior(tmp_path):
    """The exact optimum is known there: no KL, whatever the free bits of the training before."""
    model, processor, train = build(free_bits=20.0)
    torch.nn.init.zeros_(model.decoder.latent_injection.embedding.projection.weight)
    torch.nn.init.constant_(model.posterior_head.linear.bias, 1.0)
    batch = VAEDataCollator(processor)(list(train))
    assert model.eval()(**batch).kl.mean() > 1
    settings = training_arguments(tmp_path, learning_rate=2e-2, max_steps=7)
    moved = moved_by(lambda: fit_posterior(model, processor, settings, 100, train), model)
    assert model(**batch).kl.mean() < 0.02
    assert moved and all(name.startswith(("posterior_head.", "encoder.")) for name in moved)
    assert model.config.free_bits == 20.0 and all(parameter.requires_grad for parameter in model.parameters())


def test_the_loss_is_the_one_of_evaluation(tmp_path):
    """No dropout, no hidden words, no bag of words, and every nat of the KL charged once."""
    options = {"free_bits": 20.0, "bow_loss_weight": 1.0, "word_dropout": 0.5, "word_dropout_token_id": 1}
    model, processor, train = build("lstm", "lstm", dropout=0.5, **options)
    model.kl_weight.fill_(0.0)
    with torch.no_grad():
        # So narrow that every draw of z is nearly the mean.
        model.posterior_head.linear.weight.zero_()
        model.posterior_head.linear.bias[model.config.latent_size :] = -14.0
    expected = model.eval()(**VAEDataCollator(processor)(list(train))).loss.item()
    logs = []

    class Watch(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            logs.extend(state.log_history)

    settings = training_arguments(tmp_path, learning_rate=1e-12, logging_steps=1, gradient_accumulation_steps=3)
    fit_posterior(model.train(), processor, settings, 1, train, [Watch()])
    assert logs[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_its_log_has_the_parts_of_the_loss(tmp_path):
    model, processor, train = build()
    stage = StageCallback("the posterior alone", logs_parts=True)
    settings = training_arguments(tmp_path, logging_steps=1, gradient_accumulation_steps=3)
    fit_posterior(model, processor, settings, 2, train, [stage])
    tokens = sum(label != -100 for row in train["labels"] for label in row)
    rows = [each for each in stage.log_history if "loss" in each]
    assert len(rows) == 2
    for row in rows:
        assert (row["reconstruction"] + row["kl"]) * len(train) / tokens == pytest.approx(row["loss"], rel=1e-4)


@pytest.mark.parametrize(
    "options, own",
    [
        ({}, ("posterior_head.", "encoder.")),
        # Here the decoder reads x through the encoder of q.
        ({"source_conditioning": "cross_attention"}, ("posterior_head.",)),
        ({"source_conditioning": "cross_attention", "tie_encoders": False}, ("posterior_head.", "encoder.")),
        # And here the prior does.
        ({"prior_type": "conditional"}, ("posterior_head.",)),
    ],
)
def test_what_the_decoder_reads_stays_as_it_is(tmp_path, options, own):
    tokenizers = train_tokenizers(SENTENCES, 400)
    encoder, decoder = small_configs(tokenizers[0], decoder_type="gpt2", hidden_size=16, num_attention_heads=2)
    model = ParaphraseVAEModel(ParaphraseVAEConfig(encoder=encoder, decoder=decoder, latent_size=4, **options))
    processor = ParaphraseVAEProcessor(
        *tokenizers, **{name: each for name, each in options.items() if name == "source_conditioning"}
    )
    train = Dataset.from_dict(dict(processor(SENTENCES, SENTENCES[::-1], return_tensors=None)))
    model.encoder.get_input_embeddings().weight.requires_grad_(False)
    moved = moved_by(lambda: fit_posterior(model, processor, training_arguments(tmp_path, learning_rate=1e-2), 2, train), model)
    assert all(name.startswith(own) for name in moved) and {name.partition(".")[0] + "." for name in moved} == set(own)
    # What was frozen before is frozen still.
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == [
        "encoder.embeddings.word_embeddings.weight"
    ]
    # Without z there is nothing for q and the prior to learn, nor for an encoder that only they read.
    settings = training_arguments(tmp_path, learning_rate=1e-2)
    moved = moved_by(lambda: train_without_latent(model, processor, settings, "latent_free", 2, train), model)
    assert moved and not any(name.startswith(("posterior_head.", "prior_network.")) for name in moved)
    assert any(name.startswith("encoder.") for name in moved) == ("decoder" in model.source_readers and model.config.tie_encoders)
    model.config.objective = "gsnn"
    with pytest.raises(ValueError, match="objective='gsnn'"):
        fit_posterior(model, processor, training_arguments(tmp_path), 2, train)
