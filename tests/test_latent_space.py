"""What is done with codes: against closed forms, exact enumeration and the model's own encoder and decoder."""

import copy
import math
import random
import warnings
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from conftest import make_model, tiny_encoder_config, tiny_gpt2_config, tiny_llama_config
from hf_vae.fitted_prior import GaussianMixturePrior
from sacrebleu.metrics.lib_ter import BeamEditDistance
from safetensors.torch import save_file
from sklearn.mixture import GaussianMixture
from test_training import resized
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import BertConfig, PreTrainedModel, PreTrainedTokenizerFast

from hf_vae import (
    CVAEProcessor,
    DiagonalGaussian,
    DialogCVAEProcessor,
    ParaphraseVAEConfig,
    ParaphraseVAEModel,
    VAEConfig,
    VAEModel,
    VAEProcessor,
)
from hf_vae.latent_space import (
    Interpolation,
    arithmetic,
    attribute_vector,
    decode_latents,
    encode_texts,
    fit_prior,
    imputation,
    impute,
    interpolate,
    interpolate_latents,
    move,
    nearest_neighbours,
    prior_log_densities,
    reconstruct,
    sample_prior,
    smoothness,
    word_edit_distance,
)
from hf_vae.latent_space.imputation import UNKNOWN, open_blanks
from hf_vae.latent_space.plots import plot_interpolation, plot_latents

TEXTS = ["the cat sat on the mat", "a dog ran in the park", "the mat", "a park", "the dog sat"]
SHORT = {"max_new_tokens": 6}


def listening(model):
    """A model whose decoder says something else for every z, and whose encoder spreads its codes."""
    with torch.no_grad():
        for name, parameter in [*model.decoder.named_parameters(), *model.posterior.named_parameters()]:
            if not name.startswith("lm."):
                parameter *= 20
    return model.eval()


@pytest.fixture
def vae(vae_processor):
    torch.manual_seed(0)
    encoder, decoder = tiny_encoder_config(), tiny_gpt2_config()
    # A decoder with more rows than its vocabulary has tokens, as pretrained ones often have.
    encoder.vocab_size, decoder.vocab_size = len(vae_processor.encoder_tokenizer), len(vae_processor.tokenizer) + 64
    for name in ("pad", "bos", "eos"):
        setattr(decoder, f"{name}_token_id", getattr(vae_processor.tokenizer, f"{name}_token_id"))
    return listening(VAEModel(VAEConfig(encoder=encoder, decoder=decoder, latent_size=4)))


@pytest.fixture(params=["prompt", "cross_attention"])
def conditional(request, processor):
    torch.manual_seed(0)
    decoder = tiny_llama_config() if request.param == "prompt" else tiny_gpt2_config()
    encoder = tiny_encoder_config()
    encoder.vocab_size, decoder.vocab_size = len(processor.encoder_tokenizer), len(processor.tokenizer)
    for name in ("pad", "bos", "eos"):
        setattr(decoder, f"{name}_token_id", getattr(processor.tokenizer, f"{name}_token_id"))
    processor.source_conditioning = request.param
    parts = {"encoder": encoder, "decoder": decoder, "latent_size": 4}
    return listening(ParaphraseVAEModel(ParaphraseVAEConfig(**parts, source_conditioning=request.param)))


def posterior_means(model, processor, texts):
    with torch.no_grad():
        inputs = processor(texts)
        return model.encode(**{name: inputs[name] for name in ("input_ids", "attention_mask")}).latent_dist.mean


# Codes --------------------------------------------------------------------------------------------------------------------


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


