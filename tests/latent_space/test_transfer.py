"""The form of one pair, given to other sources."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from hf_vae import DiagonalGaussian
from hf_vae.data import grammar
from hf_vae.latent_space import decode_latents, encode_texts, transfer
from hf_vae.latent_space.grammar_probe import form_transfer

SHORT = {"max_new_tokens": 5}
PAIRS = [(row["source"], row["targets"][0]) for row in grammar.draw_pairs(40, seed=0)]


def test_the_pairs_z_writes_every_source(conditional, processor):
    sources = ["the mat", "a dog ran in the park", "a park"]
    moved = transfer(conditional, processor, ("the cat sat", "a cat"), sources, batch_size=2, **SHORT)
    z = encode_texts(conditional, processor, "a cat", sources="the cat sat").mode()
    torch.testing.assert_close(moved.latents, z.expand(3, -1))
    assert moved.texts == decode_latents(conditional, processor, z.expand(3, -1), **processor(sources), **SHORT)
    assert transfer(conditional, processor, ("the cat sat", "a cat"), sources[0], **SHORT).texts == moved.texts[:1]
    # One pair for each source.
    pairs = [("the cat sat", "a cat"), ("a dog", "the park")]
    each = transfer(conditional, processor, pairs, sources[:2], **SHORT)
    torch.testing.assert_close(each.latents[0], z[0])
    assert not torch.equal(*each.latents)


def test_the_source_of_its_own_pair_is_the_reconstruction(conditional, processor):
    again = transfer(conditional, processor, ("the cat sat", "a cat"), "the cat sat", **SHORT)
    assert again.texts == decode_latents(conditional, processor, again.latents, **processor("the cat sat"), **SHORT)


@pytest.mark.parametrize(
    "pair, sources, message",
    [
        ("the cat", "a dog", "`pair` holds 't'; give a tuple of a source and the text that follows from it"),
        (("the cat", "a cat", "a dog"), "a dog", "give a tuple of a source and the text"),
        (("the cat", ""), "a dog", "give a tuple of a source and the text"),
        ([("the cat", "a cat")] * 2, ["a dog"] * 3, "`pair` holds 2 pairs for 3 sources: give one for all, or one for each"),
        ([], "a dog", "`pair` holds 0 pairs for 1 sources"),
        (("the cat", "a cat"), [], "empty"),
    ],
)
def test_what_is_no_pair_is_refused(conditional, processor, pair, sources, message):
    with pytest.raises(ValueError, match=message):
        transfer(conditional, processor, pair, sources, **SHORT)


def test_a_model_without_a_source_has_no_pair(vae, vae_processor):
    with pytest.raises(ValueError, match="VAEModel has no source, so there is no pair whose form"):
        transfer(vae, vae_processor, ("the cat", "a cat"), "a dog")


@pytest.fixture
def transferred(monkeypatch):
    """`form_transfer` of a model that encodes and decodes so; z is the number of a form."""

    def score(encode, decode):
        module = importlib.import_module("hf_vae.latent_space.transfer")

        def encode_texts(model, processor, texts, sources, batch_size):
            numbers = torch.tensor([[float(encode(x, y))] for x, y in zip(sources, texts)])
            return DiagonalGaussian(numbers, torch.zeros_like(numbers))

        def decode_latents(model, processor, latents, batch_size, texts, **options):
            return [decode(text, int(number)) for text, number in zip(texts, latents[:, 0])]

        monkeypatch.setattr(module, "encode_texts", encode_texts)
        monkeypatch.setattr(module, "decode_latents", decode_latents)
        model = SimpleNamespace(config=SimpleNamespace(is_conditional=True))
        processor = _Texts()
        return form_transfer(model, processor, PAIRS)

    return score


class _Texts:
    def batch(self, texts):
        return list(texts), isinstance(texts, str)

    def __call__(self, texts):
        return {"texts": texts}


def form_number(x, y):
    return grammar.FORMS.index(grammar.parse(y).form)


def in_form(text, number):
    return grammar.realize(grammar.parse(text).meaning, grammar.FORMS[number])


def test_a_z_that_is_the_form_transfers_all_of_it(transferred):
    metrics = transferred(form_number, in_form)
    assert set(metrics) == {"form_transfer", "form_transfer_meaning", *(f"form_transfer_{name}" for name in grammar.Form._fields)}
    assert all(value == 1.0 for value in metrics.values())


def test_a_z_that_says_nothing_transfers_what_falls_so(transferred):
    """A decoder that repeats its source never has all of the form, and keeps the meaning."""
    metrics = transferred(form_number, lambda text, number: text)
    assert metrics["form_transfer"] == 0.0 and metrics["form_transfer_meaning"] == 1.0
    assert 0.3 < metrics["form_transfer_voice"] < 0.7
    wrong = transferred(form_number, lambda text, number: "the farmer")
    assert not any(wrong.values())


def test_each_choice_is_judged_by_itself(transferred):
    active = [number for number, form in enumerate(grammar.FORMS) if form.voice == "active"]

    def always_active(text, number):
        return grammar.realize(grammar.parse(text).meaning, grammar.FORMS[number]._replace(voice="active"))

    share = sum(form_number(*pair) in active for pair in PAIRS) / len(PAIRS)
    metrics = transferred(form_number, always_active)
    assert metrics["form_transfer_voice"] == metrics["form_transfer"] == share
    assert metrics["form_transfer_opening"] == metrics["form_transfer_synonym"] == 1.0


def test_the_other_source_shares_mood_and_action_alone(transferred):
    seen = []

    def decode(text, number):
        seen.append(text)
        return in_form(text, number)

    transferred(form_number, decode)
    for (x, y), other in zip(PAIRS, seen, strict=True):
        of, to = grammar.parse(x).meaning, grammar.parse(other).meaning
        assert (of.mood, of.action) == (to.mood, to.action) and of != to
        assert grammar.parse(y).form != grammar.parse(other).form


def test_what_is_no_sentence_is_named():
    with pytest.raises(ValueError, match="'the farmer' is not a sentence of the grammar"):
        form_transfer(None, None, [("the farmer", PAIRS[0][1])])
