"""Texts decoded from the posterior's mean, beside the texts that they should be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import BatchEncoding

from ..calls import call_with
from ..gaussian import DiagonalGaussian
from .distributed import gather_in_order
from .evaluator import LikelihoodEvaluator
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
    longest = max(map(len, labels)) if max_new_tokens is None else max_new_tokens
    indices: list[int] = []
    texts: list[str] = []
    limits = evaluator.max_new_tokens_each(longest)
    for batch in evaluator.batches("reconstructing"):
        # A long prompt may leave less room than the longest target of all takes, but never less than its own target does.
        for limit in sorted({limits[index] for index in batch.indices}):
            rows = [row for row, index in enumerate(batch.indices) if limits[index] == limit]
            some = [batch.indices[row] for row in rows]
            sequences = call_with(
                evaluator.model.generate,
                BatchEncoding({name: tensor[rows] for name, tensor in batch.inputs.items()}),
                latents=posterior.mean[some].to(evaluator.model.device),
                num_return_sequences=1,
                num_beams=1,
                do_sample=False,
                max_new_tokens=limit,
            )
            for tokens in sequences[:, 1:].tolist():
                texts.append(_decode_row(evaluator, tokens[: tokens.index(eos)] if eos in tokens else tokens))
            indices += some
    return Reconstruction(gather_in_order(indices, texts), [_decode_row(evaluator, row[:-1]) for row in labels])


def _decode_row(evaluator: LikelihoodEvaluator, tokens: list[int]) -> str:
    # Not without special tokens: some vocabularies count the unknown word among them.
    return evaluator.processor.batch_decode([tokens])[0].strip()
