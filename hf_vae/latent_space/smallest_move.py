"""The smallest change of z that suffices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..checks import check_count, float_latents


def smallest_move(
    latents: torch.Tensor, margins: Sequence[Callable[[torch.Tensor], torch.Tensor]], max_rounds: int = 50, tolerance: float = 1e-3
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""
    The z nearest to each of `latents` where no margin is below 0: \(\min \lVert z - z_0 \rVert^2\) so that all \(m_i(z) \ge 0\). A
    z that has all of them stays where it is.

    Each round takes the margins as linear around the z so far and solves that, and moves by at most 1, a standard deviation of
    N(0, I). A linear margin is met exactly: \(z = z_0 - m(z_0)\,w / \lVert w \rVert^2\).

    Args:
        latents (`torch.Tensor` of shape `(rows, latent_size)`): z₀.
        margins (list of functions): each of z, `(rows,)`, such as [`~LatentAttribute.margin`] of a target.
        max_rounds (`int`, defaults to 50): at most.
        tolerance (`float`, defaults to 0.001): how far below 0 a margin may stay.

    Returns:
        z of shape `(rows, latent_size)`, and which rows have all margins, `(rows,)`: the others' contradict each other.
    """
    check_count("max_rounds", max_rounds)
    with torch.inference_mode(False), torch.enable_grad():
        start = float_latents(latents).detach().clone()
        z = start
        for number in range(max_rounds + 1):
            z = z.detach().requires_grad_()
            values = [margin(z).to(z) for margin in margins]
            gradients = torch.stack([torch.autograd.grad(value.sum(), z)[0] for value in values], dim=1)
            levels = torch.stack([value.detach() for value in values], dim=1)
            reached = (levels >= -tolerance).all(1)
            if number == max_rounds or reached.all():
                break
            # With z = z₀ + Σ λᵢ gᵢ each margin is `at_start` + Σ λⱼ gᵢ·gⱼ.
            at_start = levels + (gradients @ (start - z.detach()).unsqueeze(-1)).squeeze(-1)
            step = start + _multipliers(gradients @ gradients.mT, at_start, gradients) - z.detach()
            step = step * (1 / step.norm(dim=-1, keepdim=True).clamp(min=1))
            z = torch.where(reached.unsqueeze(-1), z.detach(), z.detach() + step)
    return z.detach(), reached


def _multipliers(products: torch.Tensor, levels: torch.Tensor, gradients: torch.Tensor, sweeps: int = 100) -> torch.Tensor:
    """Σ λᵢ gᵢ `(rows, latent_size)` of the shortest such sum that lifts all `levels` to 0, by Hildreth's method (1957)."""
    multipliers = torch.zeros_like(levels)
    several = levels.shape[1] > 1
    for _ in range(sweeps if several else 1):
        for which in range(levels.shape[1]):
            level = levels[:, which] + (products[:, which] * multipliers).sum(-1)
            change = -level / products[:, which, which].clamp(min=1e-12)
            multipliers[:, which] = (multipliers[:, which] + change).clamp(min=0)
    return (multipliers.unsqueeze(-1) * gradients).sum(1)


__all__ = ["smallest_move"]
