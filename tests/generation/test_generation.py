"""`generate` of every variant: one latent a sequence, with a cache and without one."""

import pytest
import torch
from transformers import (
    AutoModel,
    GenerationConfig,
)

from helpers import (
    BOS,
    EOS,
    GREEDY,
    PAD,
    UNK,
    generation_inputs,
    make_batch,
    make_model,
)
from hf_vae import GaussianMixturePrior
from hf_vae.calls import call_with


@pytest.mark.parametrize("use_cache", [True, False])
def test_an_inputless_decoder_does_not_read_what_it_has_written(variant, use_cache):
    """Each word is then the likeliest one of `decode` at its place, which another text before it would not change."""
    model = make_model(variant, word_dropout=1.0, word_dropout_token_id=UNK)
    inputs, latents = generation_inputs(make_batch(model)), torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    for num_beams in (1, 3):
        options = {"num_beams": num_beams, "use_cache": use_cache, "length_penalty": 0.0}
        written = model.generate(**inputs, latents=latents, **options, **GREEDY)[:, 1:]
        with torch.no_grad():
            logits = model.decode(latents, torch.full_like(written, 7), **model.condition(call_with(model.read_source, inputs)))
        # GREEDY asks for eight words, so the end does not come before the last of them.
        logits[:, :-1, model.config.eos_token_id] = -float("inf")
        assert torch.equal(written[:, :-1], logits.argmax(-1)[:, :-1])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_cached_generation_equals_the_uncached_forward(model, batch, num_beams):
    """Left-padded prompts included: the batch's prompts are ragged."""
    inputs, latents = generation_inputs(batch), torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    scores = {"return_dict_in_generate": True, "output_scores": True, "output_logits": num_beams == 1, "length_penalty": 1.0}
    output = model.generate(**inputs, latents=latents, num_beams=num_beams, **GREEDY, **scores)
    labels = output.sequences[:, 1:]
    with torch.no_grad():
        full = model.decode(latents, labels, **model.condition(call_with(model.read_source, inputs))).log_softmax(-1)
    if num_beams == 1:
        torch.testing.assert_close(torch.stack(output.logits, dim=1).log_softmax(-1), full, atol=2e-5, rtol=0)
    else:
        expected = full.gather(-1, labels[..., None]).squeeze(-1).mean(-1)
        torch.testing.assert_close(output.sequences_scores, expected, atol=2e-5, rtol=0)


def test_k_sequences_use_k_latents_and_read_the_source_once(model, batch):
    """8 greedy sequences of one input from a decoder that z moves: two equal z would show as two equal log-probabilities."""
    inputs = {name: tensor[:1] for name, tensor in generation_inputs(batch).items()}
    rows, latents = [], []
    for encoder in (module for name, module in model.named_modules() if name in ("encoder", "source_encoder")):
        encoder.register_forward_hook(lambda module, args, output: rows.append(len(output[0])))
    model.decoder.latent_injection.embedding.projection.register_forward_pre_hook(lambda module, args: latents.append(args[0]))
    sequences = model.generate(**inputs, num_return_sequences=8, **GREEDY)
    assert sequences.shape[0] == 8
    # A source that is read once for all is read without z.
    assert all(len(each) == 8 or not each.any() for each in latents)
    latents = [each for each in latents if len(each) == 8]
    assert latents[0].unique(dim=0).shape[0] == 8
    assert all(torch.equal(latents[0], later) for later in latents)
    # A prompt needs no encoder; everything else is read by one, one row of it.
    config = model.config
    reads = config.model_type == "text-vae" or config.source_conditioning != "prompt" or config.prior_type == "conditional"
    turns = 3 if getattr(config, "context_encoding", "flat") == "hierarchical" else 1
    assert rows == [turns] * reads


def test_sequences_of_an_input_stand_together_and_match_a_batch_of_one(model, batch):
    inputs, latents = generation_inputs(batch), torch.randn(6, 4)
    together = model.generate(**inputs, latents=latents, num_return_sequences=2, **GREEDY)
    for row in range(3):
        alone = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        single = model.generate(**alone, latents=latents[2 * row : 2 * row + 2], num_return_sequences=2, **GREEDY)
        assert torch.equal(single, together[2 * row : 2 * row + 2])
    # As many latents as there are sequences say how many are wanted.
    assert torch.equal(model.generate(**inputs, latents=latents, **GREEDY), together)


def test_output_is_the_start_token_and_new_tokens(model, batch):
    inputs = generation_inputs(batch)
    sequences = model.generate(**inputs, **GREEDY)
    assert (sequences[:, 0] == BOS).all() and sequences.shape[1] == 9
    for shortest in ({"min_new_tokens": 4}, {"min_length": 5}):
        assert model.generate(**inputs, max_length=5, do_sample=False, **shortest).shape[1] == 5


