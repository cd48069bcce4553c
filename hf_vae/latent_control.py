"""
Control in z: draws of z that have attributes (LatentOps, Liu et al. 2022).

An energy is any function of z, `(rows, latent_size)` to `(rows,)`, in nats: minus the logarithm of a factor of the density.
Energies add up to the energy of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers.utils import logging

from .checks import check_choice, check_number, float_latents
from .latent_attribute import LatentAttribute
from .latent_distribution import LatentDistribution
from .latent_samplers import LATENT_SAMPLERS
from .latent_spread import spread_noise
from .rows import match_rows

logger = logging.get_logger(__name__)

Energy = Callable[[torch.Tensor], torch.Tensor]
# How clear an attribute is to be in what `generate` draws. With 1 z follows p(z|x,a) itself, and z near the border is drawn too.
ATTRIBUTE_WEIGHT = 10.0


def add_energies(*energies: Energy) -> Energy:
    """The sum: the energy of the product of the densities."""
    return lambda latents: torch.stack([energy(latents) for energy in energies]).sum(0)


def similarity_energy(latents: torch.Tensor, std: float = 1.0) -> Energy:
    r"""
    "Like this text": \(\lVert z - z_0 \rVert^2 / 2\,\mathrm{std}^2\).

    Args:
        latents (`torch.Tensor` of shape `(1, latent_size)` or `(rows, latent_size)`): z₀ of the text, for all or for each row.
        std (`float`, defaults to 1.0): how far z may lie from it, in each dimension.

    Raises:
        ValueError: `std` is not above 0.
    """
    check_number("std", std, above=0)
    centre = float_latents(latents)

    def energy(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((z - match_rows(centre, len(z)).to(z)) / std).square().sum(-1)

    return energy


class AttributeEnergy:
    r"""
    The energy \(-\lambda \sum_i \log p(a_i|z)\). Added to that of p(z|x) it is that of z given x and all attributes, if they are
    independent given z and λ is 1 (Liu et al. 2022).

    Args:
        held (mapping of `str` to [`LatentAttribute`]): the attributes of a model, `model.latent_attributes`.
        attributes (`dict`): what each is to be, by its name: a value, or a list with one for each input.
        weight (`float`, *optional*, defaults to 10.0): λ. More than 1 keeps z away from where an attribute is unclear.
        batch_size (`int`, *optional*): inputs, if they are known.

    Raises:
        ValueError: no such dictionary, an attribute that the model does not have, a value that the attribute does not have, as many
            values as there are no inputs, or a weight that is not above 0.
    """

    def __init__(
        self,
        held: Mapping[str, LatentAttribute] | nn.ModuleDict,
        attributes: Mapping[str, Any],
        weight: float | None = None,
        batch_size: int | None = None,
    ):
        self.weight = ATTRIBUTE_WEIGHT if weight is None else weight
        check_number("attribute_weight", self.weight, above=0)
        self.wanted: list[tuple[str, LatentAttribute, torch.Tensor]] = []
        if not isinstance(attributes, Mapping) or not attributes:
            raise ValueError(f"`attributes` is {attributes!r}; give a dictionary such as {{'sentiment': 'positive'}}.")
        for name, value in attributes.items():
            if name not in held:
                has = f"this model has {', '.join(map(repr, held))}" if len(held) else "this model has none"
                raise ValueError(
                    f"`attributes` names {name!r}, and {has}: fit it with `hf_vae.latent_space.fit_attribute` and keep it with "
                    "`model.set_attribute`."
                )
            attribute = cast(LatentAttribute, held[name])
            target = attribute.target(value, f"attributes[{name!r}]")
            if batch_size is not None and len(target) not in (1, batch_size):
                raise ValueError(
                    f"`attributes[{name!r}]` has {len(target)} values for {batch_size} input(s): give one for all, or one for each."
                )
            self.wanted.append((name, attribute, target))

    @classmethod
    def of(
        cls,
        held: Mapping[str, LatentAttribute] | nn.ModuleDict,
        attributes: Mapping[str, Any] | None,
        weight: float | None,
        batch_size: int,
    ) -> AttributeEnergy | None:
        """The energy; `None` without `attributes`, beside which a `ValueError` refuses a weight."""
        if attributes is not None:
            return cls(held, attributes, weight, batch_size)
        if weight is not None:
            raise ValueError("`attribute_weight` is given without `attributes`, and has no effect: leave it out.")
        return None

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """`(rows, latent_size)` to `(rows,)`; as many rows as inputs, or as many in succession for each."""
        terms = [attribute.log_prob(latents, target).to(latents.device) for _, attribute, target in self.wanted]
        return -self.weight * torch.stack(terms).sum(0)

    @torch.no_grad()
    def warn_if_missed(self, latents: torch.Tensor) -> None:
        """A warning with the figure if the draws do not have an attribute: what is asked for contradicts itself, or x."""
        for name, attribute, target in self.wanted:
            if attribute.labels is not None:
                figure = attribute.log_prob(latents, target).exp().mean().item()
                missed, found = figure < 0.5, f"p({name}|z) is {figure:.2f} in the mean"
            else:
                figure = -attribute.margin(latents, target).mean().item()
                missed, found = figure > 2, f"{name} is {figure:.1f} standard deviations off in the mean"
            if missed:
                logger.warning(
                    f"`attributes`: {found} over the z that were drawn. Either they contradict each other or what is given, or "
                    "`attribute_weight` is too small."
                )


def draw_latents(
    distribution: LatentDistribution,
    num_samples: int,
    energy: Energy | None = None,
    sampler: str | None = None,
    spread: str = "independent",
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    **sampler_options: Any,
) -> torch.Tensor:
    r"""
    Several draws for each row from the density \(\propto p(z)\,e^{-E(z)}\), with p of `distribution`; without an energy, from p.

    The samplers work on the standard normal noise that [`~LatentDistribution.from_noise`] makes z of, so one of them serves every
    family. `spread` is that of the noise they begin with, which the ODE keeps.

    Args:
        distribution ([`LatentDistribution`]): p(z), p(z|x) or q(z|y), of which each row is a case of its own.
        num_samples (`int`): draws for each row.
        energy (function, *optional*): of z, `(rows · num_samples, latent_size)` to `(rows · num_samples,)`, draws of one row in
            succession; or of as many z for each of them, in succession too.
        sampler (`str`, *optional*): `"ode"` ([`ode_sampler`]) or `"langevin"` ([`langevin_sampler`]). By default the first, or the
            second for a family whose draw is not smooth in the noise, as a mixture's.
        spread, generator, temperature: as of [`~LatentDistribution.draw`].
        sampler_options: of the sampler.

    Returns:
        `torch.Tensor` of shape `(rows, num_samples, latent_size)`.

    Raises:
        ValueError: an option out of range, a temperature of 0 beside an energy, or a sampler that diverged.
    """
    if energy is None:
        return distribution.draw(num_samples, spread, generator, temperature)
    sampler = sampler or ("ode" if distribution.smooth else "langevin")
    check_choice("sampler", sampler, tuple(LATENT_SAMPLERS))
    if sampler == "ode" and not distribution.smooth:
        raise ValueError(
            f"A draw of {type(distribution).__name__} is not smooth in its noise, and `sampler='ode'` follows its gradient: choose "
            "'langevin'."
        )
    check_number("latent_temperature", temperature, least=0)
    if not temperature:
        raise ValueError(
            "`latent_temperature` is 0 beside attributes, and then there is but one z to choose from: give a small one, or change "
            "a text with `hf_vae.latent_space.edit`."
        )
    # What was made in inference mode must be copied before a gradient may pass it.
    with torch.inference_mode(False), torch.enable_grad():
        rows = distribution.map(lambda parameter: parameter.detach().clone())

        def energy_of_noise(noise: torch.Tensor) -> torch.Tensor:
            """Of `(rows, draws, noise_size)`, `(rows, draws)`."""
            latents = rows.from_noise(noise, temperature)
            return energy(latents.flatten(0, 1)).to(noise.device).unflatten(0, latents.shape[:2])

        noise = spread_noise(spread, len(rows), num_samples, rows.noise_size, generator, rows.device).to(rows.device)
        noise = LATENT_SAMPLERS[sampler](energy_of_noise, noise.clone(), generator=generator, **sampler_options)
        return rows.from_noise(noise, temperature).detach()


__all__ = ["AttributeEnergy", "add_energies", "draw_latents", "similarity_energy"]
