"""Where codes lie, which z belongs to a place, and what a region has in common."""

import sys
from types import ModuleType

import pytest
import torch

from hf_vae.explorer import Corpus, fit_map, in_common, moved, principal_directions, units_by_kl
from hf_vae.explorer.colouring import LENGTH, NORM, colour, colour_by, colour_names


def test_principal_directions_are_those_of_a_known_covariance(codes):
    found = principal_directions(codes, 3)
    # The axes of the Gaussian that the codes were drawn from, the widest first.
    assert found.directions.abs().argmax(1).tolist() == [0, 2, 1]
    torch.testing.assert_close(found.std, torch.tensor([3.0, 1.0, 0.1]), rtol=0.1, atol=0)
    torch.testing.assert_close(found.shares.sum(), torch.tensor(1.0))
    torch.testing.assert_close(found.directions @ found.directions.T, torch.eye(3), atol=1e-6, rtol=0)
    back = found.centre + found.coordinates(codes) @ found.directions
    torch.testing.assert_close(back, codes, atol=1e-5, rtol=0)
    # They do not turn by chance.
    assert (found.directions.gather(1, found.directions.abs().argmax(1, keepdim=True)) > 0).all()
    with pytest.raises(ValueError, match="z has 3 dimensions"):
        principal_directions(codes, 4)


def test_a_point_has_its_own_z_and_a_place_lies_where_it_was_clicked(codes):
    plane = fit_map(codes)
    for row in (0, 17):
        torch.testing.assert_close(plane.latents_at(*plane.points[row].tolist()), codes[row], atol=1e-5, rtol=0)
    z = plane.latents_at(1.25, -0.5)
    found = principal_directions(codes, 2)
    torch.testing.assert_close(found.coordinates(z), torch.tensor([1.25, -0.5]), atol=1e-5, rtol=0)
    # What the map does not show is the nearest text's.
    away = z - codes[plane.nearest(1.25, -0.5)]
    torch.testing.assert_close(away - (away @ found.directions.T) @ found.directions, torch.zeros(3), atol=1e-5, rtol=0)
    share = 100 * found.shares[0].item()
    assert plane.axes[0] == f"direction 1: {share:.0f} % of the variance" and abs(share - 90) < 2


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (5, 2)])
def test_few_codes_and_few_units_have_a_map_too(shape):
    codes = torch.arange(float(shape[0] * shape[1])).view(shape)
    plane = fit_map(codes)
    assert plane.points.shape == (shape[0], 2) and plane.points.isfinite().all()
    torch.testing.assert_close(plane.latents_at(*plane.points[0].tolist()), codes[0])


def test_a_map_by_umap_has_weighted_neighbours_and_is_optional(codes, monkeypatch):
    with pytest.raises(ValueError, match="choose one of 'pca', 'umap'"):
        fit_map(codes, "tsne")
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr("hf_vae.explorer.latent_map.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        fit_map(codes, "umap")

    class UMAP:
        """In its place: two of the numbers."""

        def __init__(self, n_neighbors, random_state):
            pass

        def fit_transform(self, codes):
            return codes[:, :2]

    module = ModuleType("umap")
    module.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    monkeypatch.setattr("hf_vae.explorer.latent_map.find_spec", lambda name: module)
    found = fit_map(codes, "umap")
    torch.testing.assert_close(found.latents_at(*codes[3, :2].tolist()), codes[3], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="ten texts or more"):
        fit_map(codes[:4], "umap")


def test_what_a_region_has_in_common_is_counted():
    texts = [f"red word{n}" for n in range(30)] + [f"blue word{n}" for n in range(70)]
    corpus = Corpus(texts, "", columns={"group": ["a"] * 30 + ["b"] * 70, "size": [1.0] * 30 + [3.0] * 69 + [None]})
    found = in_common(corpus, list(range(20)))
    assert found.count == 20 and [(each.what, each.inside, each.outside) for each in found.words] == [("red", 1.0, 10 / 80)]
    assert [(each.what, each.outside) for each in found.columns["group"]] == [("a", 10 / 80)]
    assert found.means["size"] == (1.0, (10 + 69 * 3) / 79) and found.means["words"] == (2.0, 2.0)
    assert found.texts == texts[:8]
    # A share by chance is no trait, nor is what stands in one text, and all texts have nothing that others lack.
    assert in_common(corpus, [2, 35, 45, 55]).words == [] == in_common(corpus, range(100)).words
    for rows in ([], [100]):
        with pytest.raises(ValueError, match="holds no text"):
            in_common(corpus, rows)


def test_colours_are_labels_by_their_number_or_a_scale(vae):
    labels = colour_by([*"bbbaa", None])
    assert (labels.labels, labels.counts, labels.values) == (["b", "a"], [3, 2], [0, 0, 0, 1, 1, None])
    many = colour_by([f"label {n // 2}" for n in range(40)] + ["label 3"])
    assert len(many.labels) == 9 and many.labels[0] == "label 3" and many.labels[-1] == "all others" and many.counts[-1] == 24
    numbers = colour_by([1.0, None, 3.0, float("nan")])
    assert (numbers.lowest, numbers.highest, numbers.values) == (1.0, 3.0, [1.0, None, 3.0, None])
    assert colour_names(vae, vae.corpus) == ["colour", "size", "level, as z says", LENGTH, NORM]
    for name in colour_names(vae, vae.corpus):
        assert len(colour(vae, vae.corpus, vae.codes, name).values) == 5
    said = colour(vae, vae.corpus, torch.tensor([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]), "level, as z says")
    assert [said.labels[value] for value in said.values] == ["high", "low"]
    with pytest.raises(ValueError, match="no colour 'taste'"):
        colour(vae, vae.corpus, vae.codes, "taste")


def test_z_moves_along_vectors_to_units_and_to_attributes(vae):
    start = torch.tensor([-1.0, 0.5, 0.0, 0.0])
    assert torch.equal(moved(vae, start), start)
    vector = torch.tensor([0.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(moved(vae, start, [(vector, 2.0)], {3: 7.0}), torch.tensor([-1.0, 0.5, 2.0, 7.0]))
    # The log-odds of "high" are z₀, and a typical text has 1: z goes there by the shortest way.
    torch.testing.assert_close(
        moved(vae, start, attributes={"level": "high"}, strength=1.0), torch.tensor([1.0, 0.5, 0.0, 0.0]), atol=1e-2, rtol=0
    )
    with pytest.raises(ValueError, match="units 0 to 3"):
        moved(vae, start, units={4: 1.0})


def test_the_kl_of_units_adds_up_to_that_of_the_texts(explored):
    units = units_by_kl(explored)
    nats = [kl for _, kl in units]
    assert sorted(unit for unit, _ in units) == [0, 1, 2, 3] and nats == sorted(nats, reverse=True)
    prior = explored.evaluator(range(5)).prior() if explored.is_conditional else explored.one_prior()
    total = explored.posterior.kl(prior).sum(-1).mean().item()
    assert sum(nats) == pytest.approx(total, rel=1e-4)
