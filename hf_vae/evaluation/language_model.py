"""A language model's NLL of the same texts, which a VAE's bound must be read beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from transformers import PreTrainedModel

from ..encoders import check_length
from ..fused_linear_cross_entropy import sequence_nll
from .distributed import copied_rows, map_examples


@torch.no_grad()
def language_model_nll(
    model: PreTrainedModel, label_ids: Sequence[Sequence[int]], start_token_id: int, batch_size: int = 64
) -> torch.Tensor:
    """
    -log p(y) of each text under any causal language model.

    Args:
        model (`PreTrainedModel`): any `AutoModelForCausalLM`; put into evaluation mode.
        label_ids (`list[list[int]]`): tokens of each text with EOS, which is counted; no start token.
        start_token_id (`int`): what the model reads before the first token; not counted.
        batch_size (`int`, defaults to 64): texts at once.

    Returns:
        `torch.Tensor` of shape `(examples,)`, nats per sentence.

    Raises:
        ValueError: a token outside the model's vocabulary, or a text longer than the model holds.
    """
    vocabulary = model.config.get_text_config().vocab_size
    largest = max(start_token_id, *(max(row) for row in label_ids))
    if largest >= vocabulary:
        raise ValueError(
            f"The texts have a token {largest}, but {type(model).__name__} has {vocabulary}: its vocabulary is another one."
        )
    model.eval()

    def score(indices: list[int]) -> list[torch.Tensor]:
        width = max(len(label_ids[i]) for i in indices)
        padded = [[*label_ids[i], *[-100] * (width - len(label_ids[i]))] for i in indices]
        labels = cast(torch.LongTensor, torch.tensor(padded, device=model.device))
        # The last token is predicted and never read.
        words = torch.cat([torch.full_like(labels[:, :1], start_token_id), labels[:, :-1]], dim=1)
        mask = (words != -100).long()
        check_length("A text with its start token", mask, model.config)
        logits = model(input_ids=words.masked_fill(mask == 0, 0), attention_mask=mask, use_cache=False).logits
        return copied_rows(sequence_nll(logits, labels).cpu())

    return torch.stack(map_examples(score, [len(row) for row in label_ids], batch_size, "language model"))
