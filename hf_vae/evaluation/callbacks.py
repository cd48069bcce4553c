"""The collapse report while the plain Trainer trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from ..objective import kl_divergence
from ..processing_vae import VAEProcessor
from ..training.calling_handler import calling_handler
from ..training.loss_parts import find_model
from ..training.sharding import refuse_sharding
from .collapse_report import CollapseReport, collapse_report
from .distributed import example_noise
from .evaluator import LikelihoodEvaluator, check_several
from .information import information_metrics

logger = logging.getLogger(__name__)


class CollapseReportCallback(TrainerCallback):
    """
    Measures at every evaluation whether z is used, on the same texts each time, and logs, beside what the Trainer measures and
    with the prefix `eval_`: `kl`, `mutual_information` with its ceiling, `kl_minus_mutual_information`, `marginal_kl`, active
    units, `nll_posterior`, `nll_shuffled`, `nll_prior`, `shuffled_gap` and `prior_gap`, in nats. (With a prior network
    `prior_depends_on_source` stands in the place of `kl_minus_mutual_information` and `marginal_kl`.) What the evaluation itself
    has measured, of all its examples, stays as it is. Where z is ignored it warns, with what was found and what to try.

    It draws its noise from its own seed, so training is the same with it and without. A call costs one pass of q's encoder over
    its texts, one of the encoder that reads x, if there is one, and three of the decoder.

    Args:
        processor ([`VAEProcessor`]): the model's.
        texts (`list[str]`): validation texts, some hundred: I(x; z) cannot exceed the logarithm of their number.
        targets (`list[str]`, *optional*): for conditional models, y of each. By default the texts themselves.
        batch_size (`int`, defaults to 64): texts at once.
        seed (`int`, defaults to 0): of the noise.
        processor_options: passed to the processor, such as `max_length`.

    Attributes:
        report ([`CollapseReport`]): the latest; `None` before the first evaluation.

    Raises:
        ValueError: fewer than two texts, targets in another number, or, as training begins, a model of another kind or one with
            `objective="gsnn"`, which has no q to judge.
    """

    def __init__(
        self,
        processor: VAEProcessor,
        texts: Sequence[str],
        targets: Sequence[str] | None = None,
        batch_size: int = 64,
        seed: int = 0,
        **processor_options,
    ):
        check_several(len(texts))
        self.texts, self.targets = list(texts), list(texts if targets is None else targets)
        if len(self.texts) != len(self.targets):
            raise ValueError(f"{len(self.texts)} `texts` and {len(self.targets)} `targets`: they must be as many.")
        self.processor, self.seed = processor, seed
        self.options = {"batch_size": batch_size, **processor_options}
        self.report: CollapseReport | None = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if not find_model(model).config.has_posterior:
            raise ValueError("`objective='gsnn'` has no q that could be ignored: leave CollapseReportCallback out.")
        refuse_sharding("CollapseReportCallback (`--collapse_report_samples`)")

    def on_evaluate(self, args, state, control, model=None, metrics=None, **kwargs):
        vae = find_model(model)
        training = model.training
        figures = self._measure(vae)
        model.train(training)
        self.report = collapse_report(figures)
        logs = {f"eval_{name}": value for name, value in figures.items()}
        logs.update((f"eval_{name}", self.report.figures[name]) for name in ("shuffled_gap", "prior_gap"))
        if metrics is not None:
            logs = {name: value for name, value in logs.items() if name not in metrics}
            metrics.update(logs)
        if state.log_history:
            state.log_history[-1].update(logs)
        # The Trainer has written its log already, so the reporters get these figures as one of their own. A callback is not told
        # who they are; it asks its caller.
        handler = calling_handler()
        if handler is not None:
            handler.on_log(args, state, control, logs)
        if self.report.ignored and state.is_world_process_zero:
            logger.warning("Step %d: %s", state.global_step, self.report)

    def _measure(self, model: Any) -> dict[str, float]:
        evaluator = LikelihoodEvaluator(model, self.processor, self.texts, self.targets, **self.options)
        with evaluator.reading_once():
            posterior, prior = evaluator.posterior(), evaluator.prior()
            count = len(evaluator)
            latents = posterior.from_noise(example_noise(count, 1, posterior.noise_size, self.seed))[:, 0]
            # As in `likelihood_metrics`: another stream than the posterior's.
            from_prior = prior.from_noise(example_noise(count, 1, prior.noise_size, self.seed + 1))[:, 0]
            exchanged = torch.stack([latents, latents[evaluator.shuffled_partners()], from_prior], dim=1)
            names = ("nll_posterior", "nll_shuffled", "nll_prior")
            nlls = dict(zip(names, evaluator.nll(exchanged).mean(0).tolist()))
        kl = kl_divergence(posterior, prior, latents).sum(-1).mean().item()
        return {"kl": kl, **information_metrics(posterior, prior, seed=self.seed, examples=evaluator.examples()), **nlls}
