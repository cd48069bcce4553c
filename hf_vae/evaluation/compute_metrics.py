"""The exact ELBO of a corpus for the plain Trainer."""

from __future__ import annotations

import numpy as np
import torch
from transformers import EvalPrediction

from ..gaussian import DiagonalGaussian
from .information import information_metrics
from .perplexity import perplexity


def elbo_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    What `Trainer(compute_metrics=elbo_metrics)` needs to report the corpus' own ELBO, where `eval_loss` is a mean of batches'
    means. z is sampled once for each example, by the Trainer's noise.

    Args:
        prediction (`EvalPrediction`): the model's outputs in their own order: `reconstruction_loss` and `kl` are the first two of
            shape `(examples,)`; mean and log variance of the posterior, then those of the prior, the first four of shape
            `(examples, latent_size)`, where they are collected.

    Returns:
        Means in nats per sentence: `elbo`, `reconstruction`, `kl`; `ppl_per_token_elbo`, where labels were collected; and of
        [`information_metrics`], where the posterior was and there are two examples: `mutual_information` with its ceiling,
        `kl_minus_mutual_information` (by the KL just named; not where the prior depends on the example), `active_units_0.01` and
        its fraction.

    Raises:
        ValueError: outputs without `reconstruction_loss` and `kl`.
    """
    predictions = prediction.predictions
    outputs = [output for output in (predictions if isinstance(predictions, tuple) else [predictions]) if output is not None]
    per_example = [output for output in outputs if output.ndim == 1]
    if len(per_example) < 2:
        shapes = [output.shape for output in outputs]
        raise ValueError(
            f"The predictions have the shapes {shapes}; `reconstruction_loss` and `kl`, of shape (examples,), are not among them. "
            "Evaluate a model of hf_vae with its `labels`, without `latents`, and leave both out of `ignore_keys`."
        )
    reconstruction, kl = (float(output.astype(np.float64).mean()) for output in per_example[:2])
    metrics = {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}
    given = prediction.label_ids if isinstance(prediction.label_ids, tuple) else (prediction.label_ids,)
    # Beside the targets' tokens, a dialogue has one act.
    labels = next((each for each in given if each is not None and each.ndim == 2), None)
    if labels is not None:
        metrics["ppl_per_token_elbo"] = perplexity(-metrics["elbo"] * len(labels) / int(np.sum(labels != -100)))
    tables = [torch.from_numpy(output) for output in outputs if output.ndim == 2]
    of_z = [table for table in tables if table.shape == tables[0].shape]
    if len(of_z) > 1 and len(of_z[0]) > 1:
        prior = DiagonalGaussian(*of_z[2:4]) if len(of_z) > 3 else None
        information = information_metrics(DiagonalGaussian(*of_z[:2]), prior)
        information.pop("marginal_kl", None)
        if "kl_minus_mutual_information" in information:
            information["kl_minus_mutual_information"] = kl - information["mutual_information"]
        metrics.update(information)
    return metrics
