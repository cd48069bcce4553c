"""What the commands measure of a conditional model on held-out pairs, with z and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import set_seed

from ..evaluation.evaluator import LikelihoodEvaluator
from ..evaluation.example_batch import ExampleBatch
from ..evaluation.generation import draw_from_prior, generate_from_prior, generate_texts
from ..evaluation.likelihood import likelihood_metrics
from ..evaluation.perplexity import count_tokens_and_words, perplexities
from ..latent_distribution import LatentDistribution
from ..modeling_dialog_cvae import DialogCVAEModel
from ..modeling_vae import VAEModel
from ..processing_dialog import DialogCVAEProcessor
from ..processing_vae import VAEProcessor


@dataclass
class HeldOutPairs:
    """
    Sources with their targets, and how a model is measured on them.

    Args:
        processor ([`VAEProcessor`]): the models'.
        pairs (`Dataset`): columns `source`, a text, and `targets`, a list of texts, the first of which is scored for likelihood.
        score (`Callable`): metrics of equally many outputs for each source, in order.
        lengths (`dict[str, int]`): the processor's `max_length` and `max_target_length`.
        num_outputs (`int`): outputs for each source.
        latent_temperature (`float`): factor on the spread of their z.
        latent_spread (`str`): how the z of one source lie to each other, as [`spread_noise`] takes it.
        max_new_tokens (`int`): the longest output.
        importance_samples (`int`): samples of z in the bounds.
        seed (`int`): of all noise.
        requests (`list`, *optional*): the sources as generation is given them, if q may know more of them.
        tokenize (`str`, *optional*): one of sacrebleu's tokenizers, whose words perplexities count.
    """

    processor: VAEProcessor
    pairs: Dataset
    score: Callable[[list[list[str]]], dict[str, float]]
    lengths: dict[str, int] = field(default_factory=dict)
    num_outputs: int = 10
    latent_temperature: float = 1.0
    latent_spread: str = "independent"
    max_new_tokens: int = 40
    importance_samples: int = 100
    seed: int = 0
    requests: Sequence[Any] | None = None
    tokenize: str | None = None
    _evaluator: LikelihoodEvaluator | None = field(default=None, init=False, repr=False)

    def measure(self, model: VAEModel) -> tuple[dict[str, Any], list[list[str]]]:
        """
        Bounds on the likelihood of the first targets, the perplexities that these are, `references_cut` (the share of targets that
        is longer than `max_target_length`), `unknown_tokens` (the share of tokens that are not in the vocabulary), and the score of
        greedy outputs that differ by z, drawn from the prior; and these outputs.
        """
        evaluator = self.evaluator(model)
        with evaluator.reading_once():
            metrics = likelihood_metrics(evaluator, self.importance_samples, self.seed)
            outputs = self.generate_spread(model, self.latent_spread)
        metrics.update(self._perplexities(evaluator, metrics))
        metrics["references_cut"] = evaluator.truncated_share()
        metrics["unknown_tokens"] = evaluator.unknown_tokens()
        return {**metrics, **self.score(outputs)}, outputs

    def generate_spread(self, model: VAEModel, latent_spread: str) -> list[list[str]]:
        """Greedy outputs for each source by z from the prior that lie to each other so."""
        drawn = (self.num_outputs, self.latent_temperature, self.seed, latent_spread)
        return generate_from_prior(self.evaluator(model), *drawn, max_new_tokens=self.max_new_tokens, do_sample=False)

    def measure_without_latent(self, model: VAEModel) -> dict[str, Any]:
        """
        The same metrics of a model trained with z = 0. It has one p(y|x), so every NLL is the same exact number. Its several
        outputs are beams; the metrics of samples in their place stand under `sampling`.
        """
        zeros = torch.zeros(len(self.pairs), 1, model.config.total_latent_size)
        evaluator = self.evaluator(model)
        nll = evaluator.nll(zeros).mean().item()
        names = ("iw_nll", "mc_nll", "reconstruction", "nll_posterior", "nll_prior", "nll_shuffled", "nll_zero")
        likelihood = {"elbo": -nll, "kl": 0.0, **dict.fromkeys(names, nll)}
        beams = self.score(self._generate(model, latents=zeros, num_beams=self.num_outputs, do_sample=False))
        set_seed(self.seed)
        sampling = self.score(self._generate(model, latents=zeros, do_sample=True, top_k=0))
        return {**likelihood, **self._perplexities(evaluator, likelihood), **beams, "sampling": sampling}

    def distributions(self, model: VAEModel) -> tuple[LatentDistribution, LatentDistribution]:
        """q(z|x,y) of each first target, and the prior of its source, one row each."""
        evaluator = self.evaluator(model)
        with evaluator.reading_once():
            return evaluator.posterior(), evaluator.prior()

    def evaluator(self, model: VAEModel) -> LikelihoodEvaluator:
        """
        The model with the first targets: the same one for the same model, so that what is measured inside its `reading_once` shares
        the encoded sources.
        """
        if self._evaluator is None or self._evaluator.model is not model:
            first_targets = [targets[0] for targets in self.pairs["targets"]]
            self._evaluator = LikelihoodEvaluator(model, self.processor, list(self.pairs["source"]), first_targets, **self.lengths)
        return self._evaluator

    def _perplexities(self, evaluator: LikelihoodEvaluator, metrics: dict[str, float]) -> dict[str, float]:
        counts = count_tokens_and_words(evaluator, self.tokenize)
        return {**counts, **perplexities(metrics, len(evaluator), **counts)}

    def _generate(self, model: VAEModel, **options) -> list[list[str]]:
        return generate_texts(
            model,
            self.processor,
            list(self.pairs["source"]) if self.requests is None else self.requests,
            num_return_sequences=self.num_outputs,
            latent_temperature=self.latent_temperature,
            latent_spread=self.latent_spread,
            seed=self.seed,
            max_length=self.lengths.get("max_length"),
            max_new_tokens=self.max_new_tokens,
            **options,
        )


@torch.no_grad()
def predict_acts(held_out: HeldOutPairs, model: DialogCVAEModel) -> list[list[str]]:
    """The likeliest act under p(a|x,z) for each of the z with which [`HeldOutPairs.measure`] generates, by name."""
    names = cast(DialogCVAEProcessor, held_out.processor).acts or []

    def predict(batch: ExampleBatch) -> list[list[str]]:
        drawn = (held_out.num_outputs, held_out.latent_temperature, held_out.seed, held_out.latent_spread)
        latents = draw_from_prior(model, batch.source, batch.indices, *drawn)
        context = cast(torch.Tensor, batch.source.vector).repeat_interleave(held_out.num_outputs, 0)
        likeliest = model.predict_acts(latents.flatten(0, 1), context).argmax(-1).view(len(batch.indices), -1)
        return [[names[act] for act in row] for row in likeliest.tolist()]

    return held_out.evaluator(model).map(predict, "predicting acts")