# Reconstruction and samples -----------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("hf_vae.latent_generation.DEFAULT_NEW_TOKENS", 20)
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
    prior = model.eval().prior(1, source["input_ids"], source["attention_mask"]).latent_dist
    assert not output.latents.requires_grad
    torch.testing.assert_close(output.latents.mean(0), prior.mean[0], atol=0.2, rtol=0)
    torch.testing.assert_close(sample_prior(model, cvae_processor, 1, 0.0, **source, **SHORT).latents, prior.mean.detach())
    several = cvae_processor(TEXTS[:3])
    means = sample_prior(model, cvae_processor, 3, 0.0, **several, **SHORT).latents
    torch.testing.assert_close(means, model.prior(3, several["input_ids"], several["attention_mask"]).latent_dist.mean.detach())
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
    with pytest.raises(ValueError, match="`sources`: Dialogue 1 has no turns"):
        encode_texts(model, processor, ["the mat", "a park"], sources=[talk, {"messages": []}])


# Interpolation ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_a_path_starts_and_ends_with_the_reconstructions_of_its_ends(vae, vae_processor, method):
    path = interpolate(vae, vae_processor, TEXTS[0], TEXTS[1], steps=5, method=method, batch_size=2, **SHORT)
    ends = reconstruct(vae, vae_processor, TEXTS[:2], **SHORT)
    assert [path.texts[0], path.texts[-1]] == ends.texts
    torch.testing.assert_close(path.latents[[0, -1]], ends.latents)
    assert path.fractions == [0.0, 0.25, 0.5, 0.75, 1.0] and len(path.texts) == 5
    back = interpolate(vae, vae_processor, ends.latents[1], ends.latents[0], steps=5, method=method, **SHORT)
    assert back.texts == path.texts[::-1]


def test_a_linear_path_is_bowmans():
    start, end = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 2.0])
    expected = torch.tensor([[1.0, -2.0], [1.5, -1.0], [2.0, 0.0], [2.5, 1.0], [3.0, 2.0]])
    torch.testing.assert_close(interpolate_latents(start, end, 5), expected)


def test_a_spherical_path_keeps_the_norm_and_turns_evenly():
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 6, generator=generator)
    end = end * start.norm() / end.norm()
    path = interpolate_latents(start, end, 9, "spherical")
    torch.testing.assert_close(path.norm(dim=1), start.norm().expand(9))
    angles = torch.arccos(nn.functional.cosine_similarity(path[1:], path[:-1]))
    torch.testing.assert_close(angles, angles[:1].expand(8), atol=1e-3, rtol=0)
    # Ends of other norms: the same directions, the norms between.
    longer = interpolate_latents(start, 3 * end, 9, "spherical")
    torch.testing.assert_close(longer.norm(dim=1), start.norm() * torch.linspace(1, 3, 9))
    torch.testing.assert_close(nn.functional.normalize(longer, dim=1), nn.functional.normalize(path, dim=1))
    quarter = interpolate_latents(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 3, "spherical")
    torch.testing.assert_close(quarter[1], torch.tensor([0.5, 0.5]).sqrt())


def test_a_spherical_path_without_a_great_circle_is_the_line():
    vector, zero = torch.tensor([0.3, -1.1, 0.7]), torch.zeros(3)
    for start, end in ((vector, 2 * vector), (vector, vector), (vector, -2 * vector), (zero, vector), (vector, zero), (zero, zero)):
        torch.testing.assert_close(interpolate_latents(start, end, 5, "spherical"), interpolate_latents(start, end, 5))
    # And next to there it goes over into it without a jump.
    nearly = 2 * vector + torch.tensor([1e-4, 0.0, 0.0])
    torch.testing.assert_close(
        interpolate_latents(vector, nearly, 5, "spherical"), interpolate_latents(vector, nearly, 5), atol=1e-4, rtol=0
    )
    # One dimension has two directions only.
    torch.testing.assert_close(
        interpolate_latents(torch.tensor([1.0]), torch.tensor([-1.0]), 3, "spherical"), torch.tensor([[1.0], [0.0], [-1.0]])
    )


def test_edit_distances_by_hand_and_by_sacrebleu():
    assert word_edit_distance("the cat sat", "the cat sat") == 0
    assert word_edit_distance("the cat sat", "the dog sat down") == pytest.approx(2 / 4)
    assert word_edit_distance("a b", "c d") == 1 and word_edit_distance("", "a b") == 1 and word_edit_distance("", "") == 0
    shuffle = random.Random(0)
    for _ in range(50):
        first, second = (" ".join(shuffle.choices("abcd", k=shuffle.randint(1, 9))) for _ in range(2))
        edits, _ = BeamEditDistance(second.split())(first.split())
        assert word_edit_distance(first, second) * max(len(first.split()), len(second.split())) == pytest.approx(edits)


