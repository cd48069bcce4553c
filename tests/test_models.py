"""What every model of the family does: one list of behaviours, run over all variants."""

import math

import pytest
import torch
from conftest import (
    BOS,
    EOS,
    PAD,
    UNK,
    VARIANTS,
    VOCAB,
    generation_inputs,
    make_batch,
    make_model,
    tiny_encoder_config,
    tiny_gpt2_config,
    tiny_llama_config,
)
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    DistilBertConfig,
    DPRConfig,
    GenerationConfig,
)
from transformers.utils import ModelOutput

from hf_vae import DiagonalGaussian, GaussianMixturePrior, VAEConfig, VAEModel
from hf_vae.evaluation.likelihood import call_with

# The objective ------------------------------------------------------------------------------------------------------------


def test_loss_is_the_negative_elbo_per_token_in_evaluation(model, batch):
    output = model(**batch)
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)
    assert output.reconstruction_loss.shape == output.kl.shape == (3,)


def test_reconstruction_is_the_sum_of_token_log_probabilities(model, batch):
    latents = torch.randn(3, 4)
    output = model(**batch, latents=latents)
    labels, log_probs = batch["labels"], output.logits.log_softmax(-1)
    for row in range(3):
        nats = -sum(log_probs[row, t, labels[row, t]] for t in range(labels.shape[1]) if labels[row, t] != -100)
        of_act = 0 if output.act_loss is None else output.act_loss[row]
        torch.testing.assert_close(output.reconstruction_loss[row], nats + of_act)
    assert output.kl is None


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_kl_weight_scales_the_kl_alone(model, batch, weight):
    model.train()
    model.kl_weight.fill_(weight)
    output = model(**batch)
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + weight * output.kl).sum() / tokens)
    assert output.logits is None
    assert model(**batch, output_logits=True).logits is not None


def test_free_bits_change_the_loss_and_not_the_reported_kl(variant):
    model = make_model(variant, free_bits=100.0).train()
    batch = make_batch(model)
    output = model(**batch)
    tokens = (batch["labels"] != -100).sum()
    assert output.kl.max() < 100
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + 100.0).sum() / tokens)
    output = model.eval()(**batch)
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)


CONDITIONAL = [variant for variant in VARIANTS if not variant.startswith("vae")]


@pytest.mark.parametrize("variant", CONDITIONAL, indirect=True)
def test_hybrid_is_the_convex_sum_of_elbo_and_gsnn(variant):
    model = make_model(variant, objective="hybrid", hybrid_alpha=0.3, free_bits=2.0, bow_loss_weight=0.5).train()
    model.kl_weight.fill_(0.7)
    batch = make_batch(model)
    seen = []
    decode = model.decode
    model.decode = lambda latents, *args, **kwargs: (seen.append(latents.detach()), decode(latents, *args, **kwargs))[1]
    torch.manual_seed(3)
    output = model(**batch)
    elbo = output.reconstruction_loss + 0.7 * output.kl.clamp(min=2.0) + 0.5 * output.bow_loss
    mixed = 0.3 * elbo + 0.7 * output.prior_reconstruction_loss
    torch.testing.assert_close(output.loss, mixed.sum() / (batch["labels"] != -100).sum())
    # Its two halves are what the two objectives would have charged for the same z.
    for latents, part in zip(seen[:], (output.reconstruction_loss, output.prior_reconstruction_loss), strict=True):
        torch.testing.assert_close(model(**batch, latents=latents).reconstruction_loss, part)
    # The second z knows nothing of y: it is noise under the prior.
    torch.manual_seed(3)
    torch.randn(3, 4)
    prior = call_with(model.prior, batch, batch_size=3).latent_dist
    torch.testing.assert_close(seen[1], prior.mean + prior.std * torch.randn(3, 4))
    output = model.eval()(**batch)
    assert output.prior_reconstruction_loss is None
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / (batch["labels"] != -100).sum())


