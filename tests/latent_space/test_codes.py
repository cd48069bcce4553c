"""Codes, reconstructions, samples and neighbours, against the model's own encoder and decoder."""

import math
import warnings

import pytest
import torch
from torch import nn

from helpers import TEXTS, make_model, posterior_means, resized
from hf_vae import (
    CVAEProcessor,
    DialogCVAEProcessor,
)
from hf_vae.latent_space import (
    arithmetic,
    decode_latents,
    encode_texts,
    fit_prior,
    impute,
    interpolate,
    interpolate_latents,
    move,
    nearest_neighbours,
    reconstruct,
    sample_prior,
    transfer,
)
from hf_vae.prior import GaussianMixturePrior

SHORT = {"max_new_tokens": 6}


def test_codes_are_the_encoders_and_do_not_depend_on_batches(vae, vae_processor):
    alone = torch.cat([posterior_means(vae, vae_processor, [text]) for text in TEXTS])
    for batch_size in (1, 2, 10):
        torch.testing.assert_close(encode_texts(vae, vae_processor, TEXTS, batch_size=batch_size).mean, alone)
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    decoded = [decode_latents(vae, vae_processor, latents, batch_size, **SHORT) for batch_size in (1, 2, 10)]
    assert decoded[0] == decoded[1] == decoded[2]
    assert len(set(decoded[0])) > 1


def test_training_flags_come_back_as_they_were(vae, vae_processor):
    vae.train()
    vae.encoder.eval()
    seen = []
    vae.decoder.register_forward_hook(lambda module, *_: seen.append((module.training, torch.is_grad_enabled())))
    reconstruct(vae, vae_processor, TEXTS[0], **SHORT)
    assert set(seen) == {(False, False)}
    assert vae.training and vae.decoder.training and not vae.encoder.training
    with pytest.raises(ValueError, match="`latents` are given"):
        decode_latents(vae, vae_processor, torch.zeros(1, 4), latent_source="prior")
    assert vae.training and torch.is_grad_enabled()


def test_unknown_words_that_are_tokens_stay_in_the_text(vae, vae_processor):
    """PTB is full of them."""
    unknown = vae_processor.tokenizer.unk_token_id
    said = decode_latents(
        vae, vae_processor, torch.zeros(1, 4), max_new_tokens=1, prefix_allowed_tokens_fn=lambda row, ids: [unknown]
    )
    assert said == [vae_processor.tokenizer.unk_token]


def test_the_mean_is_what_generate_decodes_at_temperature_zero(vae, vae_processor):
    output = reconstruct(vae, vae_processor, TEXTS, batch_size=2, **SHORT)
    sequences = vae.generate(**vae_processor(TEXTS), latent_temperature=0.0, do_sample=False, **SHORT)
    assert output.texts == [text.strip() for text in vae_processor.batch_decode(sequences, skip_special_tokens=True)]
    torch.testing.assert_close(output.latents, posterior_means(vae, vae_processor, TEXTS))


def test_samples_have_the_posteriors_moments_and_their_own_seeds(vae, vae_processor):
    posterior = encode_texts(vae, vae_processor, TEXTS[:2])
    options = {"latent_temperature": 0.5, "num_return_sequences": 2_000, "max_new_tokens": 1}
    output = reconstruct(vae, vae_processor, TEXTS[:2], batch_size=1_000, **options)
    samples = output.latents.view(2, 2_000, 4)
    assert len(output.texts) == 4_000
    standard_error = 0.5 * posterior.std / math.sqrt(2_000)
    assert ((samples.mean(1) - posterior.mean) / standard_error).abs().max() < 4
    torch.testing.assert_close(samples.std(1), 0.5 * posterior.std, rtol=0.1, atol=0)
    # The first text's noise is the same without the second text.
    alone = reconstruct(vae, vae_processor, TEXTS[0], latent_temperature=0.5, num_return_sequences=3, **SHORT)
    torch.testing.assert_close(alone.latents, samples[0, :3])
    other = reconstruct(vae, vae_processor, TEXTS[0], latent_temperature=0.5, num_return_sequences=3, seed=1, **SHORT)
    assert not torch.allclose(other.latents, alone.latents)


