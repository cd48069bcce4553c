"""Paths, arithmetic and pictures of codes."""

import random

import pytest
import torch
from sacrebleu.metrics.lib_ter import BeamEditDistance
from torch import nn

from helpers import TEXTS, posterior_means
from hf_vae import (
    DiagonalGaussian,
)
from hf_vae.cli.plots import plot_interpolation, plot_latents
from hf_vae.latent_space import (
    Imputation,
    Interpolation,
    LatentTexts,
    Neighbours,
    arithmetic,
    attribute_vector,
    decode_latents,
    interpolate,
    interpolate_latents,
    move,
    reconstruct,
    smoothness,
    word_edit_distance,
)

SHORT = {"max_new_tokens": 6}


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


def test_a_picture_of_z_has_a_colour_for_each_label(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **options: drawn.append(figure.axes[-1]))
    means = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [2.0, 0.1], [0.0, 1.0]])
    posterior, prior = DiagonalGaussian(means, torch.zeros(4, 2)), DiagonalGaussian.standard(4, 2, "cpu")
    plot_latents(posterior, prior, tmp_path / "x.png", ["asked", "told", "asked", "neither"])
    points = {line.get_label(): line for line in drawn[0].lines if not line.get_label().startswith("_")}
    assert {name: len(line.get_xdata()) for name, line in points.items()} == {"asked": 2, "neither": 1, "told": 1}
    assert len({line.get_color() for line in points.values()}) == 3
    assert [text.get_text() for text in drawn[0].get_legend().get_texts()] == ["asked", "neither", "told"]
    with pytest.raises(ValueError, match="`labels` has 1 entries, and `posterior` is of 4 texts"):
        plot_latents(posterior, prior, tmp_path / "x.png", ["asked"])


def test_results_show_their_texts_and_no_tensors():
    latents = torch.zeros(12, 2)
    shown = repr(LatentTexts(["the cat sat on the mat", "", *["a " * 100] * 10], latents))
    assert shown.startswith("LatentTexts of 12 texts:\n  the cat sat on the mat\n  (empty)\n") and shown.endswith(
        "\n  … and 2 more"
    )
    assert "tensor" not in shown and max(map(len, shown.splitlines())) <= 102
    assert repr(Interpolation(["a", "b"], latents[:2], [0.0, 1.0])) == "Interpolation of 2 texts:\n  0.00 a\n  1.00 b"
    assert repr(Imputation(["a"], latents[:1], [["a"]], [[0.0]])) == "Imputation of 1 text:\n  a"
    assert repr(Neighbours([["a", "b"]], *[latents[:1]] * 4)) == "Neighbours of 1 text:\n  a | b"
