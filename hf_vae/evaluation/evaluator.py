"""
A fixed set of examples, which a model encodes and decodes with any z.

Noise is drawn from a seed, the example's number and the sample's number, so no metric depends on the batches or on the number
of processes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from transformers import BatchEncoding

from ..calls import call_with
from ..checks import check_count
from ..encoders import longest_text, reserved_positions
from ..gaussian import DiagonalGaussian
from ..modeling_outputs import LatentOutput
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from ..source import EncodedSource
from ..unknown_words import unknown_share, warn_of_unknown_words
from .distributed import NOISE_BLOCK, copied_rows, gather_in_order, process_batches, sample_noise
from .importance_sampling import importance_weighted_nll, standard_error

logger = logging.getLogger(__name__)


@dataclass
class ExampleBatch:
    """
    Some of the examples, ready to be decoded with any z. What else the decoder is given is made once.

    Args:
        model ([`VAEModel`]): the model, in evaluation mode.
        indices (`list[int]`): the examples' places among all examples.
        inputs (`BatchEncoding`): what the processor made of them, on the model's device.
        samples_per_pass (`int`): samples of z of each example decoded at once.
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
    def conditioning(self) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return self.model.condition(self.source)

    def nll(self, latents: torch.Tensor) -> torch.Tensor:
        """
        -log p(y|x,z) in nats per sentence, differentiable in z: `(examples, samples, latent_size)` to `(examples, samples)`.
        """
        passes = []
        for part in latents.to(self.model.device).split(self.samples_per_pass, dim=1):
            count = part.shape[1]
            repeated = {name: tensor.repeat_interleave(count, 0) for name, tensor in self.conditioning.items()}
            labels = self.inputs["labels"].repeat_interleave(count, 0)
            passes.append(self.model.nll(part.flatten(0, 1), labels, **repeated).view(-1, count))
        return torch.cat(passes, dim=1)


class ImportanceWeighted(NamedTuple):
    """
    Of each example, `(examples,)`, nats per sentence: `importance_weighted_nll`, its `standard_error`, and -log p(y|x,z) of the
    first z.
    """

    nll: torch.Tensor
    error: torch.Tensor
    reconstruction: torch.Tensor


