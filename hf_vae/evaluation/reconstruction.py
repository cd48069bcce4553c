"""Texts decoded from the posterior's mean, beside the texts that they should be."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..gaussian import DiagonalGaussian
from .examples import gather_in_order
from .likelihood import LikelihoodEvaluator
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
    evaluator: LikelihoodEvaluator, posterior: DiagonalGaussian | None = None, max_new_tokens: int | None = None
) -> Reconstruction:
    """
    Every target decoded greedily from its posterior's mean; conditional models are given their source too.

    Args:
        evaluator ([`LikelihoodEvaluator`]): the examples.
        posterior ([`DiagonalGaussian`], *optional*): `evaluator.posterior()`, if it is there already.
        max_new_tokens (`int`, *optional*): longest decoding; by default the longest target's length, EOS included.
    """
    posterior = evaluator.posterior() if posterior is None else posterior
    labels = evaluator.label_ids()
    eos = evaluator.processor.tokenizer.eos_token_id
    limit = max(map(len, labels)) if max_new_tokens is None else max_new_tokens
    numbers: list[int] = []
    texts: list[str] = []
    rooms = evaluator.rooms(limit)
    for batch in evaluator.batches("reconstructing"):
        # A long prompt may leave less room than the longest target of all takes, but never less than its own target does.
        for room in sorted({rooms[number] for number in batch.numbers}):
            rows = [row for row, number in enumerate(batch.numbers) if rooms[number] == room]
            some = [batch.numbers[row] for row in rows]
            sequences = evaluator.model.generate(
                **{name: tensor[rows] for name, tensor in batch.inputs.items()},
                latents=posterior.mean[some].to(evaluator.model.device),
                num_return_sequences=1,
                num_beams=1,
                do_sample=False,
                max_new_tokens=room,
            )
            for tokens in sequences[:, 1:].tolist():
                texts.append(_spell(evaluator, tokens[: tokens.index(eos)] if eos in tokens else tokens))
            numbers += some
    return Reconstruction(gather_in_order(numbers, texts), [_spell(evaluator, row[:-1]) for row in labels])


def _spell(evaluator: LikelihoodEvaluator, tokens: list[int]) -> str:
    # Not without special tokens: some vocabularies count the unknown word among them.
    return evaluator.processor.batch_decode([tokens])[0].strip()