def test_prior_samples_are_standard_or_the_fitted_priors(vae, vae_processor):
    output = sample_prior(vae, vae_processor, 2_000, seed=0, batch_size=2_000, max_new_tokens=1)
    assert output.latents.mean(0).abs().max() < 4 / math.sqrt(2_000)
    torch.testing.assert_close(output.latents.std(0), torch.ones(4), rtol=0.1, atol=0)
    few = sample_prior(vae, vae_processor, 5, seed=0, batch_size=2, **SHORT)
    torch.testing.assert_close(few.latents, output.latents[:5])
    assert few.texts == decode_latents(vae, vae_processor, few.latents, **SHORT)
    assert not sample_prior(vae, vae_processor, 2, latent_temperature=0.0, **SHORT).latents.any()
    prior = GaussianMixturePrior.from_components(torch.ones(1), torch.full((1, 4), 7.0), torch.full((1, 4), -10.0))
    fitted = sample_prior(vae, vae_processor, 3, fitted_prior=prior, **SHORT)
    torch.testing.assert_close(fitted.latents, torch.full((3, 4), 7.0), atol=0.1, rtol=0)


def test_prior_samples_are_new_at_every_call_and_follow_from_the_seed_of_torch(vae, vae_processor):
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws += [sample_prior(vae, vae_processor, 2, **SHORT).latents for _ in range(2)]
    assert torch.equal(draws[0], draws[2]) and torch.equal(draws[1], draws[3]) and not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("configured, length", [({}, 20), ({"max_new_tokens": 7}, 7), ({"max_length": 6}, 5)], ids=str)
def test_a_length_comes_from_the_model_or_is_a_long_sentence_s(vae, vae_processor, monkeypatch, configured, length):
    monkeypatch.setattr("hf_vae.generation_vae.DEFAULT_NEW_TOKENS", 20)
    for name, value in configured.items():
        setattr(vae.generation_config, name, value)
    given = []
    generate = vae.generate
    monkeypatch.setattr(vae, "generate", lambda **options: given.append(out := generate(**options)) or out)
    # No text ends by itself.
    vae.generation_config.eos_token_id = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reconstruct(vae, vae_processor, "the cat sat")
        sample_prior(vae, vae_processor, 2)
        interpolate(vae, vae_processor, "the cat", "a dog", steps=2)
    assert [out.shape[1] for out in given] == [1 + length] * 3
    assert reconstruct(vae, vae_processor, "the cat sat", max_new_tokens=3) and given[-1].shape[1] == 4


def test_words_that_the_model_does_not_know_give_one_warning_a_call(vae_processor, caplog):
    model = resized(make_model("vae"), vae_processor)
    unknown = vae_processor.encoder_tokenizer.unk_token
    text = f"the cat sat {unknown}"
    for call in (
        lambda: reconstruct(model, vae_processor, [text] * 3, batch_size=1, **SHORT),
        lambda: interpolate(model, vae_processor, text, "the mat", **SHORT),
        lambda: arithmetic(model, vae_processor, text, text, "the mat", **SHORT),
        lambda: impute(model, vae_processor, f"{text} ____", max_rounds=2, num_beams=1),
    ):
        caplog.clear()
        call()
        messages = [record.getMessage() for record in caplog.records if "vocabulary" in record.getMessage()]
        assert len(messages) == 1 and "% of the texts' tokens" in messages[0]
    caplog.clear()
    reconstruct(model, vae_processor, "the cat sat", **SHORT)
    impute(model, vae_processor, "the cat ____", max_rounds=2, num_beams=1)
    assert "vocabulary" not in caplog.text


def test_paths_and_analogies_of_a_conditional_model_take_its_sources(conditional, processor):
    sources, texts = TEXTS[:3], TEXTS[2:]
    means = encode_texts(conditional, processor, texts[:2], sources=[sources[0]] * 2).mean
    path = interpolate(conditional, processor, *texts[:2], steps=3, sources=sources[0], **SHORT)
    torch.testing.assert_close(path.latents[[0, -1]], means)
    assert path.texts == decode_latents(conditional, processor, path.latents, **processor(sources[0]), **SHORT)
    analogies = arithmetic(conditional, processor, texts[:2], texts[:2], texts[1:3], sources=sources[:2], **SHORT)
    torch.testing.assert_close(analogies.latents, encode_texts(conditional, processor, texts[1:3], sources=sources[:2]).mean)
    assert analogies.texts == decode_latents(conditional, processor, analogies.latents, **processor(sources[:2]), **SHORT)
    with pytest.raises(ValueError, match="3 `sources` for 1 `start`, 1 `end`"):
        interpolate(conditional, processor, *texts[:2], sources=sources)


