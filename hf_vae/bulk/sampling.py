"""Tokens drawn by each row's own random numbers, whatever else is in its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

# Random numbers that are drawn of a row at once.
_STEPS = 64


def uniform_numbers(generators: Sequence[torch.Generator]) -> torch.Tensor:
    """The next numbers in [0, 1) of each generator, `(generators, _STEPS)`."""
    return torch.stack([torch.rand(_STEPS, generator=each, dtype=torch.float64) for each in generators])


class SampleByRow(LogitsProcessor):
    r"""
    Ancestral sampling inside greedy search. The next token of a row is the first whose cumulative probability exceeds a uniform
    number, \(\min\{k : \sum_{j \le k} p_j > u\}\), so token k has the probability \(p_k\). All others get the score -∞. The uniform
    numbers of a row are its own generator's.

    Args:
        generators (`list[torch.Generator]`): one for each row, on the CPU.
        temperature (`float`, defaults to 1.0): the scores are divided by it.
        top_k (`int`, defaults to 0): how many tokens may be drawn, those with the highest scores. With 0 any token may.
        top_p (`float`, defaults to 1.0): only the likeliest tokens whose probabilities reach this sum are drawn.
    """

    def __init__(self, generators: Sequence[torch.Generator], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0):
        self.generators = generators
        self.warpers = LogitsProcessorList()
        # In the order in which transformers applies them.
        if temperature != 1.0:
            self.warpers.append(TemperatureLogitsWarper(float(temperature)))
        if top_k:
            self.warpers.append(TopKLogitsWarper(top_k))
        if top_p < 1.0:
            self.warpers.append(TopPLogitsWarper(top_p))
        self._step = 0
        self._uniform = torch.empty(0)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """`(rows, length)` and `(rows, vocab)` to `(rows, vocab)`."""
        place = self._step % _STEPS
        if place == 0:
            self._uniform = uniform_numbers(self.generators)
        self._step += 1
        warped = self.warpers(input_ids, scores)
        # Sums over a large vocabulary need the precision. Apple's GPUs have no float64.
        cumulative = warped.to(torch.float32 if warped.device.type == "mps" else torch.float64).softmax(-1).cumsum(-1)
        uniform = self._uniform[:, place : place + 1].to(cumulative)
        whole = cumulative[:, -1:]
        # A product that is rounded up to the whole sum gives the last token that has a probability.
        token = ((cumulative <= uniform * whole) & (cumulative < whole)).sum(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
