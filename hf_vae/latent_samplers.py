"""Samplers of densities that are a standard normal's times a factor: what control in z draws its noise with."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .checks import check_count, check_number
from .latent_spread import spread_noise

# The ODE's steps, and the draws that an expectation on its way is a mean of.
ODE_STEPS = 20
ODE_DRAWS = 64
# So many times the square root of the dimensions no standard normal vector is long, and of few dimensions twice as many.
LONGEST = 4.0
LANGEVIN_STEPS = 300
LANGEVIN_STEP_SIZE = 0.2
# Below this share of accepted steps a chain stands still.
LEAST_ACCEPTED = 0.05


def ode_sampler(
    energy: Callable[[torch.Tensor], torch.Tensor],
    noise: torch.Tensor,
    num_steps: int = ODE_STEPS,
    num_draws: int = ODE_DRAWS,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""
    The probability flow ODE of a variance-preserving diffusion (Song et al. 2021, equation 13; Liu et al. 2022, equations 9 and
    10), which turns N(0, I) into \(\propto \mathcal N(\epsilon; 0, I)\,e^{-E(\epsilon)}\), by Heun's method.

    At the angle θ, from π/2 to 0, the diffused ε is \(\cos\theta\,\epsilon_0 + \sin\theta\,\xi\). N(0, I) stays what it is, so
    only the energy drives: \(d\epsilon/d\theta = -\tan\theta\,\nabla \log \mathrm E_\xi[e^{-E(\epsilon_\theta)}]\), with
    \(\epsilon_\theta = \cos\theta\,\epsilon + \sin\theta\,\xi\). The expectation is a mean over draws of ξ that stay the same all
    the way. LatentOps leaves it out and takes E(ε) at every θ: that ends nearer to where E is least than the density does.

    Args:
        energy (function): of `(rows, draws, size)`, `(rows, draws)`.
        noise (`torch.Tensor` of shape `(rows, samples, size)`): standard normal.
        num_steps (`int`, defaults to 20): of Heun's.
        num_draws (`int`, defaults to 64): in the mean over ξ; an even number.
        generator (`torch.Generator`, *optional*): of these.

    Raises:
        ValueError: an option below 1, or the ODE has left what is likely: the energy is too steep for the steps.
    """
    check_count("num_steps", num_steps)
    check_count("num_draws", num_draws, least=2)
    rows, samples, size = noise.shape
    others = spread_noise("antithetic", rows * samples, num_draws, size, generator, noise.device).to(noise)
    others = others.unflatten(0, (rows, samples))

    def slope(at: torch.Tensor, angle: float) -> torch.Tensor:
        """dε/dθ, in which tan θ times the derivative cos θ of what E is taken at is sin θ."""
        diffused = (math.cos(angle) * at.unsqueeze(2) + math.sin(angle) * others).requires_grad_()
        factors = -energy(diffused.flatten(1, 2)).unflatten(1, (samples, num_draws))
        (gradients,) = torch.autograd.grad(factors.logsumexp(-1).sum(), diffused)
        return -math.sin(angle) * gradients.sum(2)

    step = -math.pi / 2 / num_steps
    for number in range(num_steps, 0, -1):
        first = slope(noise, -step * number)
        second = slope(noise + step * first, -step * (number - 1))
        noise = noise + 0.5 * step * (first + second)
    longest = noise.norm(dim=-1).max().item() / math.sqrt(size)
    if not longest <= LONGEST * (1 + 1 / math.sqrt(size)):
        raise ValueError(
            f"The ODE in z has diverged: the longest noise is {longest:.1f} times as long as a typical one after `num_steps`="
            f"{num_steps}. Take more steps, or a smaller `attribute_weight`; or the target lies far from all that the prior gives."
        )
    return noise


def langevin_sampler(
    energy: Callable[[torch.Tensor], torch.Tensor],
    noise: torch.Tensor,
    num_steps: int = LANGEVIN_STEPS,
    step_size: float = LANGEVIN_STEP_SIZE,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""
    Langevin dynamics on \(U(\epsilon) = \tfrac12\lVert\epsilon\rVert^2 + E(\epsilon)\), of which each step is accepted or not as
    Metropolis and Hastings do (Roberts & Tweedie 1996), so that the density of the draws is exact after many steps, whatever their
    size.

    Args:
        energy (function): of `(rows, draws, size)`, `(rows, draws)`.
        noise (`torch.Tensor` of shape `(rows, samples, size)`): where the chains begin.
        num_steps (`int`, defaults to 300): of each chain.
        step_size (`float`, defaults to 0.2): standard deviation of a step.
        generator (`torch.Generator`, *optional*): of the steps.

    Raises:
        ValueError: an option out of range, or almost no step was accepted: the steps are too large for the energy.
    """
    check_count("num_steps", num_steps)
    check_number("step_size", step_size, above=0)

    def look(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """U `(rows, draws)` and its gradient."""
        at = at.detach().requires_grad_()
        potential = 0.5 * at.square().sum(-1) + energy(at)
        (gradient,) = torch.autograd.grad(potential.sum(), at)
        return potential.detach(), gradient

    device = noise.device if generator is None else generator.device
    half = 0.5 * step_size**2
    potential, gradient = look(noise)
    accepted = 0.0
    for _ in range(num_steps):
        push = torch.randn(noise.shape, generator=generator, device=device).to(noise)
        proposed = noise - half * gradient + step_size * push
        there, gradient_there = look(proposed)
        back = (noise - proposed + half * gradient_there) / step_size
        log_ratio = potential - there + 0.5 * (push.square() - back.square()).sum(-1)
        uniform = torch.rand(log_ratio.shape, generator=generator, device=device).to(noise)
        # A proposal of which the energy is not finite is never accepted.
        taken = (uniform.log() < log_ratio).unsqueeze(-1)
        noise = torch.where(taken, proposed, noise)
        gradient = torch.where(taken, gradient_there, gradient)
        potential = torch.where(taken.squeeze(-1), there, potential)
        accepted += taken.float().mean().item() / num_steps
    if accepted < LEAST_ACCEPTED:
        raise ValueError(
            f"Langevin dynamics in z stands still: {100 * accepted:.1f} % of its steps were accepted with `step_size`="
            f"{step_size:g}. Take smaller and more steps, or a smaller `attribute_weight`."
        )
    return noise


LATENT_SAMPLERS: dict[str, Callable[..., torch.Tensor]] = {"ode": ode_sampler, "langevin": langevin_sampler}

__all__ = ["langevin_sampler", "ode_sampler"]
