"""What is done to the next token's scores: refusing NaN, and averaging over several z."""

import torch
from transformers import LogitsProcessor


class RefuseNaN(LogitsProcessor):
    """
    Ends a generation whose scores are no numbers: the largest of them would be the vocabulary's first token, at every step.

    Args:
        rows_of_one_z (`int`, defaults to 1): beams or samples that share a z.
    """

    def __init__(self, rows_of_one_z: int = 1):
        self.rows_of_one_z = rows_of_one_z

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        bad = scores.isnan().any(-1)
        if bool(bad.any()):
            rows = sorted({row // self.rows_of_one_z for row in bad.nonzero().flatten().tolist()})
            raise ValueError(
                f"The decoder's scores are NaN in row(s) {rows}: its weights hold NaN, or `latents` or what else it reads is too "
                "large for its dtype."
            )
        return scores


class AverageOverLatents(LogitsProcessor):
    r"""
    Scores each next token under the mean over z, \(\log \frac1L \sum_l p(y_t, y_{<t}|x,z_l)\) up to a constant, for the L rows of
    each input alike: greedy search then writes one text on all of them (Sohn et al. 2015, section 3).

    Args:
        num_latents (`int`): L; the rows of an input stand next to each other.
    """

    def __init__(self, num_latents: int):
        self.num_latents = num_latents
        self._log_probs: torch.Tensor | None = None
        self._of_text: torch.Tensor | float = 0.0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`(rows, length)` and `(rows, vocab)` to `(rows, vocab)`."""
        if self._log_probs is not None:
            # How well each z has foretold the text so far is its weight in what follows.
            self._of_text = self._of_text + self._log_probs.gather(1, input_ids[:, -1:])
        self._log_probs = scores.float().log_softmax(-1)
        joint = (self._of_text + self._log_probs).unflatten(0, (-1, self.num_latents))
        return joint.logsumexp(1).log_softmax(-1).repeat_interleave(self.num_latents, 0).to(scores)
