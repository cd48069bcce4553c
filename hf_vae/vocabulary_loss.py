"""
-log p of target tokens under a language model with a large vocabulary, without the logits of all of them at once.

Logits are `(tokens, vocabulary)`, and so are their log-softmax and their gradient: with 50,000 words they are most of what a
training step of a small model keeps. Here a few rows at a time pass the output layer, and while their logits are there, their
gradients are computed too (as in Hsu et al. 2024, Liger Kernel, section 3.2, which has it for GPUs). `torch.checkpoint` over the
same chunks costs another matrix product, and torch 2.13's chunked `linear_cross_entropy` is many times slower on a CPU; see
docs/benchmarks.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

# Logits from which on it pays: in float32 16 MiB.
CHUNK = 2**22
LEAST_ROWS = 64


def sentence_nats(logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
    """-log p(y|·) of each row, summed over its tokens in float32: `(rows, target, vocab)`, `(rows, target)` to `(rows,)`."""
    # One row a token: with the vocabulary in the middle dimension this takes three times as long on a CPU.
    nats = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    return nats.view(labels.shape).sum(-1)


class LinearNats(torch.autograd.Function):
    """-log softmax(`states` @ `weight`ᵀ + `bias`) at `targets`, in float32: `(tokens, hidden)` and `(tokens,)` to `(tokens,)`."""

    @staticmethod
    def forward(ctx, states, weight, bias, targets):
        ctx.needs_gradients = any(ctx.needs_input_grad)
        ones = torch.ones(len(targets), device=states.device)
        wanted = ctx.needs_input_grad[:3] if ctx.needs_gradients else (False, False, False)
        nats, *gradients = _in_chunks(states, weight, bias, targets, ones, wanted)
        ctx.save_for_backward(states, weight, bias, targets, *gradients)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        *inputs, of_states, of_weight, of_bias = ctx.saved_tensors
        if not bool((upstream == upstream[0]).all()):
            # Tokens that count differently, which no objective here has: once more, each with its own factor.
            _, of_states, of_weight, of_bias = _in_chunks(*inputs, upstream, ctx.needs_input_grad[:3])
            return of_states, of_weight, of_bias, None
        factor = upstream[0]
        return *(None if each is None else each * factor.to(each.dtype) for each in (of_states, of_weight, of_bias)), None


def rows_at_once(weight: torch.Tensor) -> int:
    """
    So many rows as make `CHUNK` logits, or as the layer has inputs: each chunk reads its weights and writes their gradient, so that
    fewer rows would spend their time there, and more would need more memory than the weights do.
    """
    return max(LEAST_ROWS, CHUNK // len(weight), weight.shape[1])


def _in_chunks(states, weight, bias, targets, factors, wanted) -> list[torch.Tensor | None]:
    """Nats of each token, and the gradients of their sum, each times its factor, for those of the first three that are `wanted`."""
    accumulated = torch.promote_types(weight.dtype, torch.float32)
    of_states = torch.empty_like(states) if wanted[0] else None
    of_weight = torch.zeros_like(weight, dtype=accumulated) if wanted[1] else None
    of_bias = torch.zeros_like(bias, dtype=accumulated) if wanted[2] else None
    nats = torch.empty(len(targets), device=states.device)
    rows = rows_at_once(weight)
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        words = targets[part].unsqueeze(1)
        logits = nn.functional.linear(states[part], weight, bias).float()
        normaliser = logits.logsumexp(-1, keepdim=True)
        nats[part] = (normaliser - logits.gather(1, words)).squeeze(1)
        if not any(wanted):
            continue
        # softmax - one-hot, where the logits were.
        gradient = logits.sub_(normaliser).exp_()
        gradient.scatter_add_(1, words, gradient.new_full(words.shape, -1.0))
        gradient = gradient.mul_(factors[part].unsqueeze(1)).to(states.dtype)
        if of_states is not None:
            torch.mm(gradient, weight, out=of_states[part])
        if of_weight is not None:
            if accumulated == states.dtype:
                of_weight.addmm_(gradient.T, states[part])
            else:
                of_weight += gradient.T @ states[part]
        if of_bias is not None:
            of_bias += gradient.sum(0)
    return [nats, of_states, None if of_weight is None else of_weight.to(weight), None if of_bias is None else of_bias.to(bias)]


def linear_nats(layer: nn.Linear, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    -log p of each row's tokens under the logits `layer(states)`, summed: `(rows, target, hidden)` and `(rows, target)` to
    `(rows,)`, nats in float32. Padding, -100 in `labels`, does not pass the layer. Follows autocast.
    """
    observed = labels != -100
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else layer.weight.dtype
    inputs = (None if each is None else each.to(dtype) for each in (states[observed], layer.weight, layer.bias))
    with torch.autocast(device, enabled=False):
        nats = LinearNats.apply(*inputs, labels[observed])
    return torch.zeros(labels.shape, device=labels.device).masked_scatter(observed, nats).sum(-1)


def output_layer(lm: PreTrainedModel, labels: torch.Tensor) -> nn.Linear | None:
    """The layer that makes `lm`'s logits, where it is a plain one and `labels` have so many logits that it pays to go without."""
    layer = lm.get_output_embeddings()
    # Of adapters, quantised and sharded weights only the module itself knows how to multiply with them.
    plain = type(layer) is nn.Linear and type(layer.weight) in (nn.Parameter, torch.Tensor) and layer.weight.dim() == 2
    if torch.compiler.is_compiling() or not plain or labels.numel() * len(layer.weight) < CHUNK:
        return None
    return layer


class HeadInput:
    """
    What `without_logits` has caught.

    Args:
        states (`torch.Tensor`): what was handed to the output layer.
        untouched (`Callable`): whether the LM handed the layer's output on as it was, and does nothing to logits.
    """

    states: torch.Tensor | None = None
    told: torch.Tensor | None = None

    def are_all(self, logits: torch.Tensor, labels: torch.Tensor) -> bool:
        """
        Whether `layer(states)` is what the LM would have returned for `labels`. Some scale or bend what the layer gives them
        (Gemma-2, Cohere, Granite), and then return something else than what they were told here.
        """
        if self.states is None or self.told is None or self.states.shape[:2] != labels.shape:
            return False
        return logits.shape == self.told.shape and torch.equal(logits.to(self.told), self.told)


# What the thread that asks is catching: a layer's hooks are run by all threads that pass the layer, and are meant for one of them.
CATCHING: ContextVar[HeadInput | None] = ContextVar("CATCHING", default=None)


@contextmanager
def without_logits(layer: nn.Linear) -> Iterator[HeadInput]:
    """
    While it is open, `layer` multiplies a single row and returns known numbers in its place; what it was given is caught. To other
    threads the layer stays what it was.
    """
    caught: Any = HeadInput()

    def before(module, inputs):
        if CATCHING.get() is not caught:
            return None
        caught.states = inputs[0]
        return (inputs[0].detach()[:1, :1],)

    def after(module, inputs, logits):
        if CATCHING.get() is not caught:
            return None
        numbers = torch.linspace(-100, 100, logits.shape[-1], dtype=torch.float32, device=logits.device)
        caught.told = numbers.to(logits.dtype).expand_as(logits)
        return caught.told

    handles = [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    outer = CATCHING.set(caught)
    try:
        yield caught
    finally:
        CATCHING.reset(outer)
        for handle in handles:
            handle.remove()
