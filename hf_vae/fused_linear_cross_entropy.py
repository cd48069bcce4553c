"""
Cross-entropy fused with the LM head: the loss of a large vocabulary without all of its logits at once, as Liger Kernel has it.
A chunk of hidden states at a time passes the LM head, and the gradients are computed in the forward pass, while the chunk's logits
are there. It works for any causal LM of transformers without a patch: the LM runs with a head that returns fake logits, and if the
LM returns them untouched, nothing follows the head and the loss may be computed from the hidden states that the head was given.

Logits are `(tokens, vocabulary)`, and so are their log-softmax and their gradient: with 50,000 words they take most of the memory
of a small model's training step. The method is that of Hsu et al. 2024 (Liger Kernel, section 3.2), in plain PyTorch.
`torch.checkpoint` over the same chunks costs another matrix product, and the chunked `linear_cross_entropy` of torch 2.13 is many
times slower on a CPU (docs/measured/benchmarks.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

# The number of logits from which on fusing pays; in float32 they take 16 MiB.
MIN_LOGITS = 2**22
MIN_CHUNK_ROWS = 64


def sequence_nll(logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
    """-log p(y|·) of each row, summed over its tokens in float32: `(rows, target, vocab)`, `(rows, target)` to `(rows,)`."""
    # Flattened, because with the vocabulary in the middle dimension this takes three times as long on a CPU.
    nll = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    return nll.view(labels.shape).sum(-1)


def fused_linear_cross_entropy(lm_head: nn.Linear, hidden_states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    [`sequence_nll`] of the logits `lm_head(hidden_states)`, of which only a chunk is held at once.

    Args:
        lm_head (`nn.Linear`): the LM's output layer.
        hidden_states (`torch.Tensor`): the head's input, `(rows, target, hidden)`.
        labels (`torch.Tensor`): the target tokens, `(rows, target)`. Padding, -100, does not pass the head.

    Returns:
        The nats of each row in float32, `(rows,)`. The matrix product follows autocast.
    """
    observed = labels != -100
    device = hidden_states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else lm_head.weight.dtype
    inputs = [None if each is None else each.to(dtype) for each in (hidden_states[observed], lm_head.weight, lm_head.bias)]
    if not torch.is_grad_enabled():
        # An autograd function is asked for a parameter's gradient even if none is recorded.
        inputs = [None if each is None else each.detach() for each in inputs]
    with torch.autocast(device, enabled=False):
        nll = FusedLinearCrossEntropy.apply(*inputs, labels[observed])
    return torch.zeros(labels.shape, device=labels.device).masked_scatter(observed, nll).sum(-1)


class FusedLinearCrossEntropy(torch.autograd.Function):
    """-log softmax(`states` @ `weight`ᵀ + `bias`) at `targets`, in float32: `(tokens, hidden)` and `(tokens,)` to `(tokens,)`."""

    @staticmethod
    def forward(ctx, states, weight, bias, targets):
        ones = torch.ones(len(targets), device=states.device)
        nll, *gradients = _nll_and_gradients(states, weight, bias, targets, ones, ctx.needs_input_grad[:3])
        ctx.save_for_backward(states, weight, bias, targets, *gradients)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        *inputs, of_states, of_weight, of_bias = ctx.saved_tensors
        if not len(upstream):
            # Every label is padding.
            return *(torch.zeros_like(each) if wanted else None for each, wanted in zip(inputs[:3], ctx.needs_input_grad)), None
        if not bool((upstream == upstream[0]).all()):
            # The tokens have different weights, which no objective of ours gives them: the gradients are computed once more.
            _, of_states, of_weight, of_bias = _nll_and_gradients(*inputs, upstream, ctx.needs_input_grad[:3])
            return of_states, of_weight, of_bias, None
        factor = upstream[0]
        return *(None if each is None else each * factor.to(each.dtype) for each in (of_states, of_weight, of_bias)), None


