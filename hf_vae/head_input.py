"""What a causal language model's head reads, changed on its way there: no argument of the LM's reaches that place."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class _Pass(threading.local):
    """What the next head that this thread calls is to read: several threads may pass one head, each with its own z."""

    change: Callable[[torch.Tensor], torch.Tensor] | None = None


PASS = _Pass()


def _change_input(lm_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    change, PASS.change = PASS.change, None
    return None if change is None else (change(inputs[0]), *inputs[1:])


def open_head(lm_head: nn.Module) -> None:
    """Lets [`head_reads`] change what this head reads. The hook stays, because a compiler cannot follow one that comes and goes."""
    if not getattr(lm_head, "input_can_change", False):
        # In front of the hooks that look at what the head reads.
        lm_head.register_forward_pre_hook(_change_input, prepend=True)
        lm_head.input_can_change = True  # type: ignore[assignment]


@contextmanager
def head_reads(lm_head: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """
    In the one pass of an LM that is made while it is open, the head reads `change(hidden_states)`; both are
    `(rows, length, head_size)`.

    Raises:
        ValueError: the LM made its logits without a call of its head, and so without the change.
    """
    # A resized vocabulary and an adapter put another module in the place of the one that was opened first.
    open_head(lm_head)
    PASS.change = change
    try:
        yield
        if PASS.change is not None:
            raise ValueError(
                "`latent_injection` names a way in through the head, and this LM makes its logits without a call of its "
                "`get_output_embeddings`. Choose 'embedding'."
            )
    finally:
        PASS.change = None


__all__ = ["head_reads", "open_head"]
