"""A frozen encoder's outputs from disk: the same gradients, whatever reads them; what is found, and what is refused."""

import pytest
import torch
from datasets import Dataset
from torch import nn

from helpers import (
    TARGETS,
    TEXTS,
    VARIANTS,
    assert_same_gradients,
    fixed_noise,
    gradients_of,
    make_batch,
    make_model,
    ragged_dataset,
    resized,
    trainer_for,
    training_arguments,
)
from hf_vae import VAEProcessor
from hf_vae.encoders import pool_text, run_encoder
from hf_vae.training import cache_encoder_outputs, encoder_cache, fit_conditional_prior
from hf_vae.training.encoder_cache import CachedOutputs
from hf_vae.training.encoder_outputs import EncoderCache, tokenizer_digest


def frozen(model):
    for name in ("encoder", "source_encoder"):
        if hasattr(model, name):
            getattr(model, name).requires_grad_(False)
    return model


def watched(encoder) -> list[int]:
    """Grows by the number of rows whenever the encoder runs."""
    rows: list[int] = []
    encoder.register_forward_hook(lambda module, arguments, inputs, output: rows.append(len(inputs["input_ids"])), with_kwargs=True)
    return rows


def encode(model, batch):
    """What a pass over a dataset does, with tensors."""
    with torch.no_grad():
        model.eval()(**batch)


# The variants of the family, and what else changes what is read of an encoder.
READ = [(variant, {}) for variant in VARIANTS] + [
    ("vae", {"pooling": "first"}),
    ("cvae", {"pooling": "target"}),
    ("cvae-cross", {"pooling": "pooler"}),
    ("paraphrase-eq", {"prior_type": "conditional", "pooling": "pooler"}),
    ("dialog", {"context_encoding": "hierarchical", "pooling": "first"}),
    ("vae", {"pooling": "attention", "num_latents": 2}),
    ("vae", {"pooling": "local_attention", "num_latents": 2}),
    ("cvae", {"pooling": "attention", "num_latents": 2}),
    ("paraphrase-eq", {"pooling": "attention", "num_latents": 2, "prior_type": "conditional"}),
]


@pytest.mark.parametrize(("variant", "options"), READ, ids=[f"{variant} {options.get('pooling', '')}" for variant, options in READ])
def test_outputs_and_gradients_are_those_of_the_encoder(variant, options, tokenizers, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    model = frozen(make_model(variant, **options))
    batch = make_batch(model, rows=5)
    if options.get("pooling") == "target":
        batch["posterior_token_type_ids"] = (torch.arange(11) > 4).long().expand(5, -1) * batch["posterior_attention_mask"]
    encoders = [getattr(model, name) for name in ("encoder", "source_encoder") if hasattr(model, name)]

    def losses():
        model.zero_grad()
        output = model.train()(**batch)
        output.loss.backward()
        return output, {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}

    expected, gradients = losses()
    caches = {
        name: EncoderCache(getattr(model, name), tmp_path / name, tokenizers[1])
        for name in ("encoder", "source_encoder")
        if hasattr(model, name)
    }
    with CachedOutputs(caches) as outputs:
        for cache in caches.values():
            with cache.adding():
                encode(model, {name: tensor[:3] for name, tensor in batch.items()})
        runs = [watched(encoder) for encoder in encoders]
        # Three rows from disk beside two that the encoder reads now.
        mixed = losses()
        for cache in caches.values():
            with cache.adding():
                encode(model, batch)
        del runs[0][:]
        found = losses()
        assert not runs[0] and outputs.hits and outputs.misses
    for output, grads in (mixed, found):
        torch.testing.assert_close(output.loss, expected.loss)
        assert grads.keys() == gradients.keys() and not any(name.startswith("encoder.") for name in grads)
        norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
        for name, gradient in gradients.items():
            assert (grads[name] - gradient).abs().max().item() <= 1e-6 * norm, name
    losses()
    assert runs[0]


def test_every_variant_is_encoded_from_its_dataset(processor, vae_processor, tmp_path):
    for variant in ("vae", "paraphrase-cross"):
        reader = vae_processor if variant == "vae" else processor
        model = frozen(resized(make_model(variant), reader))
        if hasattr(model, "source_encoder"):
            model.source_encoder.resize_token_embeddings(len(reader.encoder_tokenizer))
            frozen(model)
        data = ragged_dataset(reader, 9)
        with cache_encoder_outputs(model, reader, data, tmp_path / variant, batch_size=4) as outputs:
            assert outputs.hits == outputs.misses == 0 and len(outputs) >= 4
            size = outputs.num_bytes
            encode(model, reader.pad([dict(row) for row in data]))
            assert outputs.misses == 0 < outputs.hits
        # Once more: nothing runs, and nothing is added.
        runs = watched(model.encoder)
        again = cache_encoder_outputs(model, reader, [data, data], tmp_path / variant)
        again.remove()
        assert not runs and again.num_bytes == size
        assert not hasattr(model.encoder, "output_cache")


@pytest.fixture
def encoder():
    return frozen(make_model("vae")).encoder


@pytest.fixture
def cache(encoder, tokenizers, tmp_path):
    return EncoderCache(encoder, tmp_path / "encoder", tokenizers[1])


def test_neither_padding_nor_the_batch_matters_but_what_a_mask_hides_does(encoder, cache):
    ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 5, 6, 7]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with cache.adding():
        cache.vectors("mean", ids, mask, None)
        cache.states(ids, mask, None)
    runs = watched(encoder)
    cache.vectors("mean", ids[:1, :3], None, None)
    # The tokens under the padding are nobody's, and types that are all 0 are none.
    cache.vectors("mean", torch.tensor([[5, 6, 7, 9]]), torch.tensor([[1, 1, 1, 0]]), torch.zeros(1, 4, dtype=torch.long))
    states, _ = cache.states(torch.cat([ids, ids]).flip(0), torch.cat([mask, mask]).flip(0), None)
    assert not runs
    assert torch.equal(states[0], states[2]) and not states[1, 3:].any()
    expected = run_encoder(encoder, ids[:1, :3], None, None)[0]
    torch.testing.assert_close(states[1, :3], expected[0])
    for ids_of, mask_of, types in (
        (ids[:1], torch.tensor([[1, 0, 1, 0, 0]]), None),
        (ids[:1], mask[:1], torch.tensor([[0, 1, 0, 0, 0]])),
        (ids[:1, :2], None, None),
    ):
        del runs[:]
        text = (ids_of, mask_of, types)
        found = cache.vectors("mean", *text)
        assert runs == [1]
        torch.testing.assert_close(found, pool_text("mean", run_encoder(encoder, *text), *text))
    # Another pooling is another vector.
    del runs[:]
    cache.vectors("first", ids, mask, None)
    assert runs == [2]


