"""`examples/train_vae.py`: every option reaches the model or a callback."""

import re

import pytest
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    Trainer,
    TrainingArguments,
)

from helpers import SENTENCES, built
from hf_vae import KLAnnealingCallback, VAEDataCollator
from hf_vae.cli.checks import run_steps
from hf_vae.flow_prior import FlowPrior
from hf_vae.options.model import ModelArguments
from hf_vae.posterior import FixedScaleBatchNorm
from hf_vae.training import (
    AggressiveEncoderCallback,
    BagOfWordsAnnealingCallback,
    DecoderResetCallback,
    DenoisingCallback,
    LinearSchedule,
    MinimumDesiredRateCallback,
    TokenNoise,
)
from hf_vae.training.stages import pretrain_encoder, train_without_latent
from hf_vae.training.techniques import technique_callbacks


def training_arguments(tmp_path, **options):
    settings = {"per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True, "report_to": "none"} | options
    return TrainingArguments(output_dir=str(tmp_path / "out"), **settings)


def arguments_of(callbacks, kind, name):
    """The attribute `name` of every callback of this kind."""
    return [getattr(callback, name) for callback in callbacks if isinstance(callback, kind)]


def weight_at(callbacks, step):
    [schedule] = arguments_of(callbacks, KLAnnealingCallback, "schedule")
    return schedule(step)


def has(**fields):
    return lambda model, callbacks: {name: getattr(model.config, name) for name in fields} == fields


SCHEDULES = {
    "constant": ('{"weight": 0.5}', {0: 0.5, 100: 0.5}),
    "linear": ('{"steps": 10}', {0: 0.0, 5: 0.5, 20: 1.0}),
    "sigmoid": ('{"midpoint": 5, "slope": 1.0}', {5: 0.5, 6: 0.7310586, 100: 1.0}),
    "tanh": ('{"midpoint": 5, "width": 2.0}', {5: 0.5, 7: 0.8807971, 100: 1.0}),
    "cyclical": ('{"period": 8, "zero": 0.25, "rise": 0.5}', {1: 0.0, 4: 0.5, 7: 1.0, 9: 0.0}),
}


# Option, its command line, and what the model or the callbacks must show.
TECHNIQUES = [
    ("free_bits", ["--free_bits", "3", "--free_bits_per", "dimension"], has(free_bits=3.0, free_bits_per="dimension")),
    ("free_bits_per", ["--free_bits", "2", "--free_bits_per", "batch"], has(free_bits=2.0, free_bits_per="batch")),
    ("capacity", ["--capacity", "5"], has(capacity=5.0)),
    (
        "batch_norm_gamma",
        ["--batch_norm_gamma", "0.7"],
        lambda model, callbacks: any(isinstance(module, FixedScaleBatchNorm) for module in model.posterior_head.modules()),
    ),
    (
        "bow_loss_weight",
        ["--bow_loss_weight", "0.5"],
        lambda model, callbacks: hasattr(model, "bow_head") and model.config.bow_loss_weight == 0.5,
    ),
    (
        "bow_schedule",
        ["--bow_loss_weight", "0.5", "--bow_schedule", "linear", "--bow_schedule_options", '{"steps": 10, "start": 1.0}'],
        lambda model, callbacks: (
            arguments_of(callbacks, BagOfWordsAnnealingCallback, "schedule") == [LinearSchedule(steps=10, start=1.0)]
        ),
    ),
    ("word_dropout", ["--word_dropout", "0.4"], has(word_dropout=0.4, word_dropout_token_id=1)),
    ("word_dropout", ["--word_dropout", "1.0"], has(word_dropout=1.0, word_dropout_token_id=1)),
    (
        "token_noise",
        ["--token_noise", '{"drop": 0.1, "shuffle": 3}'],
        lambda model, callbacks: arguments_of(callbacks, DenoisingCallback, "noise") == [TokenNoise(drop=0.1, shuffle=3)],
    ),
    (
        "minimum_rate",
        ["--minimum_rate", "6.5"],
        lambda model, callbacks: (
            arguments_of(callbacks, MinimumDesiredRateCallback, "rate") == [6.5]
            and not arguments_of(callbacks, KLAnnealingCallback, "schedule")
        ),
    ),
    (
        "decoder_reset_step",
        ["--decoder_reset_step", "7"],
        lambda model, callbacks: arguments_of(callbacks, DecoderResetCallback, "step") == [7],
    ),
    (
        "aggressive_encoder",
        ["--aggressive_encoder"],
        lambda model, callbacks: arguments_of(callbacks, AggressiveEncoderCallback, "aggressive") == [True],
    ),
    *(
        (
            "kl_schedule",
            ["--kl_schedule", name, "--kl_schedule_options", options],
            lambda model, callbacks, weights=weights: all(
                weight_at(callbacks, step) == pytest.approx(weight) for step, weight in weights.items()
            ),
        )
        for name, (options, weights) in SCHEDULES.items()
    ),
]


@pytest.mark.parametrize("argv, shows", [row[1:] for row in TECHNIQUES], ids=[" ".join(row[1])[:40] for row in TECHNIQUES])
def test_every_technique_reaches_the_model_or_a_callback(argv, shows):
    model_args, model, processor = built(*argv)
    assert shows(model, technique_callbacks(model_args, processor))
    # It shows only where it was asked for.
    model_args, model, processor = built("--kl_schedule_options", '{"weight": 0.75}')
    plain = technique_callbacks(model_args, processor)
    assert not shows(model, plain)
    assert len(plain) == 1 and weight_at(plain, 3) == 0.75


def test_no_technique_is_left_out_of_that_test():
    parts_and_sizes = {
        "encoder_name_or_path", "decoder_name_or_path", "encoder_type", "decoder_type", "hidden_size", "embedding_size",
        "encoder_layers", "decoder_layers", "num_attention_heads", "initializer_range", "dropout",
        "recurrent_dropout", "tie_word_embeddings", "num_latents", "prefix_length", "posterior_bias", "latent_placement",
        "tokenizer_type", "vocab_size", "latent_size", "latent_injection", "pooling", "freeze_encoder", "freeze_decoder", "lora",
        "save_trained_only", "prior_type", "new_weights_learning_rate", "decoder_start_token", "freeze_decoder_with_latent",
        "cache_encoder",
    }  # fmt: skip
    of_other_stages = {
        "latent_free_steps", "encoder_pretraining_steps", "soft_token_fit_steps", "decoder_fit_steps", "posterior_fit_steps",
        "prior_fit_steps",
    }  # fmt: skip
    shown = {name for name, _, _ in TECHNIQUES} | {"kl_schedule_options", "bow_schedule_options"}
    assert set(vars(ModelArguments())) == parts_and_sizes | of_other_stages | shown


def test_where_z_begins_is_an_option_that_the_model_keeps():
    assert built("--latent_placement", "after_source")[1].config.latent_placement == "after_source"
    assert built()[1].config.latent_placement == "before_source"


def test_a_flow_may_be_the_prior():
    assert isinstance(built("--prior_type", "flow")[1].prior_network, FlowPrior)
    with pytest.raises(StrictDataclassError, match="`prior_type` is 'conditional', a prior of x, and a VAEConfig has no x"):
        built("--prior_type", "conditional")


def test_word_dropout_of_one_hides_every_word_from_the_decoder():
    _, model, processor = built("--word_dropout", "1.0")
    model.train()
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, _, inputs: seen.append(inputs["input_ids"]), with_kwargs=True)
    model(**processor(SENTENCES[:3], SENTENCES[:3]))
    batch = processor(SENTENCES[:3], SENTENCES[:3])
    unknown, start = processor.tokenizer.unk_token_id, model.config.decoder_start_token_id
    words = batch["labels"][:, :-1] != -100
    assert (seen[0][:, 0] == start).all() and (seen[0][:, 1:][words] == unknown).all()