@pytest.mark.parametrize("variant", CONDITIONAL, indirect=True)
def test_with_q_set_to_p_the_elbo_is_the_gsnn_objective(variant, monkeypatch):
    cvae, gsnn = (make_model(variant, objective=objective).train() for objective in ("cvae", "gsnn"))
    batch = make_batch(cvae)
    recognise = "_recognise" if variant.startswith("dialog") else "encode"
    monkeypatch.setattr(cvae, recognise, lambda *args: call_with(cvae.prior, batch, batch_size=3))
    losses = []
    for model in (cvae, gsnn):
        torch.manual_seed(0)
        losses.append(model(**batch).loss)
    torch.testing.assert_close(*losses, atol=1e-6, rtol=0)
    # Nothing reads y before it is predicted.
    without_pair = {name: tensor for name, tensor in batch.items() if not name.startswith("posterior")}
    torch.manual_seed(0)
    torch.testing.assert_close(gsnn(**without_pair).loss, losses[1])


@pytest.mark.parametrize("free_bits_per", ["dimension", "batch"])
def test_free_bits_of_dimensions(free_bits_per):
    model = make_model("vae", free_bits=0.3, free_bits_per=free_bits_per).train()
    batch = make_batch(model)
    output = model(**batch)
    kl = DiagonalGaussian(output.posterior_mean, output.posterior_logvar).kl(DiagonalGaussian.standard(3, 4))
    torch.testing.assert_close(output.kl, kl.sum(-1))
    charged = kl.clamp(min=0.3).sum() if free_bits_per == "dimension" else 3 * kl.mean(0).clamp(min=0.3).sum()
    assert charged > kl.sum()
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss.sum() + charged) / tokens)


def test_a_capacity_is_approached_from_both_sides():
    for capacity, sign in ((0.0, 1), (1000.0, -1)):
        model = make_model("vae", capacity=capacity).train()
        model.kl_weight.fill_(2.0)
        batch = make_batch(model)
        output = model(**batch)
        tokens = (batch["labels"] != -100).sum()
        distance = sign * (output.kl.mean() - capacity)
        torch.testing.assert_close(output.loss, (output.reconstruction_loss + 2.0 * distance).sum() / tokens)
        output = model.eval()(**batch)
        torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)


def test_batch_norm_keeps_the_kl_above_its_bound(variant):
    model = make_model(variant, batch_norm_gamma=0.8).train()
    batch = make_batch(model, rows=32)
    with torch.no_grad():
        model.posterior.linear.weight *= 0.1  # an encoder that says little
    output = model(**batch)
    torch.testing.assert_close(output.posterior_mean.std(0, correction=0), torch.full((4,), 0.8), atol=0.05, rtol=0)
    assert output.kl.mean() >= output.posterior_mean.square().sum(-1).mean() / 2 > 4 * 0.75**2 / 2
    with pytest.raises(ValueError, match="train with at least two"):
        model(**make_batch(model, rows=1))
    # In evaluation a row's posterior is its own, whatever stands beside it.
    model.eval()
    together = model(**batch).posterior_mean
    alone = model(**{name: tensor[:1] for name, tensor in batch.items()}).posterior_mean
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)


def test_bag_of_words_loss_is_the_words_cross_entropy_and_counts_in_training_alone(variant):
    model = make_model(variant, bow_loss_weight=0.5).train()
    batch = make_batch(model)
    latents, labels = torch.randn(3, 4), batch["labels"]
    seen = {}
    model.bow.words.register_forward_hook(lambda module, args, output: seen.update(log_probs=output.log_softmax(-1)))
    output = model(**batch, latents=latents)
    expected = [-seen["log_probs"][row, labels[row][labels[row] != -100]].sum() for row in range(3)]
    torch.testing.assert_close(output.bow_loss, torch.stack(expected))
    tokens = (labels != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + 0.5 * output.bow_loss).sum() / tokens)
    assert not torch.allclose(output.bow_loss, model(**batch, latents=-latents).bow_loss)
    output = model.eval()(**batch)
    torch.testing.assert_close(output.loss, (output.reconstruction_loss + output.kl).sum() / tokens)


