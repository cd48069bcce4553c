"""Directions in which z can be moved: where codes vary most, and single units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..checks import check_count
from ..latent_control import AttributeEnergy
from ..latent_space import smallest_move
from .explored import Explored


@dataclass
class PrincipalDirections:
    """
    Args:
        centre (`torch.Tensor` of shape `(latent_size,)`): the mean of the codes.
        directions (`torch.Tensor` of shape `(count, latent_size)`): unit vectors, the one of most variance first.
        std (`torch.Tensor` of shape `(count,)`): of the codes along each.
        shares (`torch.Tensor` of shape `(count,)`): of the codes' variance, 0 to 1.
    """

    centre: torch.Tensor
    directions: torch.Tensor
    std: torch.Tensor
    shares: torch.Tensor

    def coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        """`(rows, latent_size)` to `(rows, count)`: how far each z lies along each direction, from the centre."""
        return (latents - self.centre) @ self.directions.T


def principal_directions(codes: torch.Tensor, count: int) -> PrincipalDirections:
    """
    The eigenvectors of the codes' covariance (PCA), each with its largest entry positive, so that they do not turn by chance.

    Args:
        codes (`torch.Tensor` of shape `(rows, latent_size)`).
        count (`int`): how many; at most `latent_size`.

    Raises:
        ValueError: `count` is below 1 or above the size of z.
    """
    check_count("count", count)
    if count > codes.shape[1]:
        raise ValueError(f"`count` is {count}, and z has {codes.shape[1]} dimensions: ask for as many at most.")
    centre = codes.double().mean(0)
    centred = codes.double() - centre
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(codes))
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1).T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
    total = variances.sum()
    shares = variances / total if total > 0 else torch.zeros_like(variances)
    return PrincipalDirections(
        centre=centre.float(),
        directions=vectors[:count].float(),
        std=variances[:count].sqrt().float(),
        shares=shares[:count].float(),
    )


def moved(
    explored: Explored,
    start: torch.Tensor,
    steps: Sequence[tuple[torch.Tensor, float]] = (),
    units: Mapping[int, float] | None = None,
    attributes: Mapping[str, Any] | None = None,
    strength: float = 1.0,
) -> torch.Tensor:
    r"""
    \(z_0 + \sum_i a_i v_i\), then single units set to a value, then the smallest change with which z has the attributes
    ([`hf_vae.latent_space.edit`] has the equation).

    Args:
        explored ([`Explored`]): whose attributes they are.
        start (`torch.Tensor` of shape `(latent_size,)`): z₀.
        steps (list of a vector and a number): v and a, a vector of shape `(latent_size,)`.
        units (`dict`, *optional*): what the units of these numbers are to be.
        attributes (`dict`, *optional*): what z is to be like, by the names of the model's attributes.
        strength (`float`, defaults to 1.0): how clearly, as [`hf_vae.latent_space.edit`] takes it.

    Returns:
        `torch.Tensor` of shape `(latent_size,)`.

    Raises:
        ValueError: a unit that z does not have, or an attribute or a value that the model does not have.
    """
    z = start.clone()
    for vector, amount in steps:
        z = z + amount * vector
    for unit, value in (units or {}).items():
        if not 0 <= unit < len(z):
            raise ValueError(f"There is no unit {unit}: z has the units 0 to {len(z) - 1}.")
        z[unit] = value
    if attributes:
        with explored.lock:
            wanted = AttributeEnergy(explored.model.latent_attributes, attributes, batch_size=1).wanted
            margins = [partial(attribute.margin, target=target, strength=strength) for _, attribute, target in wanted]
            z = smallest_move(z.unsqueeze(0), margins)[0].squeeze(0)
    return z


def units_by_kl(explored: Explored) -> list[tuple[int, float]]:
    """The units of z with their KL in nats, the largest first; without a closed form in their order, with NaN."""
    kl = explored.unit_kl
    if kl is None:
        return [(unit, float("nan")) for unit in range(explored.model.config.total_latent_size)]
    return sorted(enumerate(kl.tolist()), key=lambda each: -each[1])
