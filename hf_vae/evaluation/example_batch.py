"""Some examples of an evaluation, ready to be decoded with any z."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import BatchEncoding

from ..calls import call_with
from ..modeling_vae import VAEModel
from ..rows import repeat_rows
from ..source import EncodedSource
from ..source_cache import SourceCache


@dataclass
class ExampleBatch:
    """
    Some of the examples, ready to be decoded with any z. x is read when it is first asked for, and once, by the encoder and by the
    decoder.

    Args:
        model ([`VAEModel`]): the model, in evaluation mode.
        indices (`list[int]`): the examples' places among all examples.
        inputs (`BatchEncoding`): what the processor made of them, on the model's device.
        samples_per_pass (`int`): samples of z of each example decoded at once, unless [`~VAEModel.latents_per_pass`] allows more.
    """

    model: VAEModel
    indices: list[int]
    inputs: BatchEncoding
    samples_per_pass: int

    @cached_property
    def source(self) -> EncodedSource:
        with torch.no_grad():
            return call_with(self.model.read_source, self.inputs)

    @cached_property
    def conditioning(self) -> dict[str, Any]:
        """What the decoder is given besides z, with what it can read of x before it is given z."""
        with torch.no_grad():
            return self.model.prefill(self.model.condition(self.source))

    @property
    def num_bytes(self) -> int:
        """Memory that the batch takes: its tokens, and what has been made of x."""
        held: list[Mapping[str, torch.Tensor | SourceCache]] = [self.inputs]
        if "source" in vars(self):
            held.append(self.source.tensors())
        if "conditioning" in vars(self):
            held.append(self.conditioning)
        # The conditioning has some of the source's tensors.
        return sum({id(part): part.nbytes for each in held for part in each.values()}.values())

    def nll(self, latents: torch.Tensor) -> torch.Tensor:
        """
        -log p(y|x,z) in nats per sentence, differentiable in z: `(examples, samples, latent_size)` to `(examples, samples)`.
        """
        labels = self.inputs["labels"]
        given = {"labels": labels, **self.conditioning}
        passes, done, repeated = [], 0, {1: given}
        latents = latents.to(self.model.device)
        while done < latents.shape[1]:
            # Not before the first pass, which shows whether several z may share one.
            sharing = self.model.latents_per_pass(labels) if done else 1
            part = latents[:, done : done + (sharing if sharing > 1 else self.samples_per_pass)]
            count = 1 if sharing > 1 else part.shape[1]
            if count not in repeated:
                # All passes but the last are of as many samples and go on from the same rows, which nothing changes.
                repeated = {1: given, count: repeat_rows(given, count)}
            passes.append(self.model.nll(part.flatten(0, 1), **repeated[count]).view(part.shape[:2]))
            done += part.shape[1]
        return torch.cat(passes, dim=1)