def test_the_bag_of_words_of_a_conditional_model_sees_the_source():
    for variant, name in (
        ("paraphrase-prompt", "prompt_input_ids"),
        ("paraphrase-eq", "input_ids"),
        ("paraphrase-lstm", "input_ids"),
    ):
        model = make_model(variant, bow_loss_weight=1.0)
        batch = make_batch(model)
        other = {**batch, name: batch[name].flip(0), name.replace("input_ids", "attention_mask"): batch[
            name.replace("input_ids", "attention_mask")].flip(0)}  # fmt: skip
        first, second = (model(**inputs, latents=torch.ones(3, 4)).bow_loss for inputs in (batch, other))
        assert (first - second).abs()[[0, 2]].min() > 1e-4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective": "wake-sleep"}, "`objective` is 'wake-sleep'"),
        ({"hybrid_alpha": 1.5}, "`hybrid_alpha` is 1.5"),
        ({"objective": "gsnn", "free_bits": 2.0}, "has no KL"),
        ({"prior_type": "learned"}, "`prior_type` is 'learned'"),
        ({"prior_regularization": 1.0}, "`prior_regularization` has nothing to do"),
        ({"prior_type": "conditional", "prior_regularization": -1.0}, "`prior_regularization` is -1.0"),
        ({"source_noise": 1.0}, "`source_noise` is 1.0"),
    ],
)
def test_bad_objectives_are_named(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        make_model("paraphrase-prompt", **options)


def test_padding_changes_nothing(model, batch):
    def widen(name, tensor):
        if not name.endswith(("input_ids", "attention_mask", "labels")) or tensor.ndim < 2:
            return tensor
        fill = -100 if name == "labels" else 0
        pad = tensor.new_full((*tensor.shape[:-1], 3), fill)
        return torch.cat([pad, tensor] if name.startswith("prompt") else [tensor, pad], dim=-1)

    latents = torch.randn(3, 4)
    wide = {name: widen(name, tensor) for name, tensor in batch.items()}
    plain, padded = (model(**inputs, latents=latents).reconstruction_loss for inputs in (batch, wide))
    torch.testing.assert_close(plain, padded, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(model(**batch).kl, model(**wide).kl, atol=1e-5, rtol=1e-6)


def test_rows_do_not_see_each_other(model, batch):
    latents = torch.randn(3, 4)
    together = model(**batch, latents=latents).reconstruction_loss
    for row in range(3):
        alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        torch.testing.assert_close(model(**alone, latents=latents[row : row + 1]).reconstruction_loss[0], together[row])


def test_every_parameter_has_a_gradient(model, batch):
    model.train()
    model(**batch).loss.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    # Positions that no token of the batch stands on, and BERT's padding, are the only rows without; no whole tensor is.
    assert not missing


def test_each_row_has_its_own_noise():
    """With the same input twice, equal reconstructions would mean one z for the whole batch."""
    model = make_model("vae")
    batch = {name: tensor[:1].repeat(8, 1) for name, tensor in make_batch(model).items()}
    assert model(**batch).reconstruction_loss.unique().numel() == 8


# Word dropout -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_inputless_decoder_reads_neither_words_nor_loses_start_prompt_and_padding(variant, training):
    model = make_model(variant, word_dropout=1.0, word_dropout_token_id=UNK).train(training)
    batch = make_batch(model)
    seen = {}
    model.decoder.lm.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.update(ids=args[0]))
    model(**batch)
    prompt = batch["prompt_input_ids"].shape[1] if "prompt_input_ids" in batch else 0
    assert (seen["ids"][:, prompt] == BOS).all()
    if prompt:
        assert torch.equal(seen["ids"][:, :prompt], batch["prompt_input_ids"])
    words = seen["ids"][:, prompt + 1 :]
    observed = batch["labels"][:, :-1] != -100
    assert (words[observed] == UNK).all() and (words[~observed] == PAD).all()


def test_word_dropout_is_a_rate_and_only_of_training():
    model = make_model("vae", word_dropout=0.3, word_dropout_token_id=UNK)
    labels = torch.full((200, 20), 7)
    seen = {}
    model.decoder.lm.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.update(ids=args[0]))
    model.train().decode(torch.zeros(200, 4), labels)
    # 3,800 draws: a standard error below 0.008.
    assert (seen["ids"][:, 1:] == UNK).float().mean().item() == pytest.approx(0.3, abs=0.04)
    model.eval().decode(torch.zeros(200, 4), labels)
    assert not (seen["ids"] == UNK).any()


