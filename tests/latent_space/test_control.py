"""p(a|z) fitted to labelled texts, the smallest move, and texts that are edited by it."""

import importlib
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from helpers import TEXTS
from hf_vae import DiagonalGaussian
from hf_vae.latent_attribute import LatentAttribute
from hf_vae.latent_space import decode_latents, edit, encode_texts, fit_attribute, smallest_move

SHORT = {"max_new_tokens": 5}
POINTS = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))


def of_first(points=POINTS):
    """A label that the first dimension says."""
    return ["high" if each > 0 else "low" for each in points[:, 0].tolist()]


def test_the_fit_is_logistic_regression(vae, vae_processor, caplog):
    attribute = fit_attribute(vae, vae_processor, POINTS, of_first())
    reference = LogisticRegression(C=1.0).fit(POINTS.double().numpy(), of_first())
    expected = torch.from_numpy(reference.predict_log_proba(POINTS.double().numpy())).float()
    torch.testing.assert_close(attribute(POINTS).log_softmax(-1), expected, atol=1e-3, rtol=1e-3)
    assert attribute.labels == ["high", "low"] and attribute.score > 0.9 and not caplog.records
    # The mean log-odds of the texts that have the label.
    high = [label == "high" for label in of_first()]
    odds = attribute.margin(POINTS, attribute.target("high"), 0.0)[torch.tensor(high)]
    torch.testing.assert_close(attribute.clarity[0], odds.mean())


def test_three_labels_and_a_hidden_layer(vae, vae_processor):
    angle = torch.atan2(POINTS[:, 0], POINTS[:, 1])
    three = [int(each) for each in ((angle + math.pi) / (2 * math.pi) * 3).long().clamp(max=2)]
    attribute = fit_attribute(vae, vae_processor, POINTS, three)
    assert attribute.labels == [0, 1, 2] and attribute.score > 0.85
    # Inside and outside of a circle, which no line divides.
    ring = [bool(each) for each in POINTS[:, :2].norm(dim=-1) > 1.1]
    linear = fit_attribute(vae, vae_processor, POINTS, ring)
    curved = fit_attribute(vae, vae_processor, POINTS, ring, hidden_size=8, regularization=0.1)
    assert curved.score > linear.score + 0.15 and curved.predict(POINTS) == ring


def test_a_number_is_least_squares_with_the_error_of_what_was_left_out(vae, vae_processor):
    noise = torch.randn(120, generator=torch.Generator().manual_seed(1))
    numbers = (3 + POINTS @ torch.tensor([2.0, -1.0, 0.0, 0.0]) + 0.5 * noise).tolist()
    attribute = fit_attribute(vae, vae_processor, POINTS, numbers)
    design = np.concatenate([POINTS.numpy(), np.ones((120, 1))], axis=1)
    solution = np.linalg.lstsq(design, np.array(numbers), rcond=None)[0]
    torch.testing.assert_close(attribute.weight[0], torch.tensor(solution[:4]).float(), atol=0.05, rtol=0)
    assert attribute.std.item() == pytest.approx(0.5, abs=0.1) and attribute.score > 0.9
    assert (attribute.lowest.item(), attribute.highest.item()) == pytest.approx((min(numbers), max(numbers)))
    curved = fit_attribute(vae, vae_processor, POINTS, numbers, hidden_size=4, regularization=0.1)
    torch.testing.assert_close(curved(POINTS).squeeze(-1), attribute(POINTS).squeeze(-1), atol=1.0, rtol=0)


def test_texts_are_encoded_with_their_sources(conditional, processor):
    sources, texts, labels = TEXTS * 4, TEXTS * 4, ["a", "b", "a", "b", "a"] * 4
    means = encode_texts(conditional, processor, texts, sources).mode()
    of_texts = fit_attribute(conditional, processor, texts, labels, sources=sources)
    torch.testing.assert_close(of_texts.weight, fit_attribute(conditional, processor, means, labels).weight)