@pytest.mark.parametrize(
    "options",
    [
        {"num_train_epochs": 3, "per_device_train_batch_size": 5},
        {"num_train_epochs": 1.5, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 2},
        {"num_train_epochs": 2, "per_device_train_batch_size": 5, "dataloader_drop_last": True},
        {"num_train_epochs": 2, "per_device_train_batch_size": 64},
        {"max_steps": 3},
    ],
)
def test_the_steps_of_a_run_are_counted_as_the_trainer_counts_them(tmp_path, options):
    _, model, processor = built()
    train = Dataset.from_dict(dict(processor(SENTENCES, SENTENCES, return_tensors=None)))
    settings = training_arguments(tmp_path, **options)
    trainer = Trainer(model, settings, train_dataset=train, data_collator=VAEDataCollator(processor))
    trainer.train()
    assert run_steps(settings, SENTENCES) == trainer.state.global_step


def test_each_half_can_be_trained_by_itself(tmp_path):
    _, model, processor = built("--encoder_type", "bert", "--pooling", "mean", "--bow_loss_weight", "1")
    settings = training_arguments(tmp_path, learning_rate=1e-2, max_steps=100)
    train = Dataset.from_dict(dict(processor(SENTENCES, SENTENCES, return_tensors=None)))

    def changed(stage):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        stage()
        assert all(parameter.requires_grad for parameter in model.parameters())
        return {name for name, parameter in model.named_parameters() if not parameter.equal(before[name])}

    moved = changed(lambda: pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 2, train))
    assert all(name.startswith("encoder.") for name in moved)
    assert "encoder.embeddings.word_embeddings.weight" in moved and any(".layer.0." in name for name in moved)
    moved = changed(lambda: train_without_latent(model, processor, settings, "latent_free", 2, train))
    assert moved and all(name.startswith(("decoder.", "bow_head.")) for name in moved)
    # Nothing came through z = 0 to how z enters.
    assert "decoder.lm.model.embed_tokens.weight" in moved and "decoder.latent_injection.embedding.projection.weight" not in moved
    batch = VAEDataCollator(processor)([train[row] for row in range(4)])
    assert torch.isfinite(model(**batch).loss)


