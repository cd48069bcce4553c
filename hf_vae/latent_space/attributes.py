"""p(a|z), fitted to labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..checks import check_count, check_number
from ..evaluation.collapse_report import CollapseReport, collapse_report
from ..evaluation.evaluator import LikelihoodEvaluator
from ..evaluation.information import information_metrics
from ..evaluation.likelihood import likelihood_metrics
from ..latent_attribute import LatentAttribute
from ..latent_distribution import LatentDistribution
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor, as_items, as_list
from .codes import TextsOrLatents, as_latents, check_sources, encode_texts, evaluation_mode

logger = logging.get_logger(__name__)

# Parts that the labels are cut into, each of which is predicted by what was fitted to the others.
FOLDS = 5
# Whether z is used is asked of so many texts at most.
REPORT_TEXTS = 100


def fit_attribute(
    model: VAEModel,
    processor: VAEProcessor,
    texts: TextsOrLatents,
    labels: Sequence[Any],
    sources: Any = None,
    hidden_size: int = 0,
    regularization: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
) -> LatentAttribute:
    r"""
    p(a|z) by scikit-learn's logistic regression or least squares with an L2 penalty, or by its network with one hidden layer of
    tanh: the classifiers of LatentOps (Liu et al. 2022), which a few hundred labels suffice for. The model does not
    change: `model.set_attribute(name, attribute)` keeps what is returned.

    It is fitted to posterior means, where labels are clearest.

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        texts (`list[str]` or `torch.Tensor` of shape `(texts, latent_size)`): labelled texts, or latents, to which it is fitted as
            they are.
        labels (`list`): a of each text: `str`, `int` or `bool` for labels, `float` for numbers.
        sources (*optional*): x of each text, as the processor takes it, for a conditional model.
        hidden_size (`int`, defaults to 0): width of the hidden layer; 0 is linear.
        regularization (`float`, defaults to 1.0): weight of half the weights' squared norm beside the sum of the texts'
            -log p(a|z); numbers are brought to a variance of 1 for it.
        seed (`int`, defaults to 0): of the folds and of the network's start.
        batch_size (`int`, defaults to 64): texts at once.

    Returns:
        [`LatentAttribute`] on the CPU. Its `score` is of texts that it was not fitted to, by cross-validation: the
        accuracy, or of numbers R². There is a warning if z does not tell the labels apart, if there are fewer texts than
        z has dimensions, or if the decoder ignores z, so that control cannot work.

    Raises:
        ValueError: labels of one kind only, or of several types, or not as many as texts; or texts that [`encode_texts`] refuses.
    """
    check_count("hidden_size", hidden_size, least=0)
    check_number("regularization", regularization, above=0)
    if isinstance(texts, torch.Tensor):
        means = as_latents(model, processor, "texts", texts)
        values, names = _read_labels(labels, len(means))
    else:
        texts = as_list("texts", texts)
        values, names = _read_labels(labels, len(texts))
        posterior = encode_texts(model, processor, texts, sources, batch_size)
        means = posterior.mode()
        report = _collapse(model, processor, texts[:REPORT_TEXTS], sources, posterior, batch_size)
        if report is not None and report.ignored:
            logger.warning(f"Control in z cannot work with this model. {report}")
    if len(means) < model.config.total_latent_size:
        logger.warning(
            f"{len(means)} labels for {model.config.total_latent_size} dimensions of z: they can be told apart by chance alone. "
            "Look at `attribute.score`, or label more texts."
        )
    fitted = _fit(means, values, names, hidden_size, regularization, seed)
    guesses = _cross_validated(means, values, names, hidden_size, regularization, seed)
    if names is None:
        chance, score = 0.0, 1 - ((guesses - values) ** 2).mean() / values.var()
        fitted.std.fill_(max(((guesses - values) ** 2).mean() ** 0.5, 1e-6))
        fitted.lowest.fill_(values.min())
        fitted.highest.fill_(values.max())
        found = f"R² is {score:.2f}"
    else:
        chance, score = np.bincount(values).max() / len(values), (guesses == values).mean()
        margin = fitted.margin(means, torch.from_numpy(values), strength=0.0)
        for number in range(len(names)):
            fitted.clarity[number] = margin[torch.from_numpy(values == number)].mean()
        found = f"accuracy {score:.2f}, and the commonest label alone has {chance:.2f}"
    fitted.score.fill_(score)
    # Two standard errors of a share.
    if score <= chance + 2 * (chance * (1 - chance) / len(values)) ** 0.5:
        logger.warning(f"z hardly says what `labels` says (cross-validated: {found}): control by it will not do much.")
    return fitted


def _read_labels(labels: Sequence[Any], count: int) -> tuple[np.ndarray, list[Any] | None]:
    """Numbers and no names, or the number of each label and the labels' names in order."""
    given = [each.item() if hasattr(each, "item") else each for each in as_items("labels", labels, "a list with one for each text")]
    if len(given) != count:
        raise ValueError(f"{len(given)} `labels` for {count} `texts`: give one for each.")
    kinds = {type(each) for each in given}
    if len(kinds) > 1 or not kinds <= {str, int, bool, float}:
        raise ValueError(
            f"`labels` are of type {', '.join(sorted(kind.__name__ for kind in kinds))}; give all as `str`, `int` or `bool`, or "
            "numbers as `float`."
        )
    if kinds == {float}:
        numbers = np.array(given)
        if not np.isfinite(numbers).all() or numbers.std() == 0 or len(numbers) < 3:
            raise ValueError(
                f"`labels` are {len(numbers)} numbers from {numbers.min():g} to {numbers.max():g}; give three or more."
            )
        return numbers, None
    names = sorted(set(given))
    values = np.array([names.index(each) for each in given])
    counts = np.bincount(values)
    if len(names) < 2 or counts.min() < 2:
        found = ", ".join(f"{name!r} {number} time(s)" for name, number in zip(names[:10], counts.tolist()))
        raise ValueError(f"`labels` holds {found}: at least two labels are needed, and two texts of each.")
    return values, names


