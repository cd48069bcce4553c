"""A batch of sources to their output rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..calls import call_with
from ..evaluation.distributed import sample_generators, spread_samples
from ..evaluation.generation import decode_tokens
from ..generation_options import end_tokens, option
from ..latent_distribution import LatentDistribution
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from ..rows import repeat_rows, select_rows
from ..source import EncodedSource
from .sampling import SampleByRow
from .sources import shown_source


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, as [`SampleByRow`] takes it."""

    temperature: float
    top_k: int
    top_p: float


@dataclass
class BatchWriter:
    """
    Writes texts for sources. What is random in a row follows from the seed and the row's number alone.

    Args:
        model ([`VAEModel`]): in evaluation mode.
        processor ([`VAEProcessor`]): its processor.
        num (`int`): texts for each source, each with its z.
        seed (`int`): of all noise.
        latent_source (`str`): which distribution z is drawn from, as `generate` names it.
        latent_temperature (`float`): factor on its spread.
        latent_spread (`str`): how the z of one source lie to each other.
        max_length (`int`, *optional*): truncates the sources.
        sampling ([`Sampling`], *optional*): by default nothing is drawn besides z.
        options (`dict`): of `generate`.
    """

    model: VAEModel
    processor: VAEProcessor
    num: int
    seed: int
    latent_source: str
    latent_temperature: float
    latent_spread: str
    max_length: int | None = None
    sampling: Sampling | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def write(self, sources: Sequence[Any], numbers: Sequence[int]) -> list[dict[str, Any]]:
        """
        The output rows.

        Args:
            sources (`list`): what the processor takes as `text`.
            numbers (`list[int]`): their places among all sources.

        Returns:
            `list[dict]`: rows of `source`, `outputs`, `seed` and `nats`, which is -log p(y|x,z) of each output given its z. An EOS
            that was generated is a part of y.
        """
        inputs = self.processor(list(sources), max_length=self.max_length).to(self.model.device)
        source = call_with(self.model.read_source, inputs, with_prior=self.latent_source == "prior")
        latents = self._draw(inputs, source, numbers).flatten(0, 1)
        options = dict(self.options)
        if self.sampling is not None:
            generators = sample_generators(numbers, self.num, self.seed)
            options["logits_processor"] = [SampleByRow(generators, **vars(self.sampling))]
        sequences = self.model.generate(
            **inputs, source=source, latents=latents, num_return_sequences=self.num, return_dict_in_generate=False,
            **{**options, "do_sample": False},
        )  # fmt: skip
        # The first is the start token.
        tokens = sequences[:, 1:]
        texts = [decode_tokens(self.processor, row) for row in tokens]
        conditioning = call_with(self.model.condition, inputs, source=source)
        nats = self._nll(latents, self.labels(tokens), conditioning).tolist()
        # JSON has no infinity.
        nats = [round(each, 4) if math.isfinite(each) else None for each in nats]
        return [
            {"source": shown_source(each), "outputs": texts[first : first + self.num], "seed": self.seed,
             "nats": nats[first : first + self.num]}
            for each, first in zip(sources, range(0, len(texts), self.num))
        ]  # fmt: skip

    def _draw(self, inputs: Any, source: EncodedSource, numbers: Sequence[int]) -> torch.Tensor:
        """z of each source, `(sources, num, latent_size)`."""
        distribution = self._distribution(inputs, source, len(numbers))
        noise = spread_samples(numbers, self.num, distribution.noise_size, self.seed, self.latent_spread)
        return distribution.from_noise(noise.to(self.model.device), self.latent_temperature)

    def _distribution(self, inputs: Any, source: EncodedSource, rows: int) -> LatentDistribution:
        if self.latent_source == "posterior":
            return call_with(self.model.encode, inputs, source=source).latent_dist
        return self.model.prior_named(self.latent_source)(source, rows, self.model.device)

    def labels(self, tokens: torch.Tensor) -> torch.Tensor:
        """Generated tokens as targets: each text to its EOS, or to where the longest length has cut it, and -100 behind."""
        named = self.options.get("eos_token_id")
        ends = end_tokens(option("eos_token_id", named, self.model.generation_config))
        ended = torch.isin(tokens, torch.tensor(ends, device=tokens.device, dtype=tokens.dtype)).long()
        return tokens.masked_fill(ended.cumsum(-1) - ended > 0, -100)

    def _nll(self, latents: torch.Tensor, labels: Any, conditioning: dict[str, Any]) -> torch.Tensor:
        """-log p(y|x,z), `(rows,)`. Where no act is asked for, a dialogue model with acts sums over all of them."""
        conditioning = repeat_rows(self.model.prefill(conditioning), self.num)
        nll = self.model.nll(latents, labels, **conditioning)
        acts = conditioning.get("act_labels")
        if acts is not None and bool((unknown := acts == -100).any()):
            rest = select_rows({name: each for name, each in conditioning.items() if name != "act_labels"}, unknown)
            nll = nll.masked_scatter(unknown, self.model.nll(latents[unknown], labels[unknown], **rest))
        return nll