# Parts --------------------------------------------------------------------------------------------------------------------


def test_a_decoder_of_berts_kind_does_not_see_the_words_it_predicts():
    """Such models look both ways unless told: the first logits would then change with the last word."""
    parts = {"encoder": tiny_encoder_config(), "decoder": tiny_encoder_config(bos_token_id=BOS, eos_token_id=EOS), "latent_size": 4}
    model = VAEModel(VAEConfig(**parts)).eval()
    labels = make_batch(model)["labels"].clamp(min=4)
    changed = labels.clone()
    changed[:, 3] = 5 + (changed[:, 3] == 5)
    with torch.no_grad():
        first, second = (model.decode(torch.zeros(3, 4), each) for each in (labels, changed))
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_in_bfloat16_work_together_and_with_float32(variant, tmp_path):
    donor = make_model(variant)
    donor.encoder.to(torch.bfloat16).save_pretrained(tmp_path / "encoder")
    decoder = make_model(variant if "lstm" in variant else "vae").config.decoder
    AutoModelForCausalLM.from_config(decoder).to(torch.bfloat16).save_pretrained(tmp_path / "decoder")
    options = ("source_conditioning", "tie_encoders", "latent_injection", "pooling")
    conditioning = {name: getattr(donor.config, name) for name in options if hasattr(donor.config, name)}
    for dtype, expected in ((torch.float32, torch.float32), ("auto", torch.bfloat16)):
        model = type(donor).from_encoder_decoder_pretrained(
            str(tmp_path / "encoder"), str(tmp_path / "decoder"), dtype=dtype, latent_size=4, **conditioning
        )
        assert {parameter.dtype for parameter in model.parameters()} == {expected}
        batch = make_batch(model)
        output = model.eval()(**batch)
        assert output.kl.dtype == output.reconstruction_loss.dtype == torch.float32
        assert model.generate(**generation_inputs(batch), **GREEDY).shape == (3, 9)


# Saving -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSeq2SeqLM])
def test_a_saved_model_comes_back_through_the_auto_classes(model, batch, tmp_path, auto_class):
    latents = torch.randn(3, 4)
    expected = model(**batch, latents=latents)
    model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)
    torch.testing.assert_close(loaded(**batch, latents=latents).loss, expected.loss, atol=0, rtol=0)
    # Models are built without storage: a KL weight that nobody sets would be whatever memory holds.
    assert loaded.kl_weight.item() == 1.0
    torch.testing.assert_close(loaded(**batch).kl, model(**batch).kl)
    assert (tmp_path / "model.safetensors").exists()
    assert AutoConfig.from_pretrained(tmp_path).auto_map.keys() == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}


def test_the_saved_code_imports_only_what_is_saved_with_it(model, tmp_path):
    model.save_pretrained(tmp_path)
    files = {path.stem for path in tmp_path.glob("*.py")}
    wanted = {
        line.split()[1].removeprefix(".")
        for path in tmp_path.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("from .")
    }
    assert wanted <= files
    assert not any("hf_vae" in line for path in tmp_path.glob("*.py") for line in path.read_text().splitlines() if "import" in line)


