"""What a causal language model's head reads, changed on its way there: no argument of the LM's reaches that place."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class _Pass(threading.local):
    """The head that this thread is about to call, and what it is to read. Another thread may pass it with another z."""

    lm_head: nn.Module | None = None
    change: Callable[[torch.Tensor], torch.Tensor]


PASS = _Pass()


def _change_input(lm_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    # An adapter's head may call one inside it that was opened before. Nothing is written here: a compiler would lose it.
    if PASS.lm_head is not lm_head:
        return None
    if not inputs:
        raise ValueError(
            "`latent_injection` names a way in through the LM's head, and this LM hands its head the hidden states by a keyword, "
            "where they cannot be changed. Choose 'embedding'."
        )
    return (PASS.change(inputs[0]), *inputs[1:])


def open_head(lm_head: nn.Module) -> None:
    """Lets [`head_reads`] change what this head reads. The hook stays, because a compiler cannot follow one that comes and goes."""
    # Of the module itself: a wrapper may show what belongs to the module inside it.
    hooks = vars(lm_head)["_forward_pre_hooks"]
    if not any(hook is _change_input for hook in hooks.values()):
        # In front of the hooks that look at what the head reads.
        lm_head.register_forward_pre_hook(_change_input, prepend=True)


@contextmanager
def head_reads(lm_head: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """
    In the one pass of an LM that is made while it is open, the head reads `change(hidden_states)`; both are
    `(rows, length, head_size)`.

    Raises:
        ValueError: the LM did not call its head once and for all positions.
    """
    # `torch.compile` of a head puts a module around it, and hooks belong to the one inside.
    lm_head = vars(lm_head)["_modules"].get("_orig_mod", lm_head)
    open_head(lm_head)
    calls: list[None] = []

    def counted(hidden_states: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return change(hidden_states)

    PASS.lm_head, PASS.change = lm_head, counted
    try:
        yield
    finally:
        PASS.lm_head = None
    if len(calls) != 1:
        raise ValueError(
            "`latent_injection` names a way in through the LM's head, which must be called once in a pass, and this LM called its "
            f"`get_output_embeddings` {len(calls)} times. Choose 'embedding'."
        )


__all__ = ["head_reads", "open_head"]
