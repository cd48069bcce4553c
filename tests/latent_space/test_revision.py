"""Texts that are given attributes word by word."""

from itertools import takewhile

import pytest
import torch

from helpers import TEXTS
from hf_vae.evaluation import LikelihoodEvaluator
from hf_vae.latent_attribute import LatentAttribute
from hf_vae.latent_space import encode_texts, fit_attribute, revise, revision, smallest_move

POINTS = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))


def along(direction: torch.Tensor) -> LatentAttribute:
    """An attribute that the side of a plane through the middle of the texts' codes says."""
    attribute = LatentAttribute(4, labels=["low", "high"])
    attribute.weight.copy_(torch.stack([-direction, direction]))
    attribute.clarity.copy_(torch.tensor([0.5, 0.5]))
    return attribute


def one_token_edits(processor, text: str) -> set[str]:
    words = text.split()
    vocabulary = [token for token in processor.tokenizer.get_vocab() if token not in processor.tokenizer.all_special_tokens]
    places = range(len(words))
    replaced = {" ".join([*words[:place], token, *words[place + 1 :]]) for place in places for token in vocabulary}
    put_in = {" ".join([*words[:place], token, *words[place:]]) for place in range(len(words) + 1) for token in vocabulary}
    left_out = {" ".join([*words[:place], *words[place + 1 :]]) for place in places}
    return (replaced | put_in | left_out) - {text}


def shared_start(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))


def test_one_change_is_the_best_of_all_that_there_are(vae, vae_processor, monkeypatch):
    monkeypatch.setattr(revision, "SHORTLIST", 10_000)
    monkeypatch.setattr(revision, "PLACES", 10_000)
    text = TEXTS[0]
    z = encode_texts(vae, vae_processor, [text]).mode()
    attribute = along(torch.tensor([1.0, -1.0, 0.5, 0.0]))
    wanted = "low" if attribute.predict(z) == ["high"] else "high"
    vocabulary = len(vae_processor.tokenizer)
    options = {"held": {"side": attribute}, "num_candidates": vocabulary, "attribute_weight": 2.0, "strength": 1.0}
    found = revise(vae, vae_processor, text, {"side": wanted}, max_changes=1, **options)
    target = attribute.target(wanted)
    moved, _ = smallest_move(z, [lambda latents: attribute.margin(latents, target)])
    candidates = sorted(one_token_edits(vae_processor, text))
    codes = encode_texts(vae, vae_processor, candidates).mode()
    lacks = attribute.margin(codes, target).clamp(max=0)
    evaluator = LikelihoodEvaluator(vae, vae_processor, candidates, candidates)
    there, here = evaluator.nll(torch.stack([moved, z], dim=1).expand(len(candidates), 2, -1)).unbind(1)
    scores = 2.0 * lacks - there - (there - here)
    scores[lacks <= attribute.margin(z, target).clamp(max=0)] = -torch.inf
    assert found.texts == [candidates[int(scores.argmax())]]
    assert found.num_changes == [1]
    torch.testing.assert_close(found.latents, encode_texts(vae, vae_processor, found.texts).mode())


def test_other_words_are_looked_for_where_leaving_one_out_helps_most(vae, vae_processor, monkeypatch):
    monkeypatch.setattr(revision, "PLACES", 1)
    attribute = along(torch.tensor([30.0, 0.0, 0.0, 0.0]))
    text = max(TEXTS, key=lambda each: len(each.split()))
    words = text.split()
    without = [" ".join([*words[:place], *words[place + 1 :]]) for place in range(len(words))]
    for wanted in ("low", "high"):
        margins = attribute.margin(encode_texts(vae, vae_processor, without).mode(), attribute.target(wanted), 1.0)
        place = int(margins.clamp(max=0).argmax())
        [found] = revise(vae, vae_processor, text, {"side": wanted}, held={"side": attribute}, strength=1.0, max_changes=1).texts
        at_the_place = found.startswith(" ".join(words[:place])) and found.endswith(" ".join(words[place + 1 :]))
        assert found in without or at_the_place or found.startswith(text), (found, place)