def test_smoothness_of_a_path():
    figures = smoothness(["a b c d", "a b c d", "a b x d", "e f g h"])
    assert figures == pytest.approx({"edit_distance": (0 + 0.25 + 1) / 3, "max_edit_distance": 1, "repeated": 1 / 3})
    for texts in (["a"], [], "a text"):
        with pytest.raises(ValueError, match="at least two texts"):
            smoothness(texts)


def test_a_path_is_drawn_whatever_its_texts_hold(tmp_path):
    texts = ["costs $ 5 and $x^{", "word " * 60, "", "a b"]
    plot_interpolation(Interpolation(texts, torch.zeros(4, 2), [0.0, 1 / 3, 2 / 3, 1.0]), tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 5_000


# Arithmetic ---------------------------------------------------------------------------------------------------------------


def test_arithmetic_is_what_it_says(vae, vae_processor):
    a, b, c = posterior_means(vae, vae_processor, TEXTS[:3])
    output = arithmetic(vae, vae_processor, *TEXTS[:3], scale=0.5, **SHORT)
    torch.testing.assert_close(output.latents, (c + 0.5 * (b - a)).unsqueeze(0))
    assert output.texts == decode_latents(vae, vae_processor, c + 0.5 * (b - a), **SHORT)
    same = arithmetic(vae, vae_processor, TEXTS[0], TEXTS[0], TEXTS, **SHORT)
    assert same.texts == reconstruct(vae, vae_processor, TEXTS, **SHORT).texts
    with pytest.raises(ValueError, match=r"2 `a`, 1 `b`, 3 `c`"):
        arithmetic(vae, vae_processor, TEXTS[:2], TEXTS[0], TEXTS[:3])


def test_an_attribute_moves_its_negatives_mean_onto_its_positives(vae, vae_processor):
    vector = attribute_vector(vae, vae_processor, TEXTS[:2], TEXTS[2:])
    means = posterior_means(vae, vae_processor, TEXTS)
    moved = move(vae, vae_processor, TEXTS[2:], vector, **SHORT)
    torch.testing.assert_close(moved.latents.mean(0), means[:2].mean(0))
    torch.testing.assert_close(move(vae, vae_processor, means, vector, scale=-2.0, **SHORT).latents, means - 2 * vector)
    assert (
        move(vae, vae_processor, TEXTS, vector, scale=0.0, **SHORT).texts == reconstruct(vae, vae_processor, TEXTS, **SHORT).texts
    )


# Imputation ---------------------------------------------------------------------------------------------------------------


def log_likelihood(model, processor, tokens, latents):
    labels = torch.tensor([[*tokens, processor.tokenizer.eos_token_id]])
    return -model(latents=latents, labels=labels).reconstruction_loss.item()


def test_blanks_leave_every_other_token_as_it_is(vae_processor):
    tokenizer = vae_processor.tokenizer

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    templates, opened = open_blanks(vae_processor, ["the ____ sat on ____, the mat", "____ cat ____"], "____", 2)
    # The comma follows the blank without a space, as it would follow a word.
    comma = tokenizer.convert_tokens_to_ids(",")
    first = [*ids("the"), UNKNOWN, UNKNOWN, *ids("sat on"), UNKNOWN, UNKNOWN, comma, *ids("the mat"), tokenizer.eos_token_id]
    second = [UNKNOWN, UNKNOWN, *ids("cat"), UNKNOWN, UNKNOWN, tokenizer.eos_token_id]
    assert templates[0].tolist() == first
    assert templates[1].tolist() == second + [tokenizer.pad_token_id] * (len(first) - len(second))
    assert opened[1] == "[UNK] [UNK] cat [UNK] [UNK]"
    unknown = vae_processor.encoder_tokenizer.unk_token_id
    assert vae_processor(opened[1])["input_ids"][0].tolist().count(unknown) == 4


@pytest.mark.parametrize("kind", ["words", "wordpiece", "bytes", "metaspace"])
def test_blanks_are_found_in_any_kind_of_vocabulary(kind, vae_processor):
    """Around a blank stand the tokens that stand around a word there; PAD and UNK may be EOS."""
    corpus = ["the cat sat on the mat, and a dog ran.", "a cat ran", "dog, cat"] * 3
    options = {"special_tokens": ["<end>", "<odd>"], "show_progress": False}
    tokenizer, trainer = {
        "words": (Tokenizer(models.WordLevel(unk_token="<odd>")), trainers.WordLevelTrainer(**options)),
        "wordpiece": (Tokenizer(models.WordPiece(unk_token="<odd>")), trainers.WordPieceTrainer(vocab_size=90, **options)),
        "bytes": (Tokenizer(models.BPE()), trainers.BpeTrainer(vocab_size=90, **options)),
        "metaspace": (Tokenizer(models.BPE()), trainers.BpeTrainer(vocab_size=90, **options)),
    }[kind]
    tokenizer.pre_tokenizer = {
        "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "metaspace": pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]),
    }.get(kind, pre_tokenizers.Whitespace())
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="<odd>")
    processor = VAEProcessor(fast, vae_processor.encoder_tokenizer)
    for before, after in (("the ", " sat on"), ("a dog ", ", and a cat"), ("", " ran"), ("the mat ", "")):
        template = open_blanks(processor, f"{before}____{after}", "____", 1)[0][0].tolist()
        whole = fast(f"{before}cat{after}", add_special_tokens=False)["input_ids"]
        assert template.count(UNKNOWN) == 1 and template[-1] == fast.eos_token_id
        start, behind = template.index(UNKNOWN), len(template) - template.index(UNKNOWN) - 2
        # The word may be more than one token; what stands before and behind it must be the same, and it must be all that is left.
        assert template[:start] == whole[:start]
        assert template[start + 1 : -1] == whole[len(whole) - behind :]
        assert fast.decode(whole[start : len(whole) - behind]).replace(" ", "").strip("▁Ġ") == "cat"


