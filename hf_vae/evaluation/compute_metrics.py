"""The exact ELBO of a corpus for the plain Trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate.state import GradientState
from transformers import EvalPrediction

from ..gaussian import DiagonalGaussian
from .information import information_metrics
from .perplexity import perplexity

# Share of the KL by which that of the collected q and p may differ from the collected one. Half precision stays far below it, and
# another column in the place of the KL does not.
KL_TOLERANCE = 0.1


@dataclass
class _Examples:
    """
    What is kept of evaluated examples, float32 on the CPU: `reconstruction` and `kl` of shape `(examples,)`; `latent_tables` of
    shape `(examples, latent_size)`, mean and log variance of q and then of p, as far as they were collected; and the number of
    target tokens, `None` if labels were not collected.
    """

    reconstruction: torch.Tensor
    kl: torch.Tensor
    latent_tables: list[torch.Tensor]
    tokens: int | None

    @classmethod
    def from_outputs(cls, outputs: Any, label_ids: Any) -> _Examples:
        """Of one batch, or of several that the Trainer has put together: arrays or tensors, alone or in a tuple."""
        given = [torch.as_tensor(output).cpu() for output in _as_tuple(outputs) if output is not None]
        per_example = [output.float() for output in given if output.ndim == 1]
        if len(per_example) < 2:
            shapes = [tuple(output.shape) for output in given]
            raise ValueError(
                f"The predictions have the shapes {shapes}; `reconstruction_loss` and `kl`, of shape (examples,), are not among "
                "them. Evaluate a model of hf_vae with its `labels`, without `latents` and `eval_use_gather_object`, and leave "
                "both out of `ignore_keys`."
            )
        tables = [output.float() for output in given if output.ndim == 2]
        # Beside the targets' tokens, a dialogue has one act.
        labels = next((each for each in _as_tuple(label_ids) if each is not None and each.ndim == 2), None)
        tokens = None if labels is None else int((torch.as_tensor(labels) != -100).sum())
        return cls(per_example[0], per_example[1], [each for each in tables if each.shape == tables[0].shape][:4], tokens)

    @classmethod
    def together(cls, batches: Sequence[_Examples]) -> _Examples:
        counts = [batch.tokens for batch in batches]
        return cls(
            torch.cat([batch.reconstruction for batch in batches]),
            torch.cat([batch.kl for batch in batches]),
            [torch.cat(parts) for parts in zip(*(batch.latent_tables for batch in batches), strict=True)],
            None if None in counts else sum(count for count in counts if count is not None),
        )

    def metrics(self) -> dict[str, float]:
        reconstruction, kl = (each.double().mean().item() for each in (self.reconstruction, self.kl))
        metrics = {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}
        if self.tokens is not None:
            # The Trainer puts its prefix before it, so that it takes the place of the mean over batches.
            metrics["loss"] = (reconstruction + kl) * len(self.kl) / self.tokens
            metrics["ppl_per_token_elbo"] = perplexity(metrics["loss"])
        if len(self.latent_tables) == 4:
            posterior, prior = DiagonalGaussian(*self.latent_tables[:2]), DiagonalGaussian(*self.latent_tables[2:])
            _check_kl(kl, cast(torch.Tensor, posterior.kl(prior)).double().sum(-1).mean().item())
            if len(posterior.mean) > 1:
                metrics |= _information(posterior, prior, kl)
        return metrics


def _as_tuple(values: Any) -> tuple:
    return values if isinstance(values, tuple) else (values,)


def _check_kl(collected: float, computed: float) -> None:
    """The outputs have no names here, so that one that is missing would let the next one stand in its place."""
    if math.isfinite(collected) and math.isfinite(computed) and abs(collected - computed) > KL_TOLERANCE * (1 + abs(computed)):
        raise ValueError(
            f"The predictions' second column of shape (examples,) has the mean {collected:.4g}, but the KL of the collected q and "
            f"p is {computed:.4g}: outputs are missing or in another order. Leave `reconstruction_loss`, `kl`, `posterior_mean`, "
            "`posterior_logvar`, `prior_mean` and `prior_logvar` out of `ignore_keys`."
        )


def _information(posterior: DiagonalGaussian, prior: DiagonalGaussian, kl: float) -> dict[str, float]:
    information = information_metrics(posterior, prior)
    information.pop("marginal_kl", None)
    if "kl_minus_mutual_information" in information:
        information["kl_minus_mutual_information"] = kl - information["mutual_information"]
    return information


class ElboMetrics:
    """
    What `Trainer(compute_metrics=elbo_metrics)` needs to report the ELBO of the whole evaluation set, and with it an exact
    `eval_loss`. z is sampled once for each example, by the Trainer's noise. Works with `batch_eval_metrics=True`,
    `eval_do_concat_batches=False` and every `include_for_metrics`; not with `eval_use_gather_object=True`, which tears outputs
    apart.

    Args:
        prediction (`EvalPrediction`): the model's outputs in their own order: `reconstruction_loss` and `kl` are the first two of
            shape `(examples,)`; mean and log variance of the posterior, then those of the prior, the first four of shape
            `(examples, latent_size)`, if they are collected. A list is one of batches.
        compute_result (`bool`, *optional*): with `batch_eval_metrics=True` the Trainer passes one batch at a time: with `False`,
            and the last one with `True`. Without it, `prediction` is the whole set.

    Returns:
        Means in nats per sentence: `elbo`, `reconstruction`, `kl`. If labels were collected, `loss`, which is the nats of all
        sentences divided by the number of their target tokens and replaces the Trainer's mean over batches as `eval_loss`; and its
        exponential `ppl_per_token_elbo`. If posterior and prior were collected, which only diagonal Gaussians are, and there are
        two examples, of [`information_metrics`]: `mutual_information` with its ceiling, `kl_minus_mutual_information` (by the KL
        just named; not if the prior depends on the example), `active_units_0.01` and its fraction. Nothing after a batch that is
        not the last.

    Raises:
        ValueError: outputs without `reconstruction_loss` and `kl`, or a KL that is not that of the collected posterior and prior.
    """

    __name__ = "elbo_metrics"

    def __init__(self) -> None:
        self._batches: list[_Examples] = []
        self._dataloader: Any = None

    def __call__(self, prediction: EvalPrediction, compute_result: bool | None = None) -> dict[str, float]:
        outputs, label_ids = prediction.predictions, prediction.label_ids
        if compute_result is not None:
            return self._add(_Examples.from_outputs(outputs, label_ids), compute_result)
        if isinstance(outputs, list):
            labels = label_ids if isinstance(label_ids, list) else [label_ids] * len(outputs)
            return _Examples.together([_Examples.from_outputs(*batch) for batch in zip(outputs, labels)]).metrics()
        return _Examples.from_outputs(outputs, label_ids).metrics()

    def _add(self, batch: _Examples, is_last: bool) -> dict[str, float]:
        # Batches of an evaluation that broke off must not be counted in the next one, which has another dataloader.
        dataloader = GradientState().active_dataloader
        if dataloader is not self._dataloader:
            self._batches, self._dataloader = [], dataloader
        self._batches.append(batch)
        if not is_last:
            return {}
        batches, self._batches, self._dataloader = self._batches, [], None
        return _Examples.together(batches).metrics()


elbo_metrics = ElboMetrics()
"""An [`ElboMetrics`], for `Trainer(compute_metrics=elbo_metrics)`."""