def test_labels_that_cannot_be_fitted_to_are_named(vae, vae_processor, caplog):
    for labels, message in (
        (["a"] * 120, "`labels` holds 'a' 120 time"),
        (["a"] * 119 + ["b"], "'a' 119 time\\(s\\), 'b' 1 time\\(s\\): at least two labels are needed, and two texts of each"),
        (["a", 1] * 60, "`labels` are of type int, str"),
        ([1.0] * 120, "120 numbers from 1 to 1"),
        ([1.0, math.inf] * 60, "from 1 to inf"),
        (["a", "b"], "2 `labels` for 120 `texts`"),
        ([None] * 120, "`labels` are of type NoneType"),
        ([], "`labels` is an empty list"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_attribute(vae, vae_processor, POINTS, labels)
    with pytest.raises(ValueError, match="`regularization` is 0"):
        fit_attribute(vae, vae_processor, POINTS, of_first(), regularization=0)
    with pytest.raises(ValueError, match="`hidden_size` is -1"):
        fit_attribute(vae, vae_processor, POINTS, of_first(), hidden_size=-1)
    assert not caplog.records
    # What z does not say: by chance.
    chance = torch.randint(2, (120,), generator=torch.Generator().manual_seed(3)).tolist()
    fit_attribute(vae, vae_processor, POINTS, chance)
    assert "z hardly says what `labels` says (cross-validated: accuracy 0." in caplog.text


def test_few_labels_and_a_z_that_is_ignored_are_warned_of(vae, vae_processor, caplog):
    fit_attribute(vae, vae_processor, POINTS[:3].repeat(1, 1), [0.0, 1.0, 0.5])
    assert "3 labels for 4 dimensions of z" in caplog.text
    for parameter in vae.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    caplog.clear()
    fit_attribute(vae, vae_processor, TEXTS, ["a", "b", "a", "b", "a"])
    assert "Control in z cannot work with this model. z is being ignored" in caplog.text


def test_the_smallest_move_to_a_plane_is_the_projection():
    weight = torch.tensor([3.0, 0.0, 4.0, 0.0])
    moved, reached = smallest_move(POINTS * 2, [lambda z: z @ weight - 5])
    level = (POINTS * 2) @ weight - 5
    expected = POINTS * 2 - (level.clamp(max=0) / 25).unsqueeze(-1) * weight
    assert reached.all()
    torch.testing.assert_close(moved, expected, atol=1e-3, rtol=0)


def test_the_smallest_move_to_a_corner_meets_both_planes():
    """Of x ≥ 1 and x + y ≥ 3 the nearest point to the origin is (1.5, 1.5); of x ≥ 2 besides, the corner (2, 1)."""

    def plane(z):
        return z[:, 0] + z[:, 1] - 3

    start = torch.zeros(1, 2)
    for least, expected in ((1.0, [1.5, 1.5]), (2.0, [2.0, 1.0])):
        moved, reached = smallest_move(start, [plane, lambda z, least=least: z[:, 0] - least])
        assert reached.all()
        torch.testing.assert_close(moved, torch.tensor([expected]), atol=2e-3, rtol=0)


def test_the_smallest_move_to_a_circle_is_along_the_radius():
    start = torch.tensor([[3.0, 4.0], [0.3, 0.0]])
    moved, reached = smallest_move(start, [lambda z: 1 - z.square().sum(-1)])
    assert reached.all()
    torch.testing.assert_close(moved, torch.tensor([[0.6, 0.8], [0.3, 0.0]]), atol=2e-3, rtol=0)


def test_margins_that_contradict_each_other_are_told():
    moved, reached = smallest_move(torch.zeros(1, 1), [lambda z: z[:, 0] - 1, lambda z: -1 - z[:, 0]])
    assert not reached.any() and moved.isfinite().all()


@pytest.fixture
def controlled(vae):
    """A model whose attribute `tone` is the first dimension, and `size` the second."""
    tone, size = LatentAttribute(4, ["cold", "warm"]), LatentAttribute(4)
    tone.weight.copy_(torch.tensor([[-2.0, 0, 0, 0], [2.0, 0, 0, 0]]))
    tone.clarity.fill_(2.0)
    size.weight.copy_(torch.tensor([[0.0, 1, 0, 0]]))
    size.lowest.fill_(-5)
    size.highest.fill_(5)
    vae.set_attribute("tone", tone)
    vae.set_attribute("size", size)
    return vae


def test_an_edit_is_the_smallest_move_decoded(controlled, vae_processor):
    start = encode_texts(controlled, vae_processor, TEXTS).mode()
    edited = edit(controlled, vae_processor, TEXTS, {"tone": "warm", "size": 0.5}, strength=1.0, **SHORT)
    # The log-odds are 4 z₁, and at 1 they are those 2 nats.
    expected = start.clone()
    expected[:, 0] = start[:, 0].clamp(min=0.5)
    expected[:, 1] = 0.5
    torch.testing.assert_close(edited.latents, expected, atol=2e-3, rtol=0)
    assert edited.texts == decode_latents(controlled, vae_processor, edited.latents, **SHORT)
    torch.testing.assert_close(edited.distances, (edited.latents - start).norm(dim=-1))
    assert edited.strengths == [1.0] * 5
    # Half as strong moves to half of the log-odds, and a value may be each text's own.
    each = edit(controlled, vae_processor, TEXTS[:2], {"tone": ["warm", "cold"]}, strength=0.5, **SHORT).latents[:, 0]
    torch.testing.assert_close(each, torch.stack([start[0, 0].clamp(min=0.25), start[1, 0].clamp(max=-0.25)]), atol=2e-3, rtol=0)


def test_the_first_strength_that_the_text_shows_is_kept(controlled, vae_processor, monkeypatch, caplog):
    """The decoder says "warm" from 0.4 on; what the encoder makes of that is on that side."""
    module = importlib.import_module("hf_vae.latent_space.control")
    starts = {"the mat": 1.0, "a park": -1.0, "a dog": 0.1, "warm": 0.2, "cold": -0.2}

    def means(texts):
        mean = torch.tensor([[starts[text], 0.0, 0.0, 0.0] for text in texts])
        return DiagonalGaussian(mean, torch.zeros_like(mean))

    def decode(model, processor, latents, batch_size, **options):
        return ["warm" if z > 0.4 else "cold" for z in latents[:, 0].tolist()]

    monkeypatch.setattr(module, "encode_texts", lambda model, processor, texts, *_: means(texts))
    monkeypatch.setattr(module, "posterior_of", lambda model, processor, given, texts, *_, **lengths: means(texts))
    monkeypatch.setattr(module, "decode_latents", decode)
    edited = edit(controlled, vae_processor, ["the mat", "a park", "a dog"], {"tone": "warm"}, (0.5, 1.0, 1.5))
    assert edited.texts == ["warm"] * 3 and edited.has_attributes == [True] * 3
    assert edited.strengths == [0.5, 1.0, 1.0] and not caplog.records
    torch.testing.assert_close(edited.distances, torch.tensor([0.0, 1.5, 0.4]), atol=2e-3, rtol=0)
    weak = edit(controlled, vae_processor, ["the mat", "a park", "a dog"], {"tone": "warm"}, 0.5)
    assert weak.has_attributes == [True, False, False]
    assert "2 of 3 texts do not have what `attributes` asks for with `strength` 0.5" in caplog.text


def test_a_conditional_models_texts_are_edited_beside_their_sources(conditional, processor):
    tone = LatentAttribute(4, ["cold", "warm"])
    tone.weight.copy_(torch.tensor([[-2.0, 0, 0, 0], [2.0, 0, 0, 0]]))
    edited = edit(conditional, processor, TEXTS[:2], {"tone": "warm"}, 0.0, {"tone": tone}, sources=TEXTS[2:4], **SHORT)
    start = encode_texts(conditional, processor, TEXTS[:2], TEXTS[2:4]).mode()
    torch.testing.assert_close(edited.latents[:, 0], start[:, 0].clamp(min=0), atol=2e-3, rtol=0)
    assert edited.texts == decode_latents(conditional, processor, edited.latents, **processor(TEXTS[2:4]), **SHORT)


def test_what_cannot_be_edited_is_named(controlled, vae_processor):
    for options, message in (
        ({"attributes": {"mood": "warm"}}, "names 'mood', and this model has 'tone', 'size'"),
        ({"attributes": {"tone": "hot"}}, "choose one of 'cold', 'warm'"),
        ({"attributes": {"tone": ["warm"] * 3}}, "has 3 values for 5 input"),
        ({"attributes": {"tone": "warm"}, "strength": -1}, "`strength` is -1"),
        ({"attributes": {"tone": "warm"}, "strength": ()}, "`strength` is empty"),
        ({"attributes": {"tone": "warm"}, "sources": TEXTS}, "`sources` are given"),
    ):
        with pytest.raises(ValueError, match=message):
            edit(controlled, vae_processor, TEXTS, **options, **SHORT)