def test_known_tokens_are_forced_and_every_z_is_the_last_texts(vae, vae_processor, monkeypatch):
    blanked = ["the ____ sat on the ____", "a ____ ran ____ ____ park", "the ____"]
    with torch.no_grad():
        # What is no token would win.
        vae.get_output_embeddings().weight[len(vae_processor.tokenizer) :] *= 10
    templates, opened = open_blanks(vae_processor, blanked, "____", 1)
    one = impute(vae, vae_processor, blanked, max_rounds=1)
    torch.testing.assert_close(one.latents, posterior_means(vae, vae_processor, opened))
    two = impute(vae, vae_processor, blanked, max_rounds=2)
    assert [texts[0] for texts in two.rounds] == one.texts
    torch.testing.assert_close(two.latents, posterior_means(vae, vae_processor, one.texts))
    assert [texts[-1] for texts in two.rounds] == two.texts
    assert all("[UNK]" not in text and "____" not in text for text in two.texts)
    # Every token that was known is there, in its place, and p(y|z) is that of these very tokens.
    seen = []

    def spy(latents, labels, **options):
        seen.append(labels)
        return VAEModel.decode(vae, latents, labels, **options)

    with monkeypatch.context() as patch:
        patch.setattr(vae, "decode", spy)
        again = impute(vae, vae_processor, blanked, max_rounds=1, batch_size=2)
    assert again.texts == one.texts
    tokens = [row[row != -100][:-1].tolist() for labels in seen for row in labels]
    for row, (found, template) in enumerate(zip(tokens, templates.tolist())):
        known = template[: template.index(vae_processor.tokenizer.eos_token_id)]
        assert len(found) == len(known)
        assert all(wanted in (UNKNOWN, token) for wanted, token in zip(known, found))
        assert not set(found) & set(vae_processor.tokenizer.all_special_ids)
        assert max(found) < len(vae_processor.tokenizer)
        expected = log_likelihood(vae, vae_processor, found, one.latents[row : row + 1])
        assert again.log_likelihoods[row][0] == pytest.approx(expected, abs=1e-3)


