"""Latent operations scored on the grammar: models whose scores are known by construction."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from hf_vae import DiagonalGaussian, EncodedSource, LatentOutput, VAEConfig, VAEModel, VAEProcessor
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.data import grammar
from hf_vae.latent_space.grammar_probe import CHANGES, CONTROLLED, grammar_control, grammar_metrics, with_factor

TEXTS = grammar.draw_sentences(40, seed=0)
FACTORS = {
    **dict(zip(grammar.Meaning._fields, grammar._SLOTS)),
    "voice": grammar.VOICES,
    "time_position": grammar.TIME_POSITIONS,
    "opening": range(3),
    "synonym": range(2),
}
SIZES = [len(values) for values in FACTORS.values()]
SHARES = {"grammatical", "arithmetic", "midpoints_grammatical", *(f"arithmetic_{factor}" for factor, _, _ in CHANGES)}


def encode(text: str) -> torch.Tensor:
    """One-hot vectors of all that a sentence says and how, one after the other."""
    parsed = grammar.parse(text)
    chosen = {**parsed.meaning._asdict(), **parsed.form._asdict()}
    rows = [torch.eye(len(values))[list(values).index(chosen[name])] for name, values in FACTORS.items()]
    return torch.cat(rows)


def decode(latents: torch.Tensor) -> str:
    """The sentence with the largest entry of each factor's."""
    chosen = {name: values[int(part.argmax())] for (name, values), part in zip(FACTORS.items(), latents.split(SIZES))}
    meaning = grammar.Meaning(*(chosen[name] for name in grammar.Meaning._fields))
    return grammar.realize(meaning, grammar.Form(*(chosen[name] for name in grammar.Form._fields)))


@pytest.fixture
def probe(monkeypatch):
    """Scores of a model with this encoder and decoder; `calls` has how many z each call decoded, and with what options."""

    def score(encode, decode, calls=None, **options):
        def encode_texts(model, processor, texts, **_):
            mean = torch.stack([encode(text) for text in texts])
            return DiagonalGaussian(mean, torch.zeros_like(mean))

        def decode_latents(model, processor, latents, batch_size=64, **generation_options):
            if calls is not None:
                calls.append((len(latents), generation_options))
            return [decode(row) for row in latents]

        for name in ("codes", "arithmetic", "reconstruction", "grammar_probe"):
            module = importlib.import_module(f"hf_vae.latent_space.{name}")
            monkeypatch.setattr(module, "encode_texts", encode_texts, raising=False)
            monkeypatch.setattr(module, "decode_latents", decode_latents)
        size = sum(SIZES)
        model = torch.nn.Module()
        model.config = SimpleNamespace(total_latent_size=size)
        model.read_source = EncodedSource
        model.prior = lambda source, batch_size: LatentOutput(latent_dist=DiagonalGaussian.standard(batch_size, size))
        return grammar_metrics(model, None, TEXTS, **{"num_samples": 30, "num_analogies": 20, "num_paths": 10, **options})

    return score


@pytest.mark.parametrize("factor, old, new", CHANGES)
def test_one_factor_is_changed_and_no_other(factor, old, new):
    for text in TEXTS:
        parsed = grammar.parse(text)
        for value in (old, new):
            changed = grammar.parse(with_factor(parsed, factor, value))
            expected = {**parsed.meaning._asdict(), **parsed.form._asdict(), factor: value}
            assert {**changed.meaning._asdict(), **changed.form._asdict()} == expected
        assert with_factor(parsed, factor, old) != with_factor(parsed, factor, new)


def test_codes_that_add_up_score_full_marks(probe):
    metrics = probe(encode, decode)
    assert metrics.keys() == SHARES | {"path_edit_distance"}
    assert all(metrics[name] == 1.0 for name in SHARES)
    assert 0 < metrics["path_edit_distance"] < 1


def test_a_decoder_that_always_says_the_same_scores_nothing(probe):
    metrics = probe(encode, lambda latents: "the farmer")
    assert all(metrics[name] == 0.0 for name in SHARES) and metrics["path_edit_distance"] == 0.0
    # Where what it says is a sentence, it is that and no more.
    [sentence] = grammar.draw_sentences(1, seed=9)
    metrics = probe(encode, lambda latents: sentence)
    assert (metrics["grammatical"], metrics["midpoints_grammatical"], metrics["arithmetic"]) == (1.0, 1.0, 0.0)


