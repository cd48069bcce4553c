"""Tokens drawn by a row's own random numbers."""

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from hf_vae.bulk import sampling
from hf_vae.bulk.sampling import SampleByRow
from hf_vae.evaluation.distributed import sample_generators


def drawn(sampler, scores, steps=1):
    """The only token of each row that has a score, at each step: `(rows, steps)`."""
    tokens = []
    for _ in range(steps):
        chosen = sampler(torch.zeros(len(scores), 1, dtype=torch.long), scores)
        assert (chosen == 0).sum(-1).tolist() == [1] * len(scores) and chosen.isinf().sum() == chosen.numel() - len(scores)
        tokens.append(chosen.argmax(-1))
    return torch.stack(tokens, 1)


@pytest.mark.parametrize(
    "options, warp",
    [
        ({}, lambda scores: scores),
        ({"temperature": 0.5}, lambda scores: scores / 0.5),
        ({"top_k": 3}, lambda scores: TopKLogitsWarper(3)(None, scores)),
        ({"temperature": 1.5, "top_p": 0.7}, lambda scores: TopPLogitsWarper(0.7)(None, scores / 1.5)),
    ],
)
def test_each_token_has_exactly_its_probability(monkeypatch, options, warp):
    """Uniform numbers on a fine grid, one for each row: as many rows as p says get the token, to one."""
    rows = 10_000
    grid = ((torch.arange(rows, dtype=torch.float64) + 0.5) / rows).unsqueeze(1).expand(-1, sampling._STEPS)
    monkeypatch.setattr(sampling, "uniform_numbers", lambda drawn: grid)
    scores = torch.tensor([0.3, -1.0, 2.0, 0.9, -torch.inf, 1.4])
    tokens = drawn(SampleByRow([], **options), scores.expand(rows, -1))
    expected = rows * warp(scores.unsqueeze(0)).double().softmax(-1)[0]
    counts = torch.bincount(tokens[:, 0], minlength=6)
    # Both ends of a token's interval may be rounded.
    assert (counts - expected).abs().max() <= 1 and counts[4] == 0


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53, 1.0])
def test_a_token_without_probability_is_never_drawn(monkeypatch, uniform):
    monkeypatch.setattr(sampling, "uniform_numbers", lambda drawn: torch.full((1, sampling._STEPS), uniform, dtype=torch.float64))
    scores = torch.tensor([[-torch.inf, 0.1, 0.7, 0.3, -torch.inf, -torch.inf]])
    assert drawn(SampleByRow([]), scores)[0, 0] == (1 if uniform == 0 else 3)


def test_a_row_draws_the_same_in_any_batch_and_other_rows_differ():
    scores = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    # Two samples of each of three examples, for longer than random numbers are drawn at once.
    steps = sampling._STEPS + 5
    together = drawn(SampleByRow(sample_generators([4, 7, 9], 2, seed=3)), scores, steps)
    alone = drawn(SampleByRow(sample_generators([7], 2, seed=3)), scores[2:4], steps)
    assert torch.equal(together[2:4], alone)
    same = drawn(SampleByRow(sample_generators([4, 7, 9], 2, seed=3)), scores[:1].expand(6, -1), steps)
    # Of 69 tokens out of 50, two independent rows do not agree in all.
    assert len({tuple(row) for row in same.tolist()}) == 6
    other = drawn(SampleByRow(sample_generators([7], 2, seed=4)), scores[2:4], steps)
    assert not torch.equal(other, alone)
