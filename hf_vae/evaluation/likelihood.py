"""
Bounds on log p(y|x) in nats per sentence, and what becomes of them when z is exchanged.

Noise is drawn from a seed and the example's number, so no figure depends on the batches or on the number of processes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence

import torch
from transformers import BatchEncoding

from ..gaussian import DiagonalGaussian
from ..modeling_vae import VAEModel, sentence_nats
from ..processing_vae import VAEProcessor
from .examples import example_noise, gather_in_order, own_batches


class LikelihoodEvaluator:
    """
    Decodes a fixed set of examples with any latents.

    Args:
        model ([`VAEModel`]): any model of the family; put into evaluation mode.
        processor ([`VAEProcessor`]): its processor.
        texts (`list[str]`): what the processor takes as `text`.
        targets (`list[str]`): y, one for each.
        batch_size (`int`, defaults to 64): examples at once.
        chunk (`int`, defaults to 4): samples of z of each example decoded at once; memory grows with `batch_size` · `chunk`,
            not with the number of samples.
        processor_options: passed to the processor, such as `max_length`.

    Raises:
        ValueError: texts and targets differ in number, or there are none.
    """

    def __init__(
        self,
        model: VAEModel,
        processor: VAEProcessor,
        texts: Sequence[str],
        targets: Sequence[str],
        batch_size: int = 64,
        chunk: int = 4,
        **processor_options,
    ):
        if len(texts) != len(targets) or not texts:
            raise ValueError(f"{len(texts)} `texts` and {len(targets)} `targets`: they must be as many, and at least one.")
        self.model = model.eval()
        self.processor = processor
        self.texts, self.targets = list(texts), list(targets)
        self.batch_size, self.chunk = batch_size, chunk
        self.processor_options = processor_options

    def __len__(self) -> int:
        return len(self.texts)

    def _batches(self, description: str) -> Iterator[tuple[list[int], BatchEncoding]]:
        """This process's share of the examples: their numbers and their tensors."""
        lengths = [len(text) + len(target) for text, target in zip(self.texts, self.targets)]
        for numbers in own_batches(lengths, self.batch_size, description):
            texts, targets = [self.texts[i] for i in numbers], [self.targets[i] for i in numbers]
            yield numbers, self.processor(texts, targets, **self.processor_options).to(self.model.device)

    @torch.no_grad()
    def posterior(self) -> DiagonalGaussian:
        """q of every example, in order; each is encoded once."""
        numbers: list[int] = []
        rows: list[torch.Tensor] = []
        for group, batch in self._batches("encoding"):
            latent_dist = _call(self.model.encode, batch).latent_dist
            numbers += group
            rows += torch.stack([latent_dist.mean, latent_dist.logvar], dim=1).cpu().unbind()
        return DiagonalGaussian(*torch.stack(gather_in_order(numbers, rows)).unbind(1))

    @torch.no_grad()
    def nll(self, latents: torch.Tensor) -> torch.Tensor:
        """
        -log p(y|x,z) in nats per sentence.

        Args:
            latents (`torch.Tensor` of shape `(examples, samples, latent_size)`).

        Returns:
            `torch.Tensor` of shape `(examples, samples)`.
        """
        numbers: list[int] = []
        rows: list[torch.Tensor] = []
        for group, batch in self._batches("decoding"):
            conditioning = _call(self.model.condition, batch)
            chunks = []
            for part in latents[group].to(self.model.device).split(self.chunk, dim=1):
                count = part.shape[1]
                repeated = {name: tensor.repeat_interleave(count, 0) for name, tensor in conditioning.items()}
                labels = batch["labels"].repeat_interleave(count, 0)
                logits = self.model.decode(part.flatten(0, 1), labels, **repeated)
                chunks.append(sentence_nats(logits, labels).view(-1, count))
            numbers += group
            rows += torch.cat(chunks, dim=1).cpu().unbind()
        return torch.stack(gather_in_order(numbers, rows))


def _call(method, batch: BatchEncoding):
    """`method` with those tensors of the batch that it names, as the Trainer calls `forward`."""
    return method(**{name: batch[name] for name in inspect.signature(method).parameters if name in batch})


def importance_weighted_nll(log_weights: torch.Tensor) -> torch.Tensor:
    """
    -log 1/K Σ_k w_k, an upper bound on -log p(y|x) that falls with K towards it (Burda et al. 2016, equation 8; with x, Sohn et
    al. 2015, equation 7).

    Args:
        log_weights (`torch.Tensor` of shape `(examples, K)`): log p(y|x,z_k) + log p(z_k|x) - log q(z_k|x,y), z_k from q.

    Returns:
        `torch.Tensor` of shape `(examples,)`, nats per sentence.
    """
    return math.log(log_weights.shape[1]) - torch.logsumexp(log_weights, dim=1)


def likelihood_metrics(evaluator: LikelihoodEvaluator, num_samples: int = 100, seed: int = 0) -> dict[str, float]:
    """
    Bounds on the log-likelihood, and the ablations that show whether z matters.

    Args:
        evaluator ([`LikelihoodEvaluator`]): the examples.
        num_samples (`int`, defaults to 100): K of the importance-weighted bound.
        seed (`int`, defaults to 0): of all noise.

    Returns:
        Means over examples, nats per sentence: `reconstruction` (-log p(y|x,z), z from q, one sample), `kl` (closed form, to the
        prior), `elbo` (minus their sum), `iw_nll`; `nll_posterior` (the same as `reconstruction`), `nll_prior` (z from the prior),
        `nll_shuffled` (z from the posterior of the next example), `nll_zero` (z = 0).

    Raises:
        ValueError: `num_samples` below 1, or a single example, which has no other to take a z from.
    """
    if num_samples < 1:
        raise ValueError(f"`num_samples` is {num_samples}; the importance-weighted bound needs at least one.")
    if len(evaluator) < 2:
        raise ValueError("One example cannot be given another one's z; evaluate at least two.")
    posterior = evaluator.posterior()
    prior = evaluator.model.prior(len(evaluator)).latent_dist
    prior = DiagonalGaussian(prior.mean.cpu(), prior.logvar.cpu())
    size = (len(evaluator), num_samples, evaluator.model.config.latent_size)
    noise = example_noise(*size, seed)
    mean, std = posterior.mean.unsqueeze(1), posterior.std.unsqueeze(1)
    samples = mean + std * noise
    nll = evaluator.nll(samples)
    log_q = DiagonalGaussian(mean, posterior.logvar.unsqueeze(1)).log_prob(samples).sum(-1)
    log_p = DiagonalGaussian(prior.mean.unsqueeze(1), prior.logvar.unsqueeze(1)).log_prob(samples).sum(-1)
    kl = posterior.kl(prior).sum(-1)
    first = samples[:, :1]
    # Another stream than the posterior's noise: a prior sample must know nothing of y.
    from_prior = prior.mean.unsqueeze(1) + prior.std.unsqueeze(1) * example_noise(size[0], 1, size[2], seed + 1)
    exchanged = evaluator.nll(torch.cat([from_prior, first.roll(-1, dims=0), torch.zeros_like(first)], dim=1))
    reconstruction = nll[:, 0]
    return {
        "elbo": -(reconstruction + kl).mean().item(),
        "kl": kl.mean().item(),
        "iw_nll": importance_weighted_nll(log_p - log_q - nll).mean().item(),
        "reconstruction": reconstruction.mean().item(),
        "nll_posterior": reconstruction.mean().item(),
        "nll_prior": exchanged[:, 0].mean().item(),
        "nll_shuffled": exchanged[:, 1].mean().item(),
        "nll_zero": exchanged[:, 2].mean().item(),
    }