def test_a_conditional_model_is_given_its_sources(conditional, processor):
    sources, texts = TEXTS[:3], TEXTS[2:]
    output = reconstruct(conditional, processor, texts, sources=sources, batch_size=2, **SHORT)
    inputs = processor(sources, texts)
    sequences = conditional.generate(**inputs, latent_source="posterior", latent_temperature=0.0, do_sample=False, **SHORT)
    assert output.texts == [text.strip() for text in processor.batch_decode(sequences, skip_special_tokens=True)]
    # Conditioning goes through as generate's own keywords: one row for all, or one for each.
    source, latents = processor(sources[0]), output.latents
    shared = decode_latents(conditional, processor, latents, batch_size=2, **source, **SHORT)
    assert shared == decode_latents(conditional, processor, latents, **processor([sources[0]] * 3), **SHORT)
    path = interpolate(conditional, processor, latents[0], latents[1], steps=3, **source, **SHORT)
    assert path.texts == decode_latents(conditional, processor, path.latents, **source, **SHORT)
    drawn = sample_prior(conditional, processor, 3, batch_size=2, **source, **SHORT)
    sequences = conditional.generate(**source, latents=drawn.latents, do_sample=False, **SHORT)
    assert drawn.texts == [text.strip() for text in processor.batch_decode(sequences, skip_special_tokens=True)]
    with pytest.raises(ValueError, match="reads source and text together"):
        reconstruct(conditional, processor, texts, **SHORT)
    with pytest.raises(ValueError, match="2 `sources` for 3 `texts`"):
        reconstruct(conditional, processor, texts, sources=sources[:2], **SHORT)
    with pytest.raises(ValueError, match="has 2 rows"):
        decode_latents(conditional, processor, latents, **processor(sources[:2]))


def test_a_prior_network_is_given_the_source(processor):
    model = resized(make_model("cvae"), processor).train()
    cvae_processor = CVAEProcessor(processor.tokenizer, processor.encoder_tokenizer)
    source = cvae_processor(TEXTS[0])
    output = sample_prior(model, cvae_processor, 500, batch_size=500, **source, max_new_tokens=1)
    assert model.training
    prior = model.eval().prior(input_ids=source["input_ids"], attention_mask=source["attention_mask"]).latent_dist
    assert not output.latents.requires_grad
    torch.testing.assert_close(output.latents.mean(0), prior.mean[0], atol=0.2, rtol=0)
    torch.testing.assert_close(sample_prior(model, cvae_processor, 1, 0.0, **source, **SHORT).latents, prior.mean.detach())
    several = cvae_processor(TEXTS[:3])
    means = sample_prior(model, cvae_processor, 3, 0.0, **several, **SHORT).latents
    torch.testing.assert_close(
        means, model.prior(input_ids=several["input_ids"], attention_mask=several["attention_mask"]).latent_dist.mean.detach()
    )
    with pytest.raises(ValueError, match="`input_ids` has 3 rows; expected 1, or one for each of 2 samples"):
        sample_prior(model, cvae_processor, 2, **several, **SHORT)


def test_a_dialogue_is_a_source(tokenizers):
    processor = DialogCVAEProcessor(*tokenizers)
    model = resized(make_model("dialog-acts", num_acts=None), processor)
    talk = [{"role": "ann", "content": "the cat"}, {"role": "bob", "content": "a dog"}]
    both = encode_texts(model, processor, ["the mat", "a park"], sources=[talk, talk[:1]])
    alone = encode_texts(model, processor, "a park", sources=talk[:1])
    torch.testing.assert_close(both.mean[1:], alone.mean)
    assert len(reconstruct(model, processor, ["the mat", "a park"], sources=[talk, talk[:1]], **SHORT).texts) == 2
    assert len(reconstruct(model, processor, "the mat", sources=talk, **SHORT).texts) == 1
    again = encode_texts(model, processor, ["the mat", "a park"], sources=iter([talk, talk[:1]]))
    torch.testing.assert_close(again.mean, both.mean)
    path = interpolate(model, processor, "the mat", "a park", steps=3, sources=talk, **SHORT)
    assert len(path.texts) == 3 and path.texts[0] == reconstruct(model, processor, "the mat", sources=talk, **SHORT).texts[0]
    several = [talk, talk[:1]]
    once = reconstruct(model, processor, ["the mat", "a park"], sources=iter(several), **SHORT)
    assert once.texts == reconstruct(model, processor, ["the mat", "a park"], sources=several, **SHORT).texts
    assert len(transfer(model, processor, (talk, "the mat"), several, **SHORT).texts) == 2
    assert len(transfer(model, processor, (talk, "the mat"), talk, **SHORT).texts) == 1
    assert len(arithmetic(model, processor, ["the mat"] * 2, ["a park"] * 2, ["the cat"] * 2, sources=several, **SHORT).texts) == 2
    assert len(arithmetic(model, processor, "the mat", "a park", "the cat", sources=[talk], **SHORT).texts) == 1
    with pytest.raises(ValueError, match="`sources`: Dialogue 1 has no turns"):
        encode_texts(model, processor, ["the mat", "a park"], sources=[talk, {"messages": []}])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_the_nearest_by_brute_force(vae, vae_processor, metric):
    found = nearest_neighbours(vae, vae_processor, TEXTS[:2], TEXTS, k=3, metric=metric, batch_size=2)
    means = posterior_means(vae, vae_processor, TEXTS)
    if metric == "euclidean":
        distances = torch.cdist(means[:2], means)
    else:
        distances = 1 - nn.functional.cosine_similarity(means[:2].unsqueeze(1), means, dim=-1)
    nearest, indices = distances.topk(3, largest=False)
    torch.testing.assert_close(found.distances, nearest, atol=1e-3, rtol=1e-3)
    assert found.indices.tolist() == indices.tolist()
    assert [row[0] for row in found.texts] == TEXTS[:2]
    again = nearest_neighbours(
        vae, vae_processor, found.latents, TEXTS, k=3, metric=metric, corpus_latents=found.corpus_latents, batch_size=5
    )
    assert again.texts == found.texts