def _collapse(
    model: VAEModel, processor: VAEProcessor, texts: list[str], sources: Any, posterior: LatentDistribution, batch_size: int
) -> CollapseReport | None:
    """Whether the decoder uses z, of some texts; `None` if that cannot be asked."""
    if not model.config.has_posterior or len(set(texts)) < 2:
        return None
    given = check_sources(model, processor, texts, None if sources is None else list(sources)[: len(texts)]) or texts
    with evaluation_mode(model):
        evaluator = LikelihoodEvaluator(model, processor, given, texts, batch_size)
        some, prior = posterior.select(range(len(texts))), evaluator.prior()
        bounds = likelihood_metrics(evaluator, num_samples=1, posterior=some, prior=prior)
        return collapse_report({**bounds, **information_metrics(some, prior, examples=evaluator.examples())})


def _fit(
    means: torch.Tensor, values: np.ndarray, names: list[Any] | None, hidden_size: int, regularization: float, seed: int
) -> LatentAttribute:
    """p(a|z) as scikit-learn fits it to `means` `(texts, latent_size)` and their labels."""
    # Here, because importing scikit-learn takes long.
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    inputs, targets = means.double().numpy(), values
    centre, scale = (values.mean(), values.std()) if names is None else (0.0, 1.0)
    if names is None:
        targets = (targets - centre) / scale
    fitted = LatentAttribute(means.shape[1], names, hidden_size)
    if hidden_size:
        network = MLPRegressor if names is None else MLPClassifier
        options = {"activation": "tanh", "solver": "lbfgs", "alpha": regularization, "random_state": seed, "max_iter": 1000}
        mlp = network(hidden_layer_sizes=(hidden_size,), **options).fit(inputs, targets)
        fitted.hidden_weight.copy_(torch.from_numpy(mlp.coefs_[0].T))
        fitted.hidden_bias.copy_(torch.from_numpy(mlp.intercepts_[0]))
        weight, bias = mlp.coefs_[1].T, mlp.intercepts_[1]
    else:
        # Ridge's penalty is the whole squared norm beside the whole square: the same ratio.
        linear = Ridge(regularization) if names is None else LogisticRegression(C=1 / regularization, max_iter=1000)
        linear.fit(inputs, targets)
        weight, bias = np.atleast_2d(linear.coef_), np.atleast_1d(linear.intercept_)
    if len(weight) < len(fitted.weight):
        # Of two labels there is one log-odds.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    fitted.weight.copy_(torch.from_numpy(weight * scale))
    fitted.bias.copy_(torch.from_numpy(bias * scale + centre))
    return fitted


def _cross_validated(
    means: torch.Tensor, values: np.ndarray, names: list[Any] | None, hidden_size: int, regularization: float, seed: int
) -> np.ndarray:
    """What each text's label, or number, is guessed to be by a fit to others."""
    from sklearn.model_selection import KFold, StratifiedKFold

    if names is None:
        folds = KFold(min(FOLDS, len(means)), shuffle=True, random_state=seed)
    else:
        folds = StratifiedKFold(min(FOLDS, np.bincount(values).min()), shuffle=True, random_state=seed)
    guesses = np.zeros(len(values))
    for kept, left_out in folds.split(means.numpy(), values):
        outputs = _fit(means[kept], values[kept], names, hidden_size, regularization, seed)(means[left_out])
        guesses[left_out] = (outputs.squeeze(-1) if names is None else outputs.argmax(-1)).numpy()
    return guesses


__all__ = ["fit_attribute"]