def test_a_beam_as_wide_as_the_vocabulary_finds_the_conditional_mode(vae, vae_processor):
    """All fillings of one blank enumerated: the known words behind the blank have their say."""
    blanked = "the ____ sat on the mat"
    output = impute(vae, vae_processor, blanked, max_rounds=1, num_beams=250)
    ((*template, _),) = open_blanks(vae_processor, blanked, "____", 1)[0].tolist()
    allowed = [i for i in range(len(vae_processor.tokenizer)) if i not in vae_processor.tokenizer.all_special_ids]
    fillings = torch.tensor([[i if token == UNKNOWN else token for token in template] for i in allowed])
    labels = nn.functional.pad(fillings, (0, 1), value=vae_processor.tokenizer.eos_token_id)
    with torch.no_grad():
        scores = -vae(latents=output.latents.expand(len(labels), -1), labels=labels).reconstruction_loss
    assert output.log_likelihoods[0][0] == pytest.approx(scores.max().item(), abs=1e-3)
    assert output.texts[0] == vae_processor.tokenizer.decode(fillings[scores.argmax()])
    greedy = impute(vae, vae_processor, blanked, max_rounds=1, num_beams=1)
    assert greedy.log_likelihoods[0][0] <= output.log_likelihoods[0][0] + 1e-3


def test_a_text_stops_at_a_round_that_leaves_it_as_it_was(vae, vae_processor):
    blanked = ["the ____ ____ on the ____", "a ____ ran ____ the ____", "____ ____ mat", "a dog ____"]
    output = impute(vae, vae_processor, blanked, max_rounds=6)
    stopped = [texts for texts in output.rounds if len(texts) < 6]
    assert stopped and any(len(texts) > 2 for texts in output.rounds)
    assert all(texts[-1] == texts[-2] for texts in stopped)
    for texts, scores in zip(output.rounds, output.log_likelihoods):
        assert len(texts) == len(scores)
        assert all(first != second for first, second in pairwise(texts[:-1]))


def test_a_search_that_ends_below_the_text_that_is_there_is_not_followed(vae, vae_processor, monkeypatch):
    """Searches that find one given token in the first round and another in the second."""
    the, sat = (vae_processor.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("the", "sat"))
    followed = []
    for pair in permutations(vae_processor.tokenizer.convert_tokens_to_ids(["b", "q", "z", "7"]), 2):
        finds = iter(pair)
        monkeypatch.setattr(
            imputation,
            "_fill",
            lambda model, processor, templates, *_, finds=finds: templates.masked_fill(templates < 0, next(finds)),
        )
        output = impute(vae, vae_processor, "the ____ sat", max_rounds=2)
        latents = posterior_means(vae, vae_processor, output.rounds[0][:1])
        before, found = (log_likelihood(vae, vae_processor, [*the, token, *sat], latents) for token in pair)
        assert output.log_likelihoods[0][1] == pytest.approx(max(before, found), abs=1e-3)
        followed.append(output.rounds[0][1] != output.rounds[0][0])
        assert followed[-1] == (found > before)
    assert set(followed) == {True, False}