def test_latent_options_survive_saving(model, batch, tmp_path):
    model.generation_config.latent_temperature = 0.0
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.generation_config.latent_temperature == 0.0
    inputs = generation_inputs(batch)
    first, second = (loaded.generate(**inputs, max_new_tokens=6, do_sample=False) for _ in range(2))
    assert torch.equal(first, second)


def test_configurations_of_the_parts_are_the_composite_s(model):
    assert model.config.encoder is model.encoder.config
    assert model.config.decoder is model.decoder.lm.config


@pytest.mark.parametrize("variant", VARIANTS)
def test_from_encoder_decoder_pretrained_keeps_the_parts_weights(variant, tmp_path):
    donor = make_model(variant)
    donor.encoder.save_pretrained(tmp_path / "encoder")
    decoder = make_model(variant if variant.startswith("vae") or "lstm" in variant else "vae").config.decoder
    AutoModelForCausalLM.from_config(decoder).save_pretrained(tmp_path / "decoder")
    options = ("source_conditioning", "tie_encoders", "latent_injection", "pooling")
    conditioning = {name: getattr(donor.config, name) for name in options if hasattr(donor.config, name)}
    model = type(donor).from_encoder_decoder_pretrained(
        str(tmp_path / "encoder"), str(tmp_path / "decoder"), latent_size=4, **conditioning
    )
    for name, tensor in donor.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    pretrained = AutoModelForCausalLM.from_pretrained(tmp_path / "decoder").state_dict()
    for name, tensor in pretrained.items():
        assert torch.equal(model.decoder.lm.state_dict()[name], tensor)
    if not getattr(model.config, "tie_encoders", True):
        assert all(torch.equal(a, b) for a, b in zip(model.source_encoder.parameters(), model.encoder.parameters(), strict=True))
    assert model(**make_batch(model)).loss.isfinite()
    with pytest.raises(ValueError, match="has no field named latent_sise"):
        type(donor).from_encoder_decoder_pretrained(str(tmp_path / "encoder"), str(tmp_path / "decoder"), latent_sise=4)


# Generation ---------------------------------------------------------------------------------------------------------------

GREEDY = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}


@pytest.mark.parametrize("use_cache", [True, False])
def test_an_inputless_decoder_does_not_read_what_it_has_written(variant, use_cache):
    """Each word is then the likeliest one of `decode` at its place, which another text before it would not change."""
    model = make_model(variant, word_dropout=1.0, word_dropout_token_id=UNK)
    inputs, latents = generation_inputs(make_batch(model)), torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    for num_beams in (1, 3):
        options = {"num_beams": num_beams, "use_cache": use_cache, "length_penalty": 0.0}
        written = model.generate(**inputs, latents=latents, **options, **GREEDY)[:, 1:]
        with torch.no_grad():
            logits = model.decode(latents, torch.full_like(written, 7), **call_with(model.condition, inputs))
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
        full = model.decode(latents, labels, **call_with(model.condition, inputs)).log_softmax(-1)
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
    model.decoder.project.register_forward_pre_hook(lambda module, args: latents.append(args[0]))
    sequences = model.generate(**inputs, num_return_sequences=8, **GREEDY)
    assert sequences.shape[0] == 8
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
    posterior = call_with(model.encode, {name: tensor for name, tensor in batch.items() if name != "act_labels"}).latent_dist.mode()
    prior = call_with(model.prior, batch, batch_size=3).latent_dist.mode()
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


# Refusals -----------------------------------------------------------------------------------------------------------------


