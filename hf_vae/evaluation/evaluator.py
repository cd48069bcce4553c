"""
A fixed set of examples, which a model encodes once and decodes with any z.

Noise is drawn from a seed, the example's number and the sample's number, so no metric depends on the batches or on the number
of processes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from transformers import BatchEncoding

from ..calls import call_with
from ..checks import check_count
from ..encoders import longest_text, reserved_positions
from ..flow_prior import FlowPrior
from ..latent_distribution import LatentDistribution, concatenate
from ..modeling_vae import VAEModel
from ..prior import GaussianMixturePrior, Prior
from ..processing_vae import VAEProcessor
from ..unknown_words import unknown_share, warn_of_unknown_words
from .distributed import NOISE_BLOCK, Result, copied_rows, map_examples, sample_noise
from .example_batch import ExampleBatch
from .importance_sampling import importance_weighted_nll, standard_error

logger = logging.getLogger(__name__)


class ImportanceWeighted(NamedTuple):
    """
    Of each example, `(examples,)`, nats per sentence: `importance_weighted_nll`, its `standard_error`, -log p(y|x,z) of the first
    z, and KL(q ‖ p) as the mean of log q(z) - log p(z) over all z.
    """

    nll: torch.Tensor
    error: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor


class Tokens(NamedTuple):
    """
    Of each example the most tokens that the encoder and the decoder read at once, those of its prompt, and the target's tokens
    themselves.
    """

    encoder: list[int]
    decoder: list[int]
    prompt: list[int]
    labels: list[list[int]]


class LikelihoodEvaluator:
    """
    Encodes a fixed set of examples, and decodes them with any latents. Inside [`~LikelihoodEvaluator.reading_once`] all passes
    share what has been made of x.

    Args:
        model ([`VAEModel`]): any model of the family; put into evaluation mode.
        processor ([`VAEProcessor`]): its processor.
        texts (`list`): what the processor takes as `text`; of a model that reads given vectors, those, such as a tensor of them.
        targets (`list[str]`): y, one for each.
        batch_size (`int`, defaults to 64): examples at once.
        samples_per_pass (`int`, *optional*): samples of z of each example decoded at once, more if a batch has fewer examples.
            Memory grows with `batch_size` · `samples_per_pass`, not with the number of samples. By default 1 on a CPU, whose
            caches do not hold more rows, and 8 elsewhere. If no layer of the decoder reads z, as many share a pass as
            [`~VAEModel.latents_per_pass`] says.
        source_memory (`int`, defaults to 1 GiB): bytes on the model's device for tokens and encoded sources, which one pass
            leaves to the next; batches that do not fit are tokenised and encoded anew in each pass.
        processor_options: passed to the processor, such as `max_length`.

    Raises:
        ValueError: texts and targets differ in number, or there are none; a size below 1.
    """

    def __init__(
        self,
        model: VAEModel,
        processor: VAEProcessor,
        texts: Sequence,
        targets: Sequence[str],
        batch_size: int = 64,
        samples_per_pass: int | None = None,
        source_memory: int = 2**30,
        **processor_options,
    ):
        if len(texts) != len(targets) or not len(texts):
            raise ValueError(f"{len(texts)} `texts` and {len(targets)} `targets`: they must be as many, and at least one.")
        if samples_per_pass is None:
            samples_per_pass = 1 if model.device.type == "cpu" else 8
        for name, size in (("batch_size", batch_size), ("samples_per_pass", samples_per_pass)):
            check_count(name, size)
        check_count("source_memory", source_memory, least=0)
        self.model = model.eval()
        self.processor = processor
        self.texts, self.targets = list(texts), list(targets)
        self.batch_size, self.samples_per_pass = batch_size, samples_per_pass
        self.source_memory = source_memory
        self.processor_options = processor_options
        self._is_reading_once = False
        self._batches: dict[int, ExampleBatch] = {}
        self._batches_bytes = 0
        self._distributions: dict[str, LatentDistribution] = {}

    def _features(self, texts: list, targets: list[str], **options) -> BatchEncoding:
        name = "text" if self.processor.embedding_size is None else "embeddings"
        inputs: dict[str, Any] = {name: texts, "text_target": targets}
        return self.processor(**inputs, **options, **self.processor_options)

    @cached_property
    def _tokens(self) -> Tokens:
        features = self._features(self.texts, self.targets, return_tensors=None)
        # A pair holds the source, unless that is read turn by turn.
        read = ["input_ids", "posterior_input_ids"] if self.model.config.has_posterior else ["input_ids"]
        encoded = zip(*(map(_longest, features[name]) for name in read if name in features))
        prompt, labels = list(map(len, features.get("prompt_input_ids", [[]] * len(self)))), features["labels"]
        decoder = [length + len(row) for length, row in zip(prompt, labels)]
        return Tokens(encoder=list(map(max, encoded)), decoder=decoder, prompt=prompt, labels=labels)

    def check_lengths(self) -> None:
        """
        Raises a `ValueError` that names the examples which make more tokens than the model holds. What measures for long asks
        this first.
        """
        longest = {}
        if self.model.config.embedding_size is None:
            encoder = self.model.encoder
            longest["encoder"] = longest_text(encoder.config, reserved_positions(encoder))
        longest["decoder"] = self.model.decoder.longest_text
        for part, most in longest.items():
            counts = getattr(self._tokens, part)
            over = [index for index, tokens in enumerate(counts) if most is not None and tokens > most]
            if over:
                shown = ", ".join(map(str, over[:10])) + (", …" if len(over) > 10 else "")
                raise ValueError(
                    f"{len(over)} of {len(self)} examples make more tokens than the {part} holds ({most}), up to "
                    f"{max(counts)}: example(s) {shown}, counted from 0. Cut them with `max_length` and "
                    "`max_target_length`, and turns that are encoded one by one with the processor's `max_turn_length`."
                )

    def max_new_tokens_each(self, most: int) -> list[int]:
        """For each example the most new tokens that the decoder has positions for, `most` if it has them."""
        positions = self.model.decoder.longest_text
        return [most if positions is None else min(most, positions - length) for length in self._tokens.prompt]

    def __len__(self) -> int:
        return len(self.texts)

    @contextmanager
    def reading_once(self) -> Iterator[None]:
        """
        Inside, every batch is tokenised and its x encoded once, within `source_memory`, and q and the model's own prior are
        computed once, however many passes follow: the weights must not change meanwhile. Outside, each pass reads anew. It may be
        nested.
        """
        if self._is_reading_once:
            yield
            return
        self._is_reading_once = True
        try:
            yield
        finally:
            self._is_reading_once, self._batches_bytes = False, 0
            self._batches.clear()
            self._distributions.clear()

    def map(self, measure: Callable[[ExampleBatch], Sequence[Result]], description: str) -> list[Result]:
        """
        What `measure` gives for the examples, in their order, from all processes: it is called with the batches of this one, and
        gives one value for each example. `description` stands before the progress bar.
        """

        def measure_batch(indices: list[int]) -> Sequence[Result]:
            batch = self._take(indices)
            values = measure(batch)
            self._keep(batch)
            return values

        return map_examples(measure_batch, self._lengths, self.batch_size, description)

    @cached_property
    def _lengths(self) -> list[int]:
        # All vectors are equally long.
        texts = self.texts if self.processor.embedding_size is None else [""] * len(self)
        return [len(str(text)) + len(target) for text, target in zip(texts, self.targets)]

    def _take(self, indices: list[int]) -> ExampleBatch:
        """The batch that was kept, or one that is tokenised now."""
        batch = self._batches.pop(indices[0], None)
        if batch is not None:
            self._batches_bytes -= batch.num_bytes
            return batch
        texts, targets = [self.texts[i] for i in indices], [self.targets[i] for i in indices]
        inputs = self._features(texts, targets).to(self.model.device)
        # A last or only batch of few examples takes more samples of each, so that as many rows are decoded at once.
        return ExampleBatch(self.model, indices, inputs, self.samples_per_pass * self.batch_size // len(indices))

    def _keep(self, batch: ExampleBatch) -> None:
        if self._is_reading_once and self._batches_bytes + batch.num_bytes <= self.source_memory:
            self._batches[batch.indices[0]] = batch
            self._batches_bytes += batch.num_bytes

    def examples(self) -> list[tuple[str, str]]:
        """What tells the examples apart: text and target, a dialogue and a vector as they are written out."""
        texts = self.texts
        if self.processor.embedding_size is not None:
            # Whole: what is printed of a long tensor or array leaves most of it out.
            texts = self.processor.batch(texts)[0]
            texts = [vector.tolist() for vector in texts]
        return [(str(text), target) for text, target in zip(texts, self.targets)]

    def shuffled_partners(self) -> list[int]:
        """For each example the number of the next one, round in a circle, whose target is another; the next one if none is."""
        count, targets = len(self), self.targets
        partners = [(i + 1) % count for i in range(count)]
        if len(set(targets)) == 1:
            return partners
        # Backwards, so that what follows a run of equal targets is passed on through it; twice, for a run that goes round the end.
        for i in [*reversed(range(count))] * 2:
            if targets[partners[i]] == targets[i]:
                partners[i] = partners[(i + 1) % count]
        return partners

    def label_ids(self) -> list[list[int]]:
        """Every target's tokens as the model is scored on them: EOS is one, the start token is none."""
        return self._tokens.labels

    def truncated_share(self) -> float:
        """Share of the targets that `max_target_length` cuts; a warning counts them, for their likelihood is the cut text's."""
        whole = self.processor.label_ids(self.targets, {"truncation": False})
        cut = sum(len(scored) < len(all_of_it) for scored, all_of_it in zip(self.label_ids(), whole))
        if cut:
            logger.warning("%d of %d targets are cut to the longest length; their likelihood is the cut text's.", cut, len(self))
        return cut / len(self)

    def unknown_tokens(self) -> float:
        """
        The largest share of unknown tokens among the targets in the decoder's vocabulary, the same in the encoder's, and the texts
        (dialogues left out) in the encoder's, if there is one; with a warning above 1 %.
        """
        texts = [text for text in self.texts if isinstance(text, str)]
        decoder, encoder = self.processor.tokenizer, self.processor.encoder_tokenizer
        read = [(decoder, self.targets)]
        if encoder is not None:
            read += [(encoder, self.targets), (encoder, texts)]
        return warn_of_unknown_words(*max(read, key=lambda each: unknown_share(*each)))

    def posterior(self) -> LatentDistribution:
        """q of every example, in order, on the CPU. With `objective="gsnn"` q is the prior."""
        if not self.model.config.has_posterior:
            return self.prior()
        return self._distribution(
            "posterior", lambda batch: call_with(self.model.encode, batch.inputs, source=batch.source).latent_dist
        )

    def prior(self, latent_source: str | Prior | GaussianMixturePrior | FlowPrior = "prior") -> LatentDistribution:
        """
        p of every example, in order, on the CPU.

        Args:
            latent_source (`str` or [`Prior`], defaults to `"prior"`): as `generate` takes it, the model's own `"prior"` or its
                `"fitted_prior"`; or a prior that the model does not have, such as one that was just fitted.

        Raises:
            ValueError: a model without a fitted prior, or a prior over another number of dimensions.
        """
        prior = self.model.prior_named(latent_source) if isinstance(latent_source, str) else latent_source
        device = self.model.device
        if prior.reads_source:
            name = latent_source if isinstance(latent_source, str) else None
            return self._distribution(name, lambda batch: prior(batch.source, len(batch.indices), device))
        with torch.no_grad():
            one = prior(None, 1, device).to("cpu")
        size, expected = one.mode().shape[-1], self.model.config.total_latent_size
        if size != expected:
            raise ValueError(f"`latent_source` is over {size} dimensions; the model's z has {expected}.")
        # One row stands for all of them, and takes no more memory.
        return one.map(lambda parameter: parameter.expand(len(self), *parameter.shape[1:]))

    @torch.no_grad()
    def _distribution(self, name: str | None, read: Callable[[ExampleBatch], LatentDistribution]) -> LatentDistribution:
        """The distributions that `read` gives for the batches, of all examples; inside `reading_once` kept by their name."""
        if name in self._distributions:
            return self._distributions[name]

        def rows(batch: ExampleBatch) -> list[LatentDistribution]:
            latent_dist = read(batch).to("cpu")
            return [latent_dist.select([row]) for row in range(len(latent_dist))]

        distribution = concatenate(self.map(rows, name or "prior"))
        if name is not None and self._is_reading_once:
            self._distributions[name] = distribution
        return distribution

    @torch.no_grad()
    def nll(self, latents: torch.Tensor) -> torch.Tensor:
        """
        -log p(y|x,z) in nats per sentence.

        Args:
            latents (`torch.Tensor` of shape `(examples, samples, latent_size)`).

        Returns:
            `torch.Tensor` of shape `(examples, samples)`.
        """
        return torch.stack(self.map(lambda batch: copied_rows(batch.nll(latents[batch.indices]).cpu()), "decoding"))

    @torch.no_grad()
    def importance_weighted(
        self, posterior: LatentDistribution, prior: LatentDistribution, num_samples: int, seed: int = 0
    ) -> ImportanceWeighted:
        """
        The importance-weighted bound with z from q, in memory that does not grow with the number of samples or of examples.

        Args:
            posterior, prior ([`LatentDistribution`]): q and p of every example, of any family.
            num_samples (`int`): K.
            seed (`int`, defaults to 0): of the noise.

        Returns:
            [`ImportanceWeighted`].

        Raises:
            ValueError: `num_samples` below 1.
        """
        check_count("num_samples", num_samples)

        def bound(batch: ExampleBatch) -> list[torch.Tensor]:
            q, p = posterior.select(batch.indices), prior.select(batch.indices)
            nlls, ratios = [], []
            for start in range(0, num_samples, NOISE_BLOCK):
                samples = range(start, min(start + NOISE_BLOCK, num_samples))
                latents = q.from_noise(sample_noise(batch.indices, samples, q.noise_size, seed))
                nlls.append(batch.nll(latents).cpu())
                ratios.append(p.log_prob(latents) - q.log_prob(latents))
            nll, ratio = torch.cat(nlls, dim=1), torch.cat(ratios, dim=1)
            weights = ratio - nll
            columns = (importance_weighted_nll(weights), standard_error(weights), nll[:, 0], -ratio.mean(1))
            return copied_rows(torch.stack(columns, dim=1))

        return ImportanceWeighted(*torch.stack(self.map(bound, f"{num_samples} samples of z")).unbind(1))


def _longest(row: Sequence) -> int:
    """Tokens of a text, or of the longest of its turns."""
    return max(map(len, row)) if row and isinstance(row[0], list) else len(row)


def check_several(num_examples: int) -> None:
    """Raises a `ValueError` if there is no other example."""
    if num_examples < 2:
        raise ValueError(
            f"{num_examples} example: it cannot be given another one's z, and its z can tell nothing apart; evaluate at least two."
        )