def test_rows_come_back_after_a_reload_in_every_dtype(tokenizers, tmp_path):
    ids = torch.tensor([[5, 6, 7], [8, 9, 5]])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        encoder = frozen(make_model("vae", pooling="pooler").to(dtype)).encoder
        folder = tmp_path / str(dtype)
        first = EncoderCache(encoder, folder, tokenizers[1])
        with first.adding():
            states, pooled = first.states(ids, None, None)
        runs = watched(encoder)
        again = EncoderCache(encoder, folder, tokenizers[1])
        for found, expected in zip(again.states(ids.flip(0), None, None), (states, pooled)):
            assert found.dtype is dtype and torch.equal(found, expected.flip(0))
        assert not runs and not found.requires_grad


def test_the_encoder_has_no_dropout_although_it_is_trained_with(processor, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(encoder_cache.logger, "warning_once", said.append)
    model = frozen(resized(make_model("paraphrase-prompt"), processor))
    for module in model.encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    data = ragged_dataset(processor, 6)
    rows = processor.pad([dict(row) for row in data])
    with torch.no_grad():
        expected = model.encode(**{name: tensor for name, tensor in rows.items() if name.startswith("posterior")})
    with cache_encoder_outputs(model, processor, data.select(range(3)), tmp_path, batch_size=2):
        # Read from disk, and computed now.
        found = model.train().encode(**{name: tensor for name, tensor in rows.items() if name.startswith("posterior")})
    torch.testing.assert_close(found.latent_dist.mean, expected.latent_dist.mean)
    assert said == ["The encoder has dropout. Its outputs are kept as they are without it, as in evaluation."]


@pytest.mark.parametrize("variant", ["vae", "paraphrase-eq"])
def test_a_trainer_s_gradients_are_equal(variant, vae_processor, processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    processor = vae_processor if variant == "vae" else processor

    def trainer():
        model = frozen(resized(make_model(variant), processor))
        return model, trainer_for(model, processor, tmp_path / "out", max_steps=2, gradient_accumulation_steps=2)

    expected = gradients_of(*trainer())
    model, cached = trainer()
    with cache_encoder_outputs(model, processor, cached.train_dataset, tmp_path / "encoded") as outputs:
        found = gradients_of(model, cached)
    assert_same_gradients(found, expected)
    assert outputs.hits and not outputs.misses


def test_x_is_there_for_a_prior_that_is_fitted_later(processor, tmp_path):
    model = frozen(resized(make_model("paraphrase-prompt"), processor))
    data = ragged_dataset(processor, 6)
    with cache_encoder_outputs(model, processor, data, tmp_path / "encoded", for_prior_fit=True) as outputs:
        assert model.config.prior_type == "standard"
        fit_conditional_prior(model, processor, training_arguments(tmp_path), 2, data)
    assert outputs.hits and not outputs.misses


def test_a_compiled_model_reads_it_too(encoder, cache):
    ids = torch.tensor([[5, 6, 7], [8, 9, 5]])
    expected = cache.vectors("mean", ids, None, None)
    compiled = torch.compile(lambda tokens: cache.vectors("mean", tokens, None, None) * 2, backend="eager")
    torch.testing.assert_close(compiled(ids), expected * 2)


def test_another_encoder_and_another_tokenizer_are_refused(vae_processor, tmp_path):
    model = frozen(resized(make_model("vae"), vae_processor))
    data = ragged_dataset(vae_processor, 4)
    cache_encoder_outputs(model, vae_processor, data, tmp_path).remove()
    other = VAEProcessor(vae_processor.tokenizer, vae_processor.tokenizer)
    assert tokenizer_digest(other.encoder_tokenizer) != tokenizer_digest(vae_processor.encoder_tokenizer)
    with pytest.raises(ValueError, match=r"another encoder or tokenizer \(`tokenizer` is '.*' there and '.*' here\): name another"):
        cache_encoder_outputs(model, other, data, tmp_path)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"another encoder or tokenizer \(`weights` is '.*' there and '.*' here\)"):
        cache_encoder_outputs(model, vae_processor, data, tmp_path)
    (tmp_path / "encoder" / "fingerprint.json").unlink()
    with pytest.raises(OSError, match=r"has no fingerprint.json"):
        cache_encoder_outputs(model, vae_processor, data, tmp_path)
    assert not hasattr(model.encoder, "output_cache")


def test_a_tokenizer_is_the_same_however_it_was_called(vae_processor):
    tokenizer = vae_processor.encoder_tokenizer
    before = tokenizer_digest(tokenizer)
    tokenizer(TEXTS, truncation=True, max_length=4, padding="max_length")
    assert tokenizer_digest(tokenizer) == before


def test_weights_that_change_under_way_are_noticed(vae_processor, tmp_path):
    model = frozen(resized(make_model("vae"), vae_processor))
    data = ragged_dataset(vae_processor, 4)
    batch = vae_processor.pad([dict(row) for row in data])
    with cache_encoder_outputs(model, vae_processor, data, tmp_path):
        # A checkpoint with the same weights changes nothing.
        model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
        encode(model, batch)
        model.encoder.requires_grad_(True)
        with pytest.raises(ValueError, match=r"The encoder has \d+ trained weights \(embeddings.word_embeddings.weight, "):
            encode(model, batch)
        frozen(model)
        with pytest.raises(ValueError, match="The encoder's weights have changed since"):
            encode(model.double(), batch)
        model.float()
        with torch.no_grad():
            next(model.encoder.parameters()).mul_(2)
        with pytest.raises(ValueError, match="The encoder's weights have changed since"):
            encode(model, batch)
    encode(model, batch)


def test_what_changes_in_training_is_refused(vae_processor, processor, tmp_path):
    data = ragged_dataset(vae_processor, 4)
    with pytest.raises(ValueError, match=r"trained weights .*requires_grad_\(False\)"):
        cache_encoder_outputs(resized(make_model("vae"), vae_processor), vae_processor, data, tmp_path)
    noisy = frozen(make_model("paraphrase-eq", source_noise=0.1))
    with pytest.raises(ValueError, match=r"`source_noise` is 0.1: in each step other tokens of x are hidden"):
        cache_encoder_outputs(noisy, processor, data, tmp_path)
    # Here the decoder reads x in its prompt, where the noise is, and nobody reads it through the encoder.
    pairs = ragged_dataset(processor, 4)
    model = frozen(resized(make_model("paraphrase-prompt", source_noise=0.1), processor))
    cache_encoder_outputs(model, processor, pairs, tmp_path).remove()


def test_adapters_in_the_encoder_are_refused(vae_processor, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(resized(make_model("vae"), vae_processor), LoraConfig(target_modules=["query"], r=2))
    with pytest.raises(ValueError, match=r"trained weights \(encoder.layer.0.*lora_A.*leave adapters out of it"):
        cache_encoder_outputs(model, vae_processor, ragged_dataset(vae_processor, 4), tmp_path)


def test_a_pass_that_breaks_off_leaves_nothing_half_written(vae_processor, tmp_path, monkeypatch):
    model = frozen(resized(make_model("vae"), vae_processor))
    data = Dataset.from_list([dict(vae_processor(text, text, return_tensors=None)) for text in TEXTS + TARGETS[:3]])
    runs = watched(model.encoder)

    def stop(*_):
        if len(runs) == 3:
            raise KeyboardInterrupt

    handle = model.encoder.register_forward_hook(stop)
    monkeypatch.setattr("hf_vae.training.encoder_cache._ROWS_OF_A_PART", 4)
    with pytest.raises(KeyboardInterrupt):
        cache_encoder_outputs(model.train(), vae_processor, data, tmp_path, batch_size=2)
    handle.remove()
    # The first part of two was finished; of the second nothing is there.
    assert len(list((tmp_path / "encoder").glob("part-*"))) == 1
    assert not list((tmp_path / "encoder").glob("unfinished-*"))
    assert model.training and not hasattr(model.encoder, "output_cache")
    del runs[:]
    cache_encoder_outputs(model, vae_processor, data, tmp_path, batch_size=2).remove()
    assert sum(runs) == 4