def test_bad_inputs_are_named_before_any_compute(model, batch, variant):
    inputs = generation_inputs(batch)
    with pytest.raises(ValueError, match="`labels` is missing"):
        model(**inputs)
    with pytest.raises(ValueError, match=r"`latents` has shape \(3, 5\); expected \(3, 4\)"):
        model(**batch, latents=torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"expected \(6, 4\), or \(3, 4\) to share"):
        model.generate(**inputs, latents=torch.zeros(4, 4), num_return_sequences=2)
    with pytest.raises(ValueError, match=r"`latents` has shape \(4, 4\); expected \(3, 4\) or a multiple of its rows"):
        model.generate(**inputs, latents=torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"`latents` has shape \(3, 5\)"):
        model.generate(**inputs, latents=torch.zeros(3, 5))
    with pytest.raises(ValueError, match="`latents` are given"):
        model.generate(**inputs, latents=torch.zeros(3, 4), latent_temperature=0.5)
    with pytest.raises(ValueError, match="`num_return_sequences` is 0"):
        model.generate(**inputs, num_return_sequences=0)
    with pytest.raises(ValueError, match=r"`latent_temperature` is -1\.0"):
        model.generate(**inputs, latent_temperature=-1.0)
    with pytest.raises(ValueError, match="`latent_source` is 'aposteriori'; choose one of 'prior', 'posterior', 'fitted_prior'"):
        model.generate(**inputs, latent_source="aposteriori")
    with pytest.raises(ValueError, match="latent_tempreature"):
        model.generate(**inputs, latent_tempreature=1.0)
    if "lstm" not in variant:
        with pytest.raises(ValueError, match="48"):
            model(**{**batch, "labels": torch.ones(3, 60, dtype=torch.long)})


def test_rows_of_padding_are_named(model, batch):
    name = "posterior_attention_mask" if "posterior_attention_mask" in batch else "attention_mask"
    batch[name][1] = 0
    with pytest.raises(ValueError, match=rf"`{name}` is all padding in row\(s\) \[1\]"):
        model(**batch)


def test_rows_without_a_target_are_named(model, batch):
    batch["labels"][2] = -100
    with pytest.raises(ValueError, match=r"`labels` is all padding in row\(s\) \[2\]"):
        model(**batch)


def test_prompts_of_padding_are_named():
    model = make_model("paraphrase-prompt")
    batch = make_batch(model)
    batch["prompt_attention_mask"][0] = 0
    with pytest.raises(ValueError, match=r"`prompt_attention_mask` is all padding in row\(s\) \[0\]"):
        model(**batch)
    with pytest.raises(ValueError, match=r"`prompt_attention_mask` is all padding in row\(s\) \[0\]"):
        model.generate(**generation_inputs(batch))


def test_conditional_models_need_their_source_and_their_pair():
    for variant, name in (("paraphrase-prompt", "prompt_input_ids"), ("paraphrase-eq", "input_ids")):
        model = make_model(variant)
        batch = make_batch(model)
        with pytest.raises(ValueError, match=f"`{name}` is missing"):
            model.generate(**{key: tensor for key, tensor in generation_inputs(batch).items() if key != name})
        with pytest.raises(ValueError, match="`posterior_input_ids` is missing"):
            model.generate(**generation_inputs(batch), latent_source="posterior")


def test_a_vae_names_what_it_lacks():
    model = make_model("vae")
    with pytest.raises(ValueError, match="`input_ids` is missing"):
        model.generate(latent_source="posterior")
    with pytest.raises(ValueError, match="use `num_return_sequences`"):
        model.generate(torch.ones(1, 3, dtype=torch.long), num_samples=3)
    with pytest.raises(ValueError, match="`num_samples` is 0"):
        model.generate(num_samples=0)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if "lstm" not in variant], indirect=True)