@pytest.mark.parametrize("padding_is_eos", [False, True])
def test_imputation_does_not_depend_on_batches_nor_on_the_models_defaults(vae, tokenizers, padding_is_eos):
    vae_processor = VAEProcessor(*copy.deepcopy(tokenizers))
    if padding_is_eos:
        vae_processor.tokenizer.pad_token = vae_processor.tokenizer.eos_token
        vae.config.pad_token_id = vae.generation_config.pad_token_id = vae_processor.tokenizer.eos_token_id
    blanked = ["the ____ sat on the ____", "a ____", "the dog ____ in ____ park", "____ mat"]
    together = impute(vae, vae_processor, blanked)
    alone = [impute(vae, vae_processor, text) for text in blanked]
    assert together.rounds == [each.rounds[0] for each in alone]
    torch.testing.assert_close(together.latents, torch.cat([each.latents for each in alone]))
    for row, each in enumerate(alone):
        assert together.log_likelihoods[row] == pytest.approx(each.log_likelihoods[0], abs=1e-3)
    vae.generation_config.update(no_repeat_ngram_size=1, bad_words_ids=[[vae.config.eos_token_id]])
    ruled = impute(vae, vae_processor, "the cat the cat ____", max_rounds=1)
    assert ruled.texts[0].startswith("the cat the cat") and math.isfinite(ruled.log_likelihoods[0][0])


def test_a_conditional_model_fills_in_given_its_source(conditional, processor):
    blanked, sources = ["the ____ sat", "a dog ____ in the ____"], ["a long source text in the park", "the mat"]
    output = impute(conditional, processor, blanked, sources=sources, max_rounds=2)
    alone = impute(conditional, processor, blanked[1], sources=sources[1], max_rounds=2)
    assert output.texts[1] == alone.texts[0] and output.texts[1].startswith("a dog")
    assert output.log_likelihoods[1] == pytest.approx(alone.log_likelihoods[0], abs=1e-3)
    first = [texts[0] for texts in output.rounds]
    torch.testing.assert_close(output.latents, encode_texts(conditional, processor, first, sources).mean)
    other = impute(conditional, processor, blanked, sources=sources[::-1], max_rounds=2)
    assert other.log_likelihoods[0] != pytest.approx(output.log_likelihoods[0], abs=1e-3)


# Neighbours ---------------------------------------------------------------------------------------------------------------


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


# Fitted priors ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixture():
    weights = torch.tensor([0.2, 0.5, 0.3])
    means = torch.tensor([[-3.0, 0.0], [1.0, 2.0], [4.0, -1.0]])
    return GaussianMixturePrior.from_components(weights, means, torch.tensor([[-1.0, 0.0], [0.5, -2.0], [0.0, 1.0]]))


def test_a_fitted_priors_density_is_scikit_learns(vae, vae_processor):
    points = np.random.default_rng(0).normal(size=(60, 4)) * [1, 3, 0.2, 1] + np.repeat([[0], [5]], 30, axis=0)
    prior = fit_prior(vae, vae_processor, torch.from_numpy(points), num_components=3, seed=1)
    reference = GaussianMixture(3, covariance_type="diag", random_state=1).fit(points.astype(np.float32).astype(np.float64))
    elsewhere = np.random.default_rng(1).normal(size=(20, 4)) * 4
    expected = torch.from_numpy(reference.score_samples(elsewhere)).float()
    torch.testing.assert_close(prior.log_prob(torch.from_numpy(elsewhere)), expected, rtol=1e-4, atol=1e-3)
    figures = prior_log_densities(vae, vae_processor, prior, torch.from_numpy(points))
    assert figures["fitted"] == pytest.approx(reference.score(points), abs=1e-3)
    standard = -0.5 * (points**2).sum(1).mean() - 2 * math.log(2 * math.pi)
    assert figures["standard"] == pytest.approx(standard, abs=1e-3)
    assert figures["fitted"] > figures["standard"]


def test_one_component_is_the_means_own_gaussian(vae, vae_processor):
    means = encode_texts(vae, vae_processor, TEXTS).mean
    prior = fit_prior(vae, vae_processor, TEXTS, num_components=1)
    torch.testing.assert_close(prior.means[0], means.mean(0))
    torch.testing.assert_close(prior.logvars[0].exp(), means.var(0, correction=0), rtol=1e-3, atol=1e-5)
    held_out = prior_log_densities(vae, vae_processor, prior, TEXTS[:2])
    gaussian = DiagonalGaussian(prior.means, prior.logvars).log_prob(means[:2]).sum(-1).mean()
    assert held_out["fitted"] == pytest.approx(gaussian.item(), abs=1e-4)