def test_a_text_of_one_token_can_be_changed(vae, vae_processor):
    word = TEXTS[0].split()[0]
    z = encode_texts(vae, vae_processor, [word]).mode()
    attribute = along(torch.tensor([30.0, 0.0, 0.0, 0.0]))
    wanted = "low" if attribute.predict(z) == ["high"] else "high"
    vae.train()
    found = revise(vae, vae_processor, word, {"side": wanted}, held={"side": attribute}, strength=0.0, max_changes=1)
    assert found.texts != [word] and found.texts[0]
    # A training goes on as it was.
    assert vae.training and vae.decoder.training
    vae.eval()


def test_a_text_that_has_the_attribute_stays_and_others_come_to_have_it(vae, vae_processor, caplog):
    codes = encode_texts(vae, vae_processor, TEXTS).mode()
    direction = codes[0] - codes.mean(0)
    attribute = along(direction / direction.norm() * 10)
    attribute.bias.copy_(torch.tensor([1.0, -1.0]) * (attribute.weight[1] @ codes.mean(0)))
    attribute.clarity.zero_()
    found = revise(vae, vae_processor, TEXTS, {"side": "high"}, held={"side": attribute}, strength=0.0, max_changes=3)
    had = attribute.margin(codes, attribute.target("high"), 0.0) >= 0
    for text, revised, before, has, changes in zip(TEXTS, found.texts, had.tolist(), found.has_attributes, found.num_changes):
        assert (revised == text) == (changes == 0)
        assert not before or (changes == 0 and has)
    again = attribute.margin(encode_texts(vae, vae_processor, found.texts).mode(), attribute.target("high"), 0.0)
    assert (again >= -1e-5).tolist() == found.has_attributes
    assert sum(found.has_attributes) > had.sum()
    assert bool(caplog.records) != all(found.has_attributes)


def test_words_that_are_not_changed_stay_as_they_are_written(vae, vae_processor):
    # The vocabulary does not have the word, and the decoder could not write it.
    text = f"{TEXTS[0]} Zyzzyva"
    attribute = fit_attribute(vae, vae_processor, POINTS, ["a" if each > 0 else "b" for each in POINTS[:, 0]])
    for wanted in ("a", "b"):
        found = revise(vae, vae_processor, text, {"first": wanted}, held={"first": attribute}, max_changes=1)
        [revised] = found.texts
        # One change leaves a beginning and an end, and in between a token more, less or other.
        same_start = shared_start(text, revised)
        same_end = shared_start(text[same_start:][::-1], revised[same_start:][::-1])
        assert len(text) - same_start - same_end <= max(map(len, text.split()))


def test_a_conditional_model_reads_its_sources(conditional, processor):
    attribute = along(torch.tensor([3.0, 0.0, 0.0, 0.0]))
    sources = list(reversed(TEXTS))
    found = revise(conditional, processor, TEXTS, {"side": "high"}, held={"side": attribute}, sources=sources, max_changes=2)
    torch.testing.assert_close(
        found.latents, encode_texts(conditional, processor, found.texts, sources).mode(), atol=1e-5, rtol=1e-4
    )
    with pytest.raises(ValueError, match="pass `sources`"):
        revise(conditional, processor, TEXTS, {"side": "high"}, held={"side": attribute})


def test_what_cannot_be_is_refused(vae, vae_processor):
    held = {"side": along(torch.ones(4))}
    for options, message in (
        ({"strength": -1}, "`strength` is -1"),
        ({"max_changes": 0}, "`max_changes` is 0"),
        ({"num_candidates": 0}, "`num_candidates` is 0"),
        ({"attribute_weight": 0}, "`attribute_weight` is 0"),
        ({"attributes": {"mood": "high"}}, "`attributes` names 'mood'"),
        ({"attributes": {"side": "middle"}}, "choose one of 'low', 'high'"),
    ):
        with pytest.raises(ValueError, match=message):
            revise(vae, vae_processor, TEXTS, **{"attributes": {"side": "high"}, "held": held, **options})
