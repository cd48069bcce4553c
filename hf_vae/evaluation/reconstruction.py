"""Texts decoded from the posterior's mean, beside the texts that they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from ..latent_distribution import LatentDistribution
from .evaluator import LikelihoodEvaluator
from .example_batch import ExampleBatch
from .text_metrics import bleu


@dataclass
class Reconstruction:
    """
    Greedy decodings at the posterior's mean. No bound on a likelihood, and nothing to add to a KL.

    Args:
        texts (`list[str]`): the decodings, in the examples' order.
        targets (`list[str]`): the targets as the decoder's vocabulary spells them, so that what a tokenizer folds away (case, say)
            is no error.
        tokens, target_tokens (`list[list[int]]`): the token ids of both, with an EOS at the end of all that were finished.
    """

    texts: list[str]
    targets: list[str]
    tokens: list[list[int]]
    target_tokens: list[list[int]]

    def metrics(self, tokenize: str | None = None) -> dict[str, float]:
        """
        `reconstruction_at_mean_exact_match`, the share of targets met exactly; `reconstruction_at_mean_token_accuracy`, see
        [`token_accuracy`], the mean over targets; `reconstruction_at_mean_bleu`, 0 to 100.
        """
        exact = sum(text == target for text, target in zip(self.texts, self.targets))
        return {
            "reconstruction_at_mean_exact_match": exact / len(self.texts),
            "reconstruction_at_mean_token_accuracy": fmean(map(token_accuracy, self.tokens, self.target_tokens)),
            "reconstruction_at_mean_bleu": bleu(self.texts, [[target] for target in self.targets], tokenize),
        }


def token_accuracy(tokens: Sequence[int], target: Sequence[int]) -> float:
    """
    The share of the target's tokens, its EOS among them, that a free-running decoding has at the very same place. A token too many
    puts all that follow it in the wrong place.
    """
    return sum(token == wanted for token, wanted in zip(tokens, target)) / len(target)


@torch.no_grad()
def reconstruction_at_mean(
    evaluator: LikelihoodEvaluator, posterior: LatentDistribution | None = None, max_new_tokens: int | None = None
) -> Reconstruction:
    """
    Every target decoded greedily from its posterior's mean; conditional models are given their source too.

    Args:
        evaluator ([`LikelihoodEvaluator`]): the examples.
        posterior ([`LatentDistribution`], *optional*): `evaluator.posterior()`, if it is there already.
        max_new_tokens (`int`, *optional*): longest decoding; by default the longest target's length, EOS included.
    """
    labels = evaluator.label_ids()
    longest = max(map(len, labels)) if max_new_tokens is None else max_new_tokens
    limits = evaluator.max_new_tokens_each(longest)

    def write(batch: ExampleBatch) -> list[list[int]]:
        written: dict[int, list[int]] = {}
        # A long prompt may leave less room than the longest target of all takes, but never less than its own target does.
        for limit in sorted({limits[index] for index in batch.indices}):
            rows = [row for row, index in enumerate(batch.indices) if limits[index] == limit]
            latents = codes[[batch.indices[row] for row in rows]].to(evaluator.model.device)
            written.update(zip(rows, _greedy(evaluator, batch, rows, latents, limit)))
        return [written[row] for row in range(len(batch.indices))]

    with evaluator.reading_once():
        codes = (evaluator.posterior() if posterior is None else posterior).mode()
        tokens = evaluator.map(write, "reconstructing")
    texts, targets = ([_decode_row(evaluator, row) for row in rows] for rows in (tokens, labels))
    return Reconstruction(texts, targets, tokens, labels)


def _greedy(
    evaluator: LikelihoodEvaluator, batch: ExampleBatch, rows: list[int], latents: torch.Tensor, max_new_tokens: int
) -> list[list[int]]:
    """The tokens of the greedy text of each z, for some rows of the batch, up to and with EOS."""
    sequences = evaluator.model.generate(
        **{name: tensor[rows] for name, tensor in batch.inputs.items()},
        source=batch.source.select(rows),
        latents=latents,
        num_return_sequences=1,
        num_beams=1,
        do_sample=False,
        max_new_tokens=max_new_tokens,
    )
    eos = evaluator.processor.tokenizer.eos_token_id
    return [row[: row.index(eos) + 1] if eos in row else row for row in sequences[:, 1:].tolist()]


def _decode_row(evaluator: LikelihoodEvaluator, tokens: list[int]) -> str:
    # Not without special tokens: some vocabularies count the unknown word among them.
    text = tokens[:-1] if tokens[-1:] == [evaluator.processor.tokenizer.eos_token_id] else tokens
    return evaluator.processor.batch_decode([text])[0].strip()