def test_a_source_longer_than_the_model_is_refused(model, batch):
    long = torch.full((3, 49), 7)
    name = "posterior_input_ids" if "posterior_input_ids" in batch else "input_ids"
    with pytest.raises(ValueError, match=f"`{name}` is 49 tokens long, but BertConfig holds 48"):
        model(**{**batch, name: long, name.replace("input_ids", "attention_mask"): torch.ones_like(long)})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"latent_size": 0}, "`latent_size` is 0"),
        ({"latent_injection": "osmosis"}, "`latent_injection` is 'osmosis'"),
        ({"latent_injection": []}, "name at least one way in"),
        ({"latent_injection": ["memory", "memory"]}, "each once"),
        ({"prefix_length": 0}, "`prefix_length` is 0"),
        ({"capacity": -1.0}, "`capacity` is -1.0"),
        ({"capacity": 1.0, "free_bits": 1.0}, "stands alone"),
        ({"batch_norm_gamma": 0.0}, "`batch_norm_gamma` is 0.0"),
        ({"bow_loss_weight": -0.1}, "`bow_loss_weight` is -0.1"),
        ({"pooling": "max"}, "`pooling` is 'max'"),
        ({"free_bits": -1.0}, "`free_bits` is -1.0"),
        ({"free_bits_per": "token"}, "`free_bits_per` is 'token'"),
        ({"word_dropout": 1.5, "word_dropout_token_id": 3}, "`word_dropout` is 1.5"),
        ({"word_dropout": 0.5}, "needs `word_dropout_token_id`"),
        ({"latent_size": "eight"}, "latent_size"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        VAEConfig(**options)


def test_cross_attention_needs_a_decoder_that_has_it():
    with pytest.raises(ValueError, match="LlamaForCausalLM has no cross-attention"):
        make_model("paraphrase-eq", decoder="llama")
    with pytest.raises(StrictDataclassError, match="`tie_encoders=False` with `source_conditioning='prompt'`"):
        make_model("paraphrase-prompt", tie_encoders=False)


def test_start_token_falls_back_from_bos_to_eos_to_an_error():
    def config(**tokens):
        decoder = tiny_llama_config()
        for name, token in tokens.items():
            setattr(decoder, name, token)
        return VAEConfig(encoder=tiny_encoder_config(), decoder=decoder)

    assert config().decoder_start_token_id == BOS
    assert config(bos_token_id=None).decoder_start_token_id == EOS
    with pytest.raises(StrictDataclassError, match="marks where the generated text begins"):
        config(bos_token_id=None, eos_token_id=None)


def test_vocabularies_are_resized_where_they_are():
    model = make_model("paraphrase-prompt")
    with pytest.raises(NotImplementedError, match=r"model\.decoder\.resize_token_embeddings"):
        model.resize_token_embeddings(60)
    model.decoder.resize_token_embeddings(60)
    assert model.config.decoder.vocab_size == 60
    assert model(**make_batch(model)).logits.shape[-1] == 60


def test_an_encoder_without_hidden_states_is_refused():
    model = make_model("vae")
    model.encoder.forward = lambda **_: ModelOutput(pooler_output=torch.zeros(3, 16))
    with pytest.raises(ValueError, match="returns no `last_hidden_state`"):
        model(**make_batch(model))


@pytest.mark.parametrize(
    "config, options, message",
    [
        (DPRConfig, {}, "DPRQuestionEncoder returns no `last_hidden_state`"),
        (DistilBertConfig, {"pooling": "pooler"}, "the encoder has no pooler; choose 'mean' or 'first'"),
    ],
)
def test_encoders_that_cannot_serve_are_refused_when_the_model_is_made(tmp_path, config, options, message):
    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if config is DistilBertConfig:
        sizes = {"vocab_size": VOCAB, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    AutoModel.from_config(config(**sizes)).save_pretrained(tmp_path / "encoder")
    AutoModelForCausalLM.from_config(tiny_gpt2_config()).save_pretrained(tmp_path / "decoder")
    with pytest.raises(ValueError, match=message):
        VAEModel.from_encoder_decoder_pretrained(str(tmp_path / "encoder"), str(tmp_path / "decoder"), **options)


def test_prior_log_density_of_nothing_is_log_one():
    """The standard prior's density at its mode, a guard on the constant of the log-density."""
    prior = make_model("vae").prior(1).latent_dist
    assert prior.log_prob(torch.zeros(1, 4)).sum().item() == pytest.approx(-2 * math.log(2 * math.pi))