class LikelihoodEvaluator:
    """
    Decodes a fixed set of examples with any latents.

    Args:
        model ([`VAEModel`]): any model of the family; put into evaluation mode.
        processor ([`VAEProcessor`]): its processor.
        texts (`list`): what the processor takes as `text`.
        targets (`list[str]`): y, one for each.
        batch_size (`int`, defaults to 64): examples at once.
        samples_per_pass (`int`, *optional*): samples of z of each example decoded at once, more if a batch has fewer examples.
            Memory grows with `batch_size` · `samples_per_pass`, not with the number of samples. By default 1 on a CPU, whose
            caches do not hold more rows, and 8 elsewhere.
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
        **processor_options,
    ):
        if len(texts) != len(targets) or not texts:
            raise ValueError(f"{len(texts)} `texts` and {len(targets)} `targets`: they must be as many, and at least one.")
        if samples_per_pass is None:
            samples_per_pass = 1 if model.device.type == "cpu" else 8
        for name, size in (("batch_size", batch_size), ("samples_per_pass", samples_per_pass)):
            check_count(name, size)
        self.model = model.eval()
        self.processor = processor
        self.texts, self.targets = list(texts), list(targets)
        self.batch_size, self.samples_per_pass = batch_size, samples_per_pass
        self.processor_options = processor_options

    @cached_property
    def _tokens(self) -> dict[str, list[int]]:
        """Of each example what the encoder and the decoder read at once at most, and its prompt, in tokens."""
        features = self.processor(self.texts, self.targets, return_tensors=None, **self.processor_options)
        config = self.model.config
        reads_pairs = config.has_posterior and "posterior_input_ids" in features
        # A pair holds the source, if that is not read turn by turn.
        reads_source = not reads_pairs or getattr(config, "context_encoding", None) == "hierarchical"
        read = [name for name, is_read in (("posterior_input_ids", reads_pairs), ("input_ids", reads_source)) if is_read]
        encoded = zip(*(map(_longest, features[name]) for name in read))
        prompts = list(map(len, features.get("prompt_input_ids", [[]] * len(self))))
        return {
            "encoder": list(map(max, encoded)),
            "decoder": [length + len(labels) for length, labels in zip(prompts, features["labels"])],
            "prompt": prompts,
        }

    def check_lengths(self) -> None:
        """
        Raises a `ValueError` that names the examples which make more tokens than the model holds. What measures for long asks
        this first.
        """
        encoder, decoder = self.model.encoder, self.model.decoder
        longest = {"encoder": longest_text(encoder.config, reserved_positions(encoder)), "decoder": decoder.longest_text}
        for part, most in longest.items():
            over = [number for number, tokens in enumerate(self._tokens[part]) if most is not None and tokens > most]
            if over:
                shown = ", ".join(map(str, over[:10])) + (", …" if len(over) > 10 else "")
                raise ValueError(
                    f"{len(over)} of {len(self)} examples make more tokens than the {part} holds ({most}), up to "
                    f"{max(self._tokens[part])}: example(s) {shown}, counted from 0. Cut them with `max_length` and "
                    "`max_target_length`, and turns that are encoded one by one with the processor's `max_turn_length`."
                )

    def max_new_tokens_each(self, most: int) -> list[int]:
        """For each example the most new tokens that the decoder has positions for, `most` if it has them."""
        positions = self.model.decoder.longest_text
        return [most if positions is None else min(most, positions - length) for length in self._tokens["prompt"]]

    def __len__(self) -> int:
        return len(self.texts)

    def batches(self, description: str) -> Iterator[ExampleBatch]:
        """This process's share of the examples; `description` stands before the progress bar."""
        lengths = [len(str(text)) + len(target) for text, target in zip(self.texts, self.targets)]
        for indices in process_batches(lengths, self.batch_size, description):
            texts, targets = [self.texts[i] for i in indices], [self.targets[i] for i in indices]
            inputs = self.processor(texts, targets, **self.processor_options).to(self.model.device)
            # A last or only batch of few examples takes more samples of each, so that as many rows are decoded at once.
            yield ExampleBatch(self.model, indices, inputs, self.samples_per_pass * self.batch_size // len(indices))

    def examples(self) -> list[tuple[str, str]]:
        """What tells the examples apart: text and target, a dialogue as it is written out."""
        return [(str(text), target) for text, target in zip(self.texts, self.targets)]

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
        return self.processor(self.texts, self.targets, return_tensors=None, **self.processor_options)["labels"]

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
        (dialogues left out) in the encoder's; with a warning above 1 %.
        """
        texts = [text for text in self.texts if isinstance(text, str)]
        decoder, encoder = self.processor.tokenizer, self.processor.encoder_tokenizer
        read = [(decoder, self.targets), (encoder, self.targets), (encoder, texts)]
        return warn_of_unknown_words(*max(read, key=lambda each: unknown_share(*each)))

    def posterior(self) -> DiagonalGaussian:
        """q of every example, in order, on the CPU; each is encoded once. With `objective="gsnn"` q is the prior."""
        if not self.model.config.has_posterior:
            return self.prior()
        return self._distribution_of_each("encoding", lambda batch: call_with(self.model.encode, batch.inputs, source=batch.source))

    def prior(self) -> DiagonalGaussian:
        """p of every example, in order, on the CPU."""
        if self.model.config.prior_type == "standard":
            return DiagonalGaussian.standard(len(self), self.model.config.latent_size)
        return self._distribution_of_each("priors", lambda batch: self.model.prior(batch.source, len(batch.indices)))

    @torch.no_grad()
    def _distribution_of_each(self, description: str, distribution_of: Callable[[ExampleBatch], LatentOutput]) -> DiagonalGaussian:
        indices: list[int] = []
        rows: list[torch.Tensor] = []
        for batch in self.batches(description):
            latent_dist = distribution_of(batch).latent_dist
            indices += batch.indices
            rows += copied_rows(torch.stack([latent_dist.mean, latent_dist.logvar], dim=1).cpu())
        return DiagonalGaussian(*torch.stack(gather_in_order(indices, rows)).unbind(1))

    @torch.no_grad()
    def nll(self, latents: torch.Tensor) -> torch.Tensor:
        """
        -log p(y|x,z) in nats per sentence.

        Args:
            latents (`torch.Tensor` of shape `(examples, samples, latent_size)`).

        Returns:
            `torch.Tensor` of shape `(examples, samples)`.
        """
        indices: list[int] = []
        rows: list[torch.Tensor] = []
        for batch in self.batches("decoding"):
            indices += batch.indices
            rows += copied_rows(batch.nll(latents[batch.indices]).cpu())
        return torch.stack(gather_in_order(indices, rows))

    @torch.no_grad()
    def importance_weighted(
        self, posterior: DiagonalGaussian, prior: DiagonalGaussian, num_samples: int, seed: int = 0
    ) -> ImportanceWeighted:
        """
        The importance-weighted bound with z from q, in memory that does not grow with the number of samples or of examples.

        Args:
            posterior, prior ([`DiagonalGaussian`]): q and p of every example.
            num_samples (`int`): K.
            seed (`int`, defaults to 0): of the noise.

        Returns:
            [`ImportanceWeighted`].

        Raises:
            ValueError: `num_samples` below 1.
        """
        check_count("num_samples", num_samples)
        indices: list[int] = []
        rows: list[torch.Tensor] = []
        for batch in self.batches(f"{num_samples} samples of z"):
            q, p = posterior.select(batch.indices), prior.select(batch.indices)
            nlls, log_weights = [], []
            for start in range(0, num_samples, NOISE_BLOCK):
                samples = range(start, min(start + NOISE_BLOCK, num_samples))
                latents = q.from_noise(sample_noise(batch.indices, samples, q.mean.shape[-1], seed))
                nll = batch.nll(latents).cpu()
                nlls.append(nll)
                log_weights.append(p.log_prob(latents) - q.log_prob(latents) - nll)
            weights = torch.cat(log_weights, dim=1)
            bound, error = importance_weighted_nll(weights), standard_error(weights)
            indices += batch.indices
            rows += copied_rows(torch.stack([bound, error, nlls[0][:, 0]], dim=1))
        return ImportanceWeighted(*torch.stack(gather_in_order(indices, rows)).unbind(1))


def _longest(row: Sequence) -> int:
    """Tokens of a text, or of the longest of its turns."""
    return max(map(len, row)) if row and isinstance(row[0], list) else len(row)


def check_several(num_examples: int) -> None:
    """Raises a `ValueError` if there is no other example."""
    if num_examples < 2:
        raise ValueError(
            f"{num_examples} example: it cannot be given another one's z, and its z can tell nothing apart; evaluate at least two."
        )
