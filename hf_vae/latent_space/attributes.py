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
    num_draws: int = 8,
    seed: int = 0,
    batch_size: int = 64,
) -> LatentAttribute:
    r"""
    p(a|z) by scikit-learn's logistic regression or least squares with an L2 penalty, or by its network with one hidden layer of
    tanh: the classifiers of LatentOps (Liu et al. 2022, section 3.2), which a few hundred labels suffice for. The model does not
    change: `model.set_attribute(name, attribute)` keeps what is returned.

    It is fitted to draws from each text's posterior and not to its mean alone. So p(a|z) says how sure a is for a z that is drawn,
    as z in `generate` is.

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
        num_draws (`int`, defaults to 8): z of each text.
        seed (`int`, defaults to 0): of the draws, the folds and the network's start.
        batch_size (`int`, defaults to 64): texts at once.

    Returns:
        [`LatentAttribute`] on the CPU. Its `score` is of texts that it was not fitted to, by cross-validation with their posterior
        means: the accuracy, or of numbers R². There is a warning if z does not tell the labels apart, if there are fewer texts than
        z has dimensions, or if the decoder ignores z, so that control cannot work.

    Raises:
        ValueError: labels of one kind only, or of several types, or not as many as texts; or texts that [`encode_texts`] refuses.
    """
    check_count("hidden_size", hidden_size, least=0)
    check_number("regularization", regularization, above=0)
    check_count("num_draws", num_draws)
    means: torch.Tensor
    if isinstance(texts, torch.Tensor):
        means = as_latents(model, processor, "texts", texts)
        values, names = _read_labels(labels, len(means))
        draws = means.unsqueeze(1)
    else:
        texts = as_list("texts", texts)
        values, names = _read_labels(labels, len(texts))
        posterior = encode_texts(model, processor, texts, sources, batch_size)
        means = posterior.mode()
        draws = posterior.draw(num_draws, generator=torch.Generator().manual_seed(seed))
        report = _collapse(model, processor, texts[:REPORT_TEXTS], sources, posterior, batch_size)
        if report is not None and report.ignored:
            logger.warning(f"Control in z cannot work with this model. {report}")
    if len(means) < model.config.latent_size:
        logger.warning(
            f"{len(means)} labels for {model.config.latent_size} dimensions of z: they can be told apart by chance alone. Look at "
            "`attribute.score`, or label more texts."
        )
    fit = _Fit(values, names, hidden_size, regularization, seed)
    attribute = fit(draws, range(len(means)))
    score, errors = fit.cross_validated(draws, means)
    attribute.score.fill_(score)
    with torch.no_grad():
        if names is None:
            attribute.std.fill_(max(errors, 1e-6))
            attribute.lowest.fill_(float(values.min()))
            attribute.highest.fill_(float(values.max()))
        else:
            target = torch.from_numpy(values)
            margin = attribute.margin(means, target, strength=0.0)
            for number in range(len(names)):
                attribute.clarity[number] = margin[target == number].mean()
    chance = 0.0 if names is None else np.bincount(values).max() / len(values)
    # Two standard errors of a share.
    if score < chance + 2 * (chance * (1 - chance) / len(values)) ** 0.5 or (names is None and score < 0.05):
        what = f"R² is {score:.2f}" if names is None else f"accuracy {score:.2f}, and the commonest label alone has {chance:.2f}"
        logger.warning(f"z hardly says what `labels` says (cross-validated: {what}): control by it will not do much.")
    return attribute


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


class _Fit:
    """Fits to the draws of some of the texts."""

    def __init__(self, values: np.ndarray, names: list[Any] | None, hidden_size: int, regularization: float, seed: int):
        self.values, self.names = values, names
        self.hidden_size, self.regularization, self.seed = hidden_size, regularization, seed

    def __call__(self, draws: torch.Tensor, rows: Sequence[int]) -> LatentAttribute:
        """Of `(texts, draws, latent_size)`, the attribute that is fitted to these rows."""
        # Here, because importing scikit-learn takes long.
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        count = draws.shape[1]
        values = self.values[rows]
        inputs, targets = draws[rows].flatten(0, 1).double().numpy(), np.repeat(values, count)
        centre, scale = (values.mean(), values.std()) if self.names is None else (0.0, 1.0)
        if self.names is None:
            targets = (targets - centre) / scale
        attribute = LatentAttribute(draws.shape[2], self.names, self.hidden_size)
        if self.hidden_size:
            network = MLPClassifier if self.names is not None else MLPRegressor
            # Each text counts once, however many draws stand for it.
            fitted = network(
                (self.hidden_size,),
                activation="tanh",
                solver="lbfgs",
                alpha=self.regularization * count,
                random_state=self.seed,
                max_iter=300,
            ).fit(inputs, targets)
            hidden, weight = (each.T for each in fitted.coefs_)
            hidden_bias, bias = fitted.intercepts_
            attribute.hidden_weight.copy_(torch.from_numpy(hidden))
            attribute.hidden_bias.copy_(torch.from_numpy(hidden_bias))
        else:
            linear = LogisticRegression(C=1 / self.regularization, max_iter=1000) if self.names is not None else None
            fitted = (linear or Ridge(self.regularization)).fit(inputs, targets, np.full(len(inputs), 1 / count))
            weight, bias = np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)
        if len(weight) < len(attribute.weight):
            # Of two labels there is one log-odds.
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        attribute.weight.copy_(torch.from_numpy(weight * scale))
        attribute.bias.copy_(torch.from_numpy(bias * scale + centre))
        return attribute

    def cross_validated(self, draws: torch.Tensor, means: torch.Tensor) -> tuple[float, float]:
        """The accuracy, or R², at the means of texts that were left out; and the root mean square error at their draws."""
        from sklearn.model_selection import KFold, StratifiedKFold

        if self.names is None:
            folds = KFold(min(FOLDS, len(means)), shuffle=True, random_state=self.seed)
        else:
            folds = StratifiedKFold(min(FOLDS, np.bincount(self.values).min()), shuffle=True, random_state=self.seed)
        right, squares = np.zeros(len(means)), np.zeros(len(means))
        for kept, left_out in folds.split(means.numpy(), self.values):
            attribute = self(draws, kept)
            if self.names is not None:
                right[left_out] = attribute(means[left_out]).argmax(-1).numpy() == self.values[left_out]
                continue
            right[left_out] = (attribute(means[left_out]).squeeze(-1).numpy() - self.values[left_out]) ** 2
            predicted = attribute(draws[left_out].flatten(0, 1)).view(len(left_out), -1).numpy()
            squares[left_out] = ((predicted - self.values[left_out, None]) ** 2).mean(1)
        score = right.mean() if self.names is not None else 1 - right.mean() / self.values.var()
        return float(score), float(squares.mean() ** 0.5)


__all__ = ["fit_attribute"]