def test_masked_words_are_learnt(tmp_path, capsys):
    """Of a text that is always the same, every word is soon known from its place."""
    _, model, processor = built("--encoder_type", "bert", "--tokenizer_type", "word")
    settings = training_arguments(tmp_path, learning_rate=1e-2, logging_steps=10, lr_scheduler_type="constant")
    data = Dataset.from_dict(dict(processor([SENTENCES[0]] * 32, [SENTENCES[0]] * 32, return_tensors=None)))
    pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 60, data)
    losses = [float(loss) for loss in re.findall(r"'loss': '?([0-9.]+)", capsys.readouterr().out)]
    assert losses[0] > 2 and losses[-1] < 0.5


def test_an_encoder_without_a_masked_language_model_is_not_pretrained(tmp_path):
    _, model, processor = built("--encoder_type", "lstm")
    settings = training_arguments(tmp_path)
    with pytest.raises(ValueError, match="LSTMModel has no masked-language model"):
        pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 2, None)
    processor.encoder_tokenizer.mask_token = None
    with pytest.raises(ValueError, match="no mask token"):
        pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 2, None)
    assert not (tmp_path / "out").exists()


def test_sizes_and_rates_of_parts_reach_them():
    _, model, _ = built("--decoder_type", "lstm", "--encoder_type", "lstm", "--recurrent_dropout", "0.25")
    assert model.encoder.lstm.recurrent_dropout == model.decoder.lm.model.lstm.recurrent_dropout == 0.25
    _, model, _ = built("--latent_injection", "prefix", "--prefix_length", "7", "--posterior_bias", "false")
    assert model.decoder.num_latent_positions == 7 and model.posterior_head.linear.bias is None


def test_an_encoder_that_adapters_keep_as_it_is_is_not_pre_trained(tmp_path):
    _, model, processor = built("--encoder_type", "bert")
    model.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing of it would be pre-trained"):
        pretrain_encoder(
            model.encoder, processor.encoder_tokenizer, TrainingArguments(str(tmp_path / "out")), 1, Dataset.from_list([])
        )
