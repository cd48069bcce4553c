"""A map of codes: where each lies, which z belongs to a place, and what a region has in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch

from ..checks import check_choice
from .corpus import Corpus
from .directions import principal_directions

PROJECTIONS = ("pca", "umap")
# Texts whose codes stand for a place of a map by UMAP, which has no inverse.
NEIGHBOURS = 5
# Among some hundred words, two would find several by chance.
STANDARD_ERRORS = 3


@dataclass
class LatentMap:
    """
    Args:
        codes (`torch.Tensor` of shape `(texts, latent_size)`): z.
        points (`torch.Tensor` of shape `(texts, 2)`): where each lies.
        axes (`tuple` of two `str`): what they are.
        directions (`torch.Tensor` of shape `(2, latent_size)`, *optional*): in which z moves along the axes, if they are straight.
    """

    codes: torch.Tensor
    points: torch.Tensor
    axes: tuple[str, str]
    directions: torch.Tensor | None = None

    def nearest(self, x: float, y: float) -> int:
        """The number of the text that lies nearest to a place."""
        return int((self.points - torch.tensor([x, y])).norm(dim=1).argmin())

    def latents_at(self, x: float, y: float) -> torch.Tensor:
        """
        The z of a place, `(latent_size,)`. A map shows two of many numbers, so the nearest text says the others: its z moves in the
        map's plane to the place, and at the text itself it is that of the text. By UMAP it is the mean of the nearest codes, each
        weighted with the inverse of its squared distance.
        """
        place = torch.tensor([x, y])
        if self.directions is not None:
            text = self.nearest(x, y)
            return self.codes[text] + (place - self.points[text]) @ self.directions
        squared = (self.points - place).square().sum(1)
        nearest = squared.topk(min(NEIGHBOURS, len(squared)), largest=False)
        weights = 1 / nearest.values.clamp(min=1e-12)
        return (weights / weights.sum()) @ self.codes[nearest.indices]


def fit_map(codes: torch.Tensor, projection: str = "pca", seed: int = 0) -> LatentMap:
    """
    A map of codes.

    Args:
        codes (`torch.Tensor` of shape `(texts, latent_size)`): z.
        projection (`str`, defaults to `"pca"`): the plane of most variance; or `"umap"`, which keeps neighbours together and needs
            `umap-learn`.
        seed (`int`, defaults to 0): of UMAP.

    Raises:
        ValueError: an unknown projection, or too few texts.
        ImportError: UMAP is not installed.
    """
    check_choice("projection", projection, PROJECTIONS)
    if projection == "umap":
        return _umap(codes, seed)
    count = min(2, codes.shape[1])
    found = principal_directions(codes, count)
    points, directions = found.coordinates(codes), found.directions
    axes = [f"direction {number + 1}: {100 * share:.0f} % of the variance" for number, share in enumerate(found.shares.tolist())]
    if count == 1:
        # z is a line, and the second axis is empty.
        points = torch.cat([points, torch.zeros(len(points), 1)], dim=1)
        directions = torch.cat([directions, torch.zeros_like(directions)])
        axes.append("")
    return LatentMap(codes=codes, points=points, axes=(axes[0], axes[1]), directions=directions)


def check_umap() -> None:
    """Raises an `ImportError` that says how UMAP is installed, if it is not."""
    if find_spec("umap") is None:
        raise ImportError("`projection` is 'umap', which needs `pip install umap-learn`; 'pca' needs nothing.")


def _umap(codes: torch.Tensor, seed: int) -> LatentMap:
    check_umap()
    if len(codes) < 10:
        raise ValueError(f"UMAP needs ten texts or more, and there are {len(codes)}: choose the projection 'pca'.")
    # Here, because importing it compiles for seconds.
    from umap import UMAP

    points = UMAP(n_neighbors=min(15, len(codes) - 1), random_state=seed).fit_transform(codes.numpy())
    return LatentMap(codes=codes, points=torch.from_numpy(points).float(), axes=("UMAP 1", "UMAP 2"))


@dataclass
class Trait:
    """What is commoner in a region than elsewhere, with its shares inside and outside, 0 to 1."""

    what: str
    inside: float
    outside: float


@dataclass
class Region:
    """
    Args:
        count (`int`): texts in it.
        words (`list[Trait]`): words that stand in more of the texts than elsewhere, by three standard errors; what differs most
            comes first.
        columns (`dict[str, list[Trait]]`): the same of the values of each column.
        means (`dict[str, tuple[float, float]]`): of each column of numbers the mean inside and outside.
        texts (`list[str]`): some of them.
    """

    count: int
    words: list[Trait]
    columns: dict[str, list[Trait]] = field(default_factory=dict)
    means: dict[str, tuple[float, float]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


def in_common(corpus: Corpus, rows: Sequence[int], most: int = 8) -> Region:
    """
    What the texts `rows` have in common that the others lack.

    Args:
        corpus ([`Corpus`]): all texts.
        rows (`list[int]`): the numbers of those in the region.
        most (`int`, defaults to 8): words, values and texts that are named at most.

    Raises:
        ValueError: no text, or one that does not exist.
    """
    inside = sorted(set(rows))
    if not inside or inside[0] < 0 or inside[-1] >= len(corpus):
        raise ValueError("The region holds no text: draw it around some points.")
    chosen = set(inside)
    outside = [row for row in range(len(corpus)) if row not in chosen]
    words = [set(text.split()) for text in corpus.texts]
    region = Region(
        count=len(inside),
        words=_traits(words, inside, outside)[:most],
        texts=[corpus.texts[row] for row in inside[:most]],
    )
    length = [float(len(text.split())) for text in corpus.texts]
    for name, values in {"words": length, **corpus.columns}.items():
        if any(isinstance(value, str) for value in values):
            of_each = [set() if value is None else {value} for value in values]
            region.columns[name] = _traits(of_each, inside, outside)[:most]
        else:
            region.means[name] = (_mean(values, inside), _mean(values, outside))
    return region


def _traits(sets: Sequence[set[Any]], inside: Sequence[int], outside: Sequence[int]) -> list[Trait]:
    """Members that more of the sets inside have: by three standard errors of the difference of two shares."""
    if not outside:
        return []
    within, without = (Counter(each for row in rows for each in sets[row]) for rows in (inside, outside))
    traits = []
    for each, count in within.items():
        trait = Trait(str(each), count / len(inside), without[each] / len(outside))
        pooled = (count + without[each]) / (len(inside) + len(outside))
        error = (pooled * (1 - pooled) * (1 / len(inside) + 1 / len(outside))) ** 0.5
        if count > 1 and trait.inside - trait.outside > STANDARD_ERRORS * error:
            traits.append(trait)
    return sorted(traits, key=lambda trait: (trait.outside - trait.inside, trait.what))


def _mean(values: Sequence[float | None], rows: Sequence[int]) -> float:
    known = [values[row] for row in rows if values[row] is not None]
    return sum(known) / len(known) if known else float("nan")  # type: ignore[arg-type]
