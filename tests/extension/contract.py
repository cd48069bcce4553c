"""What every addition must do: train with the plain Trainer, be saved and loaded, generate, and be evaluated."""

import functools

import torch
from datasets import Dataset
from transformers import AutoModel, Trainer, TrainingArguments

from hf_vae import KLAnnealingCallback, VAEConfig, VAEDataCollator, VAEModel, VAEProcessor
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.data import grammar
from hf_vae.evaluation import LikelihoodEvaluator, evaluate_vae

SENTENCES = grammar.draw_sentences(12, seed=0)
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "decoder_layers": 1}


@functools.cache
def processor(processor_class=VAEProcessor, **options):
    return processor_class(*train_tokenizers(iter(SENTENCES), 300), **options)


def vae(model_class=VAEModel, config_class=VAEConfig, **options):
    """A tiny model with random weights."""
    torch.manual_seed(0)
    encoder, decoder = small_configs(processor().tokenizer, **SIZES)
    return model_class(config_class(encoder=encoder, decoder=decoder, **{"latent_size": 4, **options}))


def check_trains(model, directory, features=None, callbacks=None, of=None):
    """The loss of a few steps with the plain Trainer falls, and reconstruction and KL are logged."""
    of = of or processor()
    features = of(SENTENCES, SENTENCES, return_tensors=None) if features is None else features
    arguments = TrainingArguments(
        str(directory / "training"), max_steps=8, learning_rate=1e-2, per_device_train_batch_size=12, logging_steps=1,
        report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(
        model,
        arguments,
        train_dataset=Dataset.from_dict(dict(features)),
        data_collator=VAEDataCollator(of),
        callbacks=[KLAnnealingCallback(), *(callbacks or [])],
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "kl" in log]
    assert logs[-1]["reconstruction"] < logs[0]["reconstruction"]
    return trainer


def check_saves_and_loads(model, directory, **inputs):
    """A loaded model has the same weights, and writes the same text from the same z."""
    model.eval()
    model.save_pretrained(directory / "saved")
    loaded = AutoModel.from_pretrained(directory / "saved")
    assert type(loaded) is type(model)
    for (name, saved), (other, weight) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(saved, weight), name
    latents = torch.linspace(-1, 1, model.config.total_latent_size).unsqueeze(0)
    written = [each.generate(latents=latents, max_new_tokens=5, do_sample=False, **inputs) for each in (model, loaded)]
    assert torch.equal(*written)


def check_generates(model, **inputs):
    """Draws from the prior follow the generator, and each text has a z of its own."""
    model.eval()
    options = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "num_return_sequences": 3, **inputs}
    first, second = (model.generate(generator=torch.Generator().manual_seed(0), **options) for _ in range(2))
    assert torch.equal(first.sequences, second.sequences)
    assert torch.equal(first["latents"], second["latents"])
    assert first["latents"].shape == (3, model.config.total_latent_size)
    assert len(first["latents"].unique(dim=0)) == 3


def check_evaluates(model, texts=None, of=None):
    """All metrics come out finite, and the importance-weighted bound is no worse than the ELBO, to within its error."""
    of = of or processor()
    metrics = evaluate_vae(LikelihoodEvaluator(model, of, texts or SENTENCES, SENTENCES), importance_samples=20)
    numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
    assert all(torch.tensor(list(numbers.values())).isfinite())
    assert metrics["iw_nll"] <= -metrics["elbo"] + 3 * metrics["iw_nll_error"] + 1.0
    return metrics