def chunk_rows(weight: torch.Tensor) -> int:
    """
    Rows of hidden states in a chunk: as many as have `MIN_LOGITS` logits, or as the layer has inputs if that is more. Each chunk
    reads the layer's weights and writes their gradient, so that fewer rows would spend their time there; more would need more
    memory than the weights do.
    """
    return max(MIN_CHUNK_ROWS, MIN_LOGITS // len(weight), weight.shape[1])


def _nll_and_gradients(states, weight, bias, targets, factors, wanted) -> list[torch.Tensor | None]:
    """
    The nats of each token, and the gradients of their sum, weighted by `factors`, with respect to `states`, `weight` and `bias`.
    `wanted` says which of the three gradients are computed.
    """
    accumulated = torch.promote_types(weight.dtype, torch.float32)
    of_states = torch.empty_like(states) if wanted[0] else None
    # Made by the first chunk: a short batch has no other, and the layer's weights are the largest of all.
    of_weight = None
    of_bias = torch.zeros_like(bias, dtype=accumulated) if wanted[2] else None
    nll = torch.empty(len(targets), device=states.device)
    rows = chunk_rows(weight)
    for start in range(0, len(targets), rows):
        chunk = slice(start, start + rows)
        words = targets[chunk].unsqueeze(1)
        logits = nn.functional.linear(states[chunk], weight, bias).float()
        normaliser = logits.logsumexp(-1, keepdim=True)
        nll[chunk] = (normaliser - logits.gather(1, words)).squeeze(1)
        if not any(wanted):
            continue
        # softmax - one-hot, in the logits' own memory.
        gradient = logits.sub_(normaliser).exp_()
        gradient.scatter_add_(1, words, gradient.new_full(words.shape, -1.0))
        gradient = gradient.mul_(factors[chunk].unsqueeze(1)).to(states.dtype)
        if of_states is not None:
            torch.mm(gradient, weight, out=of_states[chunk])
        if wanted[1]:
            if of_weight is None:
                of_weight = gradient.T @ states[chunk]
            elif of_weight.dtype == states.dtype == accumulated:
                of_weight.addmm_(gradient.T, states[chunk])
            else:
                of_weight = of_weight.to(accumulated).add_(gradient.T @ states[chunk])
        if of_bias is not None:
            of_bias += gradient.sum(0)
    return [nll, of_states, None if of_weight is None else of_weight.to(weight), None if of_bias is None else of_bias.to(bias)]


def fusable_lm_head(lm: PreTrainedModel, labels: torch.Tensor) -> nn.Linear | None:
    """The LM's head if it is a plain linear layer and `labels` have so many logits that fusing pays, else `None`."""
    lm_head = lm.get_output_embeddings()
    # Only the module itself knows how to multiply with adapters, quantised weights and sharded weights.
    plain = type(lm_head) is nn.Linear and type(lm_head.weight) in (nn.Parameter, torch.Tensor) and lm_head.weight.dim() == 2
    if torch.compiler.is_compiling() or not plain or labels.numel() * len(lm_head.weight) < MIN_LOGITS:
        return None
    return lm_head


class HeadCall:
    """
    A call of an LM head under [`with_fake_logits`].

    Attributes:
        hidden_states (`torch.Tensor`, *optional*): the head's input; `None` before the call.
        fake_logits (`torch.Tensor`, *optional*): the numbers that the head returned in place of logits; `None` before the call.
    """

    hidden_states: torch.Tensor | None = None
    fake_logits: torch.Tensor | None = None

    def is_untouched(self, logits: torch.Tensor, labels: torch.Tensor) -> bool:
        """
        Whether the LM returned the fake logits as they were, one row for each of `labels`: then nothing follows its head. Gemma-2,
        Cohere and Granite cap or scale their logits, and return other numbers.
        """
        if self.hidden_states is None or self.fake_logits is None or self.hidden_states.shape[:2] != labels.shape:
            return False
        return logits.shape == self.fake_logits.shape and torch.equal(logits.to(self.fake_logits), self.fake_logits)


# The call of this thread. Every thread that passes the head runs its hooks, and they are meant for one of them.
CURRENT_CALL: ContextVar[HeadCall | None] = ContextVar("CURRENT_CALL", default=None)


@contextmanager
def with_fake_logits(lm_head: nn.Linear) -> Iterator[HeadCall]:
    """
    While it is open, the head multiplies a single row and returns fake logits, and its input is kept. For other threads the head
    stays as it was.
    """
    call: Any = HeadCall()

    def before(module, inputs):
        if CURRENT_CALL.get() is not call:
            return None
        call.hidden_states = inputs[0]
        return (inputs[0].detach()[:1, :1],)

    def after(module, inputs, logits):
        if CURRENT_CALL.get() is not call:
            return None
        numbers = torch.linspace(-100, 100, logits.shape[-1], dtype=torch.float32, device=logits.device)
        call.fake_logits = numbers.to(logits.dtype).expand_as(logits)
        return call.fake_logits

    handles = [lm_head.register_forward_pre_hook(before), lm_head.register_forward_hook(after)]
    outer = CURRENT_CALL.set(call)
    try:
        yield call
    finally:
        CURRENT_CALL.reset(outer)
        for handle in handles:
            handle.remove()


__all__ = ["fusable_lm_head", "fused_linear_cross_entropy", "sequence_nll", "with_fake_logits"]
