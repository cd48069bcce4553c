"""Texts decoded from the posterior's mean, beside the texts that they should be."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    texts: list[str]
    targets: list[str]

    def metrics(self, tokenize: str | None = None) -> dict[str, float]:
        """`reconstruction_at_mean_exact_match`, the share of targets met exactly; `reconstruction_at_mean_bleu`, 0 to 100."""
        exact = sum(text == target for text, target in zip(self.texts, self.targets))
        return {
            "reconstruction_at_mean_exact_match": exact / len(self.texts),
            "reconstruction_at_mean_bleu": bleu(self.texts, [[target] for target in self.targets], tokenize),
        }


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

    def write(batch: ExampleBatch) -> list[str]:
        written: dict[int, str] = {}
        # A long prompt may leave less room than the longest target of all takes, but never less than its own target does.
        for limit in sorted({limits[index] for index in batch.indices}):
            rows = [row for row, index in enumerate(batch.indices) if limits[index] == limit]
            latents = codes[[batch.indices[row] for row in rows]].to(evaluator.model.device)
            written.update(zip(rows, _greedy(evaluator, batch, rows, latents, limit)))
        return [written[row] for row in range(len(batch.indices))]

    with evaluator.reading_once():
        codes = (evaluator.posterior() if posterior is None else posterior).mode()
        texts = evaluator.map(write, "reconstructing")
    return Reconstruction(texts, [_decode_row(evaluator, row[:-1]) for row in labels])


def _greedy(
    evaluator: LikelihoodEvaluator, batch: ExampleBatch, rows: list[int], latents: torch.Tensor, max_new_tokens: int
) -> list[str]:
    """The greedy text of each z, for some rows of the batch."""
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
    tokens = sequences[:, 1:].tolist()
    return [_decode_row(evaluator, row[: row.index(eos)] if eos in row else row) for row in tokens]


def _decode_row(evaluator: LikelihoodEvaluator, tokens: list[int]) -> str:
    # Not without special tokens: some vocabularies count the unknown word among them.
    return evaluator.processor.batch_decode([tokens])[0].strip()