def test_a_mixtures_draws_have_its_moments(mixture):
    draws = mixture.sample(40_000, torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, 2) and draws.dtype == torch.float32
    mean = (mixture.weights.unsqueeze(-1) * mixture.means).sum(0)
    second = (mixture.weights.unsqueeze(-1) * (mixture.logvars.exp() + mixture.means.square())).sum(0)
    torch.testing.assert_close(draws.mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(draws.var(0), second - mean.square(), rtol=0.03, atol=0)
    again = mixture.sample(40_000, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)
    # Temperature 0 leaves the components' means, in the proportion of the weights.
    frozen = mixture.sample(20_000, torch.Generator().manual_seed(1), temperature=0.0)
    shares = (torch.cdist(frozen, mixture.means) < 1e-5).float().mean(0)
    torch.testing.assert_close(shares, mixture.weights, atol=0.02, rtol=0)


def test_a_mixtures_density_integrates_to_one(mixture):
    x, y = torch.meshgrid(torch.linspace(-12, 14, 521), torch.linspace(-14, 14, 561), indexing="ij")
    density = mixture.log_prob(torch.stack([x.flatten(), y.flatten()], dim=-1)).double().exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1.0, abs=1e-4)
    halved = GaussianMixturePrior(3, 2)
    halved.load_state_dict(mixture.state_dict())
    # Cast weights do not add up to 1 any more; the density still does.
    density = halved.bfloat16().log_prob(torch.stack([x.flatten(), y.flatten()], dim=-1)).double().exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1.0, abs=1e-3)
    assert halved.sample(2).dtype == torch.float32


def test_a_new_mixture_is_the_standard_normal_and_survives_the_meta_device(mixture):
    latents = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    standard = DiagonalGaussian.standard(5, 2).log_prob(latents).sum(-1)
    torch.testing.assert_close(GaussianMixturePrior(3, 2).log_prob(latents), standard)
    with torch.device("meta"):
        empty = GaussianMixturePrior(3, 2)
    assert empty.means.is_meta and not list(empty.parameters())
    # Materialised memory holds garbage until someone fills it.
    empty.to_empty(device="cpu")
    empty.reset_parameters()
    torch.testing.assert_close(empty.log_prob(latents), standard)
    empty.load_state_dict(mixture.state_dict(), strict=True)
    torch.testing.assert_close(empty.log_prob(latents), mixture.log_prob(latents))


class Holder(PreTrainedModel):
    """A model that holds a fitted prior, as a VAE may."""

    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(2, 2)
        self.fitted_prior = GaussianMixturePrior(3, 2)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, GaussianMixturePrior):
            module.reset_parameters()


def test_a_mixture_is_saved_and_loaded_with_the_model_that_holds_it(mixture, tmp_path):
    latents = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    holder = Holder(BertConfig())
    holder.save_pretrained(tmp_path / "fresh")
    holder.fitted_prior.load_state_dict(mixture.state_dict())
    holder.save_pretrained(tmp_path / "fitted")
    loaded = Holder.from_pretrained(tmp_path / "fitted").fitted_prior
    torch.testing.assert_close(loaded.log_prob(latents), mixture.log_prob(latents))
    # A checkpoint from before there was one.
    save_file(holder.linear.state_dict(prefix="linear."), tmp_path / "fresh" / "model.safetensors", metadata={"format": "pt"})
    without = Holder.from_pretrained(tmp_path / "fresh").fitted_prior
    torch.testing.assert_close(without.log_prob(latents), DiagonalGaussian.standard(5, 2).log_prob(latents).sum(-1))


# Bad input ----------------------------------------------------------------------------------------------------------------


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


