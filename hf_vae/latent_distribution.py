"""A distribution over z for each row of a batch: what q and p are made of, whatever their family."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch

from .checks import check_number
from .latent_spread import spread_noise
from .rows import Rows


class LatentDistribution(Rows):
    """
    One distribution over z in each row. A family has `parameter_names`, `noise_size`, `from_noise`, `log_prob` and `mode`, and
    `kl` if it knows a closed form. `parameters()` and `with_parameters` must make the same distribution again: by them rows are
    selected, moved and gathered. A family that needs more than tensors, such as a flow's network, overrides `with_parameters`.

    Everything that draws z passes `from_noise`, so one stream of standard normal noise serves every family, and a draw is
    differentiable wherever its family is.
    """

    # The attributes that define the distribution: tensors of shape `(rows, …)`.
    parameter_names: tuple[str, ...]

    @property
    @abstractmethod
    def noise_size(self) -> int:
        """How many standard normal numbers make one draw."""

    @abstractmethod
    def from_noise(self, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """
        The draws that standard normal `noise` stands for.

        Args:
            noise (`torch.Tensor` of shape `(rows, noise_size)`): one draw a row; or `(rows, samples, noise_size)`, several.
            temperature (`float`, defaults to 1.0): factor on the spread; 0 gives the mode.

        Returns:
            `torch.Tensor` of shape `(rows, latent_size)` or `(rows, samples, latent_size)`.
        """

    @abstractmethod
    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        """
        Log density in nats: `(rows, latent_size)` to `(rows,)`, or `(rows, samples, latent_size)` to `(rows, samples)`. A
        distribution of one row serves any number of rows.
        """

    @abstractmethod
    def mode(self) -> torch.Tensor:
        """The most likely z, or what stands for it: `(rows, latent_size)`."""

    @property
    def smooth(self) -> bool:
        """Whether a draw changes smoothly with all of its noise, so that a gradient leads from one to any other."""
        return True

    def kl(self, other: LatentDistribution) -> torch.Tensor | None:
        """
        KL(self ‖ other) in closed form, nats: `(rows, latent_size)` if it is a sum over dimensions, `(rows, 1)` if it is not, and
        `None` if there is no closed form for this pair.
        """
        return None

    def sample(self, generator: torch.Generator | None = None, temperature: float = 1.0) -> torch.Tensor:
        """[`~LatentDistribution.draw`] of one z for each row, `(rows, latent_size)`."""
        return self.draw(1, generator=generator, temperature=temperature).squeeze(1)

    def draw(
        self,
        num_samples: int,
        spread: str = "independent",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """
        Several draws for each row.

        Args:
            num_samples (`int`): how many.
            spread (`str`, defaults to `"independent"`): how those of one row lie to each other, as [`spread_noise`] takes it.
            generator (`torch.Generator`, *optional*): source of the noise; it may live on another device than the distribution.
            temperature (`float`, defaults to 1.0): factor on the spread; 0 gives the mode.

        Returns:
            `torch.Tensor` of shape `(rows, num_samples, latent_size)`.

        Raises:
            ValueError: a negative temperature, or what [`spread_noise`] refuses.
        """
        check_number("temperature", temperature, least=0)
        noise = spread_noise(spread, len(self), num_samples, self.noise_size, generator, self.device)
        return self.from_noise(noise.to(self.device), temperature)

    def parameters(self) -> dict[str, torch.Tensor]:
        """What defines the distribution, by name; each of shape `(rows, …)`."""
        return {name: getattr(self, name) for name in self.parameter_names}

    def __len__(self) -> int:
        return len(getattr(self, self.parameter_names[0]))

    @property
    def device(self) -> torch.device:
        return getattr(self, self.parameter_names[0]).device

    def with_parameters(self, parameters: Mapping[str, torch.Tensor]) -> Self:
        """The distribution of this family that has these parameters, whose rows may be others."""
        return type(self)(**parameters)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The distribution of the parameters that `function` makes of these."""
        return self.with_parameters({name: function(parameter) for name, parameter in self.parameters().items()})


def concatenate(distributions: Sequence[LatentDistribution]) -> LatentDistribution:
    """The rows of all `distributions`, which are of one family, one after another."""
    first = distributions[0]
    return first.with_parameters(
        {name: torch.cat([getattr(each, name) for each in distributions]) for name in first.parameter_names}
    )


def per_sample(parameter: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A parameter `(rows, size)` as it stands beside `values` of shape `(rows, size)` or `(rows, samples, size)`."""
    return parameter.unsqueeze(1) if values.ndim > parameter.ndim else parameter


__all__ = ["LatentDistribution"]