def test_bad_texts_and_latents_are_named(vae, vae_processor):
    broken = torch.tensor([[0.0] * 4, [float("nan")] * 4])
    for call, message in (
        (lambda: reconstruct(vae, vae_processor, []), "`texts` is an empty list"),
        (lambda: reconstruct(vae, vae_processor, ["a", " "]), r"`texts` holds no text at position\(s\) \[1\]"),
        (lambda: reconstruct(vae, vae_processor, "a", sources="b"), "reads the text alone"),
        (lambda: reconstruct(vae, vae_processor, "a", num_return_sequences=0), "`num_return_sequences` is 0"),
        (lambda: reconstruct(vae, vae_processor, "a", latent_temperature=-1.0), "`latent_temperature` is -1.0"),
        (lambda: reconstruct(vae, vae_processor, "a", batch_size=0), "`batch_size` is 0"),
        (lambda: sample_prior(vae, vae_processor, 0), "`num_samples` is 0"),
        (lambda: sample_prior(vae, vae_processor, 1, fitted_prior=GaussianMixturePrior(1, 3)), "over 3 dimensions"),
        (lambda: decode_latents(vae, vae_processor, torch.zeros(2, 3)), r"`latents` has shape \(2, 3\)"),
        (lambda: decode_latents(vae, vae_processor, broken), r"not finite in row\(s\) \[1\]"),
        (lambda: decode_latents(vae, vae_processor, broken[:1], num_return_sequences=2), "each z gives one text"),
        (lambda: decode_latents(vae, vae_processor, torch.zeros(2, 4, dtype=torch.complex64)), "`latents` holds torch.complex64"),
        (lambda: interpolate(vae, vae_processor, torch.zeros(4), torch.ones(4), sources="a"), "reads the text alone"),
        (lambda: interpolate(vae, vae_processor, "a", "b", steps=1), "`steps` is 1"),
        (lambda: interpolate(vae, vae_processor, "a", "b", steps=2.5), "`steps` is 2.5; it must be a whole number"),
        (lambda: arithmetic(vae, vae_processor, "a", "b", "c", scale=float("nan")), "`scale` is nan"),
        (lambda: move(vae, vae_processor, "a", torch.zeros(4), scale="2"), "`scale` is '2'"),
        (lambda: nearest_neighbours(vae, vae_processor, "a", TEXTS, k=2.5), "`k` is 2.5; it must be from 1 to the 5"),
        (lambda: fit_prior(vae, vae_processor, TEXTS, "2"), "`num_components` is '2'; it must be from 1 to"),
        (lambda: interpolate(vae, vae_processor, "a", "b", method="cubic"), "`method`"),
        (lambda: interpolate(vae, vae_processor, ["a", "b"], "b"), "`start` holds 2"),
        (lambda: interpolate_latents(torch.zeros(2), torch.zeros(3), 3), "must both be of shape"),
        (lambda: arithmetic(vae, vae_processor, "a", "b", broken), "`c` has latents that are not finite"),
        (lambda: move(vae, vae_processor, "a", torch.zeros(1, 4)), r"`vector` has shape \(1, 4\)"),
        (lambda: nearest_neighbours(vae, vae_processor, "a", TEXTS, k=6), "`k` is 6; it must be from 1 to the 5"),
        (lambda: nearest_neighbours(vae, vae_processor, "a", TEXTS, metric="edit"), "`metric`"),
        (lambda: nearest_neighbours(vae, vae_processor, "a", TEXTS, corpus_latents=torch.zeros(2, 4)), "2 `corpus_latents` for 5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