def test_bad_blanks_are_named(vae, vae_processor):
    for texts, options, message in (
        ("the cat", {}, r"no blank '____' at position\(s\) \[0\]"),
        (["a ____", "____ ____"], {}, "position 1 holds nothing but blanks"),
        ("the ____at sat", {}, "position 0: a blank is part of a word"),
        (["a ____", "the c____"], {}, "position 1: a blank is part of a word"),
        ("a ____", {"blank": ""}, "`blank` is empty"),
        ("a ____", {"tokens_per_blank": 0}, "`tokens_per_blank` is 0"),
        ("a ____", {"num_beams": 0}, "`num_beams` is 0"),
        ("a ____", {"max_rounds": 0}, "`max_rounds` is 0"),
        ("a ____", {"tokens_per_blank": 48}, "holds 48"),
        ([], {}, "`texts_with_blanks` is an empty list"),
    ):
        with pytest.raises(ValueError, match=message):
            impute(vae, vae_processor, texts, **options)


def test_bad_priors_are_named(vae, vae_processor):
    points = torch.zeros(3, 4)
    for num_components in (0, 4):
        with pytest.raises(ValueError, match=f"`num_components` is {num_components}; it must be from 1 to the number of texts, 3"):
            fit_prior(vae, vae_processor, points, num_components)
    # One text, or one mean, however many letters or dimensions it has.
    for alone in ("one text", ["one text"], torch.zeros(4), torch.zeros(1, 4)):
        for num_components in (1, 2):
            with pytest.raises(ValueError, match="`texts` holds 1; a mixture is fitted to two or more texts"):
                fit_prior(vae, vae_processor, alone, num_components)
    with pytest.raises(ValueError, match="`texts` has latents that are not finite"):
        fit_prior(vae, vae_processor, torch.full((3, 4), float("inf")), 1)
    with torch.no_grad():
        for parameter in vae.posterior.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="`texts` has latents that are not finite"):
        fit_prior(vae, vae_processor, TEXTS, 1)
    prior = GaussianMixturePrior(2, 4)
    for call, message in (
        (lambda: GaussianMixturePrior(0, 4), "`num_components` is 0"),
        (lambda: GaussianMixturePrior(1, 0), "`latent_size` is 0"),
        (lambda: prior.sample(0), "`num` is 0"),
        (lambda: prior.sample(1, temperature=-0.5), "`temperature` is -0.5"),
        (lambda: prior.log_prob(torch.zeros(2, 3)), r"expected \(rows, 4\)"),
        (lambda: GaussianMixturePrior.from_components(torch.ones(2), torch.zeros(3, 4), torch.zeros(3, 4)), "expected"),
        (lambda: GaussianMixturePrior.from_components(-torch.ones(3), torch.zeros(3, 4), torch.zeros(3, 4)), "negative"),
        (lambda: GaussianMixturePrior.from_components(torch.ones(1), points[:1] / 0, points[:1]), "`means` holds values"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("latent_size", [1, 2, 5])
def test_a_picture_of_z_shows_means_from_their_priors(tmp_path, monkeypatch, latent_size):
    drawn = {}

    def savefig(figure, path, **options):
        bars, points = figure.axes
        drawn.update(kl=[bar.get_height() for bar in bars.patches], plane=points.lines[-1].get_xydata(), title=bars.get_title())

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    generator = torch.Generator().manual_seed(0)
    prior = DiagonalGaussian(torch.randn(30, latent_size, generator=generator), torch.full((30, latent_size), 0.7))
    # Where q is p, nothing is to be seen; along one direction the means are two prior deviations away.
    away = torch.zeros(30, latent_size)
    away[:, 0] = 2 * torch.tensor([1.0, -1.0]).repeat(15)
    posterior = DiagonalGaussian(prior.mean + away * prior.std, prior.logvar)
    plot_latents(posterior, prior, tmp_path / "latent.png")
    assert drawn["kl"] == pytest.approx([2.0] + [0.0] * (latent_size - 1), abs=1e-5)
    assert sorted(abs(drawn["plane"][:, 0])) == pytest.approx([2.0] * 30) and abs(drawn["plane"][:, 1]).max() < 1e-6
    assert drawn["title"] == f"2.00 nats in 1 of {latent_size} dimensions above 0.01"
    with pytest.raises(ValueError, match="is of 1 text"):
        plot_latents(DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 2)), DiagonalGaussian.standard(1, 2, "cpu"), tmp_path / "x")