def test_an_analogy_counts_where_the_factor_is_changed_and_all_else_kept(probe):
    def without_voice(text):
        """The code of the sentence in the active voice."""
        return encode(with_factor(grammar.parse(text), "voice", "active"))

    metrics = probe(without_voice, decode, num_analogies=200)
    # The voice wanted is the passive one, which is never decoded; for the others c must have been active, as half of the texts are.
    assert metrics["arithmetic_voice"] == 0.0
    active = sum(grammar.parse(text).form.voice == "active" for text in TEXTS) / len(TEXTS)
    others = [metrics[f"arithmetic_{factor}"] for factor, _, _ in CHANGES if factor != "voice"]
    assert all(abs(share - active) < 0.18 for share in others)
    assert metrics["arithmetic"] == pytest.approx(sum(others) / 5)
    assert metrics["grammatical"] == 1.0


def test_a_decoder_that_knows_codes_alone_has_no_middle_right(probe):
    metrics = probe(encode, lambda latents: decode(latents) if latents.equal(latents.round()) else "")
    assert metrics["midpoints_grammatical"] == 0.0 and metrics["grammatical"] == 0.0 and metrics["arithmetic"] == 1.0


def test_the_probe_decodes_greedily_and_follows_from_the_seed(probe):
    calls = []
    first = probe(encode, decode, calls, max_new_tokens=9)
    assert [rows for rows, _ in calls] == [30, 20, 20, 20, 20, 20, 90]
    assert all(options == {"do_sample": False, "max_new_tokens": 9} for _, options in calls)
    assert probe(encode, decode) == first
    assert probe(encode, decode, seed=1)["path_edit_distance"] != first["path_edit_distance"]


@pytest.fixture
def control(monkeypatch):
    """`grammar_control` of a model with this encoder and decoder."""

    def score(encode, decode):
        def encode_texts(model, processor, texts, *_, **__):
            mean = torch.stack([encode(text) for text in texts])
            return DiagonalGaussian(mean, torch.zeros_like(mean))

        def decode_latents(model, processor, latents, *_, **__):
            return [decode(row) for row in latents]

        for name in ("control", "grammar_probe"):
            module = importlib.import_module(f"hf_vae.latent_space.{name}")
            monkeypatch.setattr(module, "encode_texts", encode_texts)
            monkeypatch.setattr(module, "decode_latents", decode_latents)
        control = importlib.import_module("hf_vae.latent_space.control")
        monkeypatch.setattr(
            control, "posterior_of", lambda model, processor, given, texts, *_, **__: encode_texts(None, None, texts)
        )
        monkeypatch.setattr(control, "longest_text", lambda *_: None)
        monkeypatch.setattr(control, "reserved_positions", lambda *_: 0)
        model = torch.nn.Module()
        model.config = SimpleNamespace(total_latent_size=sum(SIZES), is_conditional=False, embedding_size=None)
        model.encoder = SimpleNamespace(config=None)
        return grammar_control(model, None, TEXTS, num_labels=300)

    return score


def test_codes_that_a_plane_divides_are_controlled(control):
    metrics = control(encode, decode)
    names = ("control_accuracy", "control_kept")
    assert metrics.keys() == {*names, *(f"{name}_{factor}" for name in names for factor in CONTROLLED)}
    assert all(value == 1.0 for value in metrics.values())


def test_a_decoder_that_changes_more_keeps_less(control):
    """One that always opens in the first way keeps the opening of a third of the texts, and the mood may change it."""

    def first_opening(latents):
        return with_factor(grammar.parse(decode(latents)), "opening", 0)

    metrics = control(encode, first_opening)
    own = sum(grammar.parse(text).form.opening == 0 for text in TEXTS) / len(TEXTS)
    assert metrics["control_kept_mood"] == 1.0 and metrics["control_kept_voice"] == metrics["control_kept_time_position"] == own
    assert metrics["control_accuracy"] == 1.0


def test_other_texts_are_refused(probe):
    with pytest.raises(ValueError, match="'the farmer' is not a sentence of the grammar"):
        grammar_metrics(None, None, [TEXTS[0], "the farmer"])
    with pytest.raises(ValueError, match="'the farmer' is not a sentence of the grammar"):
        grammar_control(None, None, [TEXTS[0], "the farmer"])


def test_a_model_of_the_family_is_scored():
    tokenizers = train_tokenizers(TEXTS, 400, "word")
    torch.manual_seed(0)
    encoder, decoder = small_configs(tokenizers[0], "lstm", "lstm", hidden_size=8)
    model = VAEModel(VAEConfig(encoder=encoder, decoder=decoder, latent_size=3))
    options = {"num_samples": 3, "num_analogies": 2, "num_paths": 2, "max_new_tokens": 4}
    metrics = grammar_metrics(model, VAEProcessor(*tokenizers), TEXTS, **options)
    # Nothing was learnt, and no sentence has four words.
    control = grammar_control(model, VAEProcessor(*tokenizers), TEXTS[:4], num_labels=60, max_new_tokens=4)
    assert not any(control.values())
    assert all(metrics[name] == 0.0 for name in SHARES) and 0 <= metrics["path_edit_distance"] <= 1