def test_seeds_and_temperature(model, batch):
    inputs = generation_inputs(batch)
    first, second, other = (
        model.generate(**inputs, generator=torch.Generator().manual_seed(seed), num_return_sequences=4, **GREEDY)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    still = model.generate(**inputs, latent_temperature=0.0, num_return_sequences=2, **GREEDY)
    assert torch.equal(still[::2], still[1::2])


def test_default_sources(batch, model, variant):
    """A VAE reconstructs its input from the posterior; a conditional model cannot know y and samples the prior."""
    inputs = generation_inputs(batch)
    mean = model.generate(**inputs, latent_temperature=0.0, **GREEDY)
    is_vae = variant.startswith("vae")
    names = ("input_ids", "attention_mask") if is_vae else ("posterior_input_ids", "posterior_attention_mask")
    source = call_with(model.read_source, batch)
    without_act = {name: tensor for name, tensor in batch.items() if name != "act_labels"}
    posterior = call_with(model.encode, without_act, source=source).latent_dist.mode()
    prior = model.prior(source, 3).latent_dist.mode()
    latents = posterior if is_vae else prior
    assert torch.equal(mean, model.generate(**inputs, latents=latents, **GREEDY))
    from_posterior = model.generate(
        **inputs | {name: batch[name] for name in names}, latent_source="posterior", latent_temperature=0.0, **GREEDY
    )
    assert torch.equal(from_posterior, model.generate(**inputs, latents=posterior, **GREEDY))


def test_a_prior_fitted_after_training_is_saved_and_drawn_from(tmp_path):
    model = make_model("vae")
    with pytest.raises(ValueError, match="this model has none"):
        model.generate(num_samples=2, latent_source="fitted_prior", **GREEDY)
    means = torch.tensor([[5.0, 5.0, 5.0, 5.0], [-5.0, 5.0, -5.0, 5.0]])
    model.set_fitted_prior(GaussianMixturePrior.from_components(torch.tensor([0.0, 1.0]), means, torch.full((2, 4), -20.0)))
    model.generation_config.latent_source = "fitted_prior"
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    expected = model.generate(latents=means[1:].repeat(3, 1), **GREEDY)
    assert torch.equal(again.generate(num_samples=3, **GREEDY), expected)
    assert torch.equal(again.generate(num_samples=1, num_return_sequences=3, **GREEDY), expected)
    with pytest.raises(ValueError, match="over 3 dimensions; the model's z has 4"):
        model.set_fitted_prior(GaussianMixturePrior(2, 3))


def test_without_input_a_vae_samples_its_prior():
    model = make_model("vae")
    assert model.generate(num_samples=5, **GREEDY).shape == (5, 9)
    assert model.generate(latents=torch.randn(3, 4), **GREEDY).shape == (3, 9)
    assert model.generate(**GREEDY).shape == (1, 9)


def test_one_z_shared_by_beams_and_by_samples(model, batch):
    inputs, latents = generation_inputs(batch), torch.randn(3, 4)
    beams = model.generate(**inputs, latents=latents, num_beams=4, num_return_sequences=4, **GREEDY)
    assert beams.shape[0] == 12 and beams[:4].unique(dim=0).shape[0] == 4
    best = model.generate(**inputs, latents=latents, num_beams=4, **GREEDY)
    assert torch.equal(beams[::4], best)


def test_generation_config_object_and_ignored_labels(model, batch):
    inputs = generation_inputs(batch)
    config = GenerationConfig(
        max_new_tokens=8, min_new_tokens=8, do_sample=True, num_return_sequences=2, pad_token_id=PAD, eos_token_id=EOS,
        latent_temperature=0.0,
    )  # fmt: skip
    sequences = model.generate(**inputs, generation_config=config, labels=batch["labels"], do_sample=False)
    assert torch.equal(sequences, model.generate(**inputs, num_return_sequences=2, latent_temperature=0.0, **GREEDY))
    assert config.num_return_sequences == 2 and config.do_sample
    # What it leaves open is the model's own default, as in transformers.
    model.generation_config.latent_temperature = 0.0
    config = GenerationConfig(max_new_tokens=8, min_new_tokens=8, num_return_sequences=2, do_sample=True)
    assert torch.equal(model.generate(**inputs, generation_config=config, do_sample=False), sequences)


@pytest.mark.parametrize("variant", ["vae", "paraphrase-prompt"], indirect=True)
def test_what_is_returned_beside_the_texts_has_a_row_for_each(variant):
    model = make_model(variant)
    inputs, options = (
        generation_inputs(make_batch(model)),
        {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 3},
    )
    latents = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    shared = model.generate(**inputs, latents=latents, num_return_sequences=2, do_sample=True, **options)
    assert len(shared.sequences) == 6 and torch.equal(shared.latents, latents.repeat_interleave(2, 0))
    averaged = model.generate(**inputs, average_latents=4, do_sample=False, **options)
    assert len(averaged.sequences) == 3 and len(averaged.latents) == 12
    for step, scores in enumerate(averaged.scores, start=1):
        assert torch.equal(scores.argmax(-1), averaged.sequences[:, step])
