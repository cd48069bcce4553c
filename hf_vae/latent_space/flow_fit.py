"""A flow fitted to samples of q, and what a fitted prior gains over N(0, I) on such samples."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence

import torch
from torch.nn.functional import one_hot

from ..checks import check_count, check_number
from ..flow_prior import FlowDistribution, FlowPrior
from ..gaussian import DiagonalGaussian
from ..latent_distribution import LatentDistribution
from ..modeling_vae import VAEModel
from ..prior import GaussianMixturePrior
from ..processing_vae import Texts, VAEProcessor, as_list
from .codes import encode_texts

logger = logging.getLogger(__name__)

# Of fewer texts too few are held out to say when to stop.
LEAST_TEXTS = 20
HELD_OUT_SHARE = 0.1
# The steps from one look at the held-out texts to the next, and how many looks without a gain end the fit.
STEPS_PER_LOOK = 100
MOST_LOOKS_IN_VAIN = 5
# Draws of z from the posteriors of all held-out texts together.
HELD_OUT_DRAWS = 5_000


def fit_flow_prior(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Texts | LatentDistribution,
    labels: Sequence[str] | None = None,
    num_layers: int = 8,
    hidden_size: int = 128,
    max_steps: int = 2000,
    learning_rate: float = 5e-3,
    draws_per_step: int = 256,
    seed: int = 0,
    batch_size: int = 64,
) -> FlowPrior:
    r"""
    A flow fitted by maximum likelihood to samples of q: each step takes other texts and draws a z from the posterior of each. So it
    minimises \(-\mathbb E_{q(z)} \log p(z)\), which is \(\mathrm{KL}(q(z) \,\|\, p(z))\) plus a constant, the entropy of the
    aggregate posterior q(z) (Hoffman & Johnson 2016). The model does not change.

    A tenth of the texts is held out. What is returned is the flow that gave their samples the highest density, and the fit ends
    early if that has not risen for 500 steps.

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        texts (`list[str]` or [`LatentDistribution`]): the training texts, at least 20, or their posteriors from [`encode_texts`],
            which a conditional model takes.
        labels (`list[str]`, *optional*): an attribute of each text. The flow then has p(z|label) of each label, besides p(z).
        num_layers (`int`, defaults to 8): couplings.
        hidden_size (`int`, defaults to 128): width of their networks.
        max_steps (`int`, defaults to 2000): of Adam.
        learning_rate (`float`, defaults to 5e-3): at the start; it falls to 0 along a cosine.
        draws_per_step (`int`, defaults to 256): texts of one step.
        seed (`int`, defaults to 0): of everything that is drawn.
        batch_size (`int`, defaults to 64): texts that are encoded at once.

    Returns:
        [`FlowPrior`], on the CPU, whose weights are buffers.

    Raises:
        ValueError: fewer than 20 texts, `labels` in another number, a size out of range, posteriors over another number of
            dimensions or that are not finite, or texts that [`encode_texts`] refuses.
        FloatingPointError: the fit diverges.
    """
    rows = _rows(model, texts)
    if len(rows) < LEAST_TEXTS:
        raise ValueError(f"`texts` holds {len(rows)}; a flow takes at least {LEAST_TEXTS} texts, and holds a tenth of them out.")
    for name, count in (("max_steps", max_steps), ("draws_per_step", draws_per_step)):
        check_count(name, count)
    check_number("learning_rate", learning_rate, above=0)
    names, classes = _classes(labels, len(rows))
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would leave accelerators with another seed.
        torch.default_generator.manual_seed(seed)
        flow = FlowPrior(model.config.total_latent_size, num_layers, hidden_size, names, dtype=torch.float32)
    posterior = _posterior(model, processor, rows, batch_size)

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(posterior), generator=generator)
    held, kept = order.tensor_split([max(int(HELD_OUT_SHARE * len(order)), 2)])
    _start(flow, posterior.select(kept).sample(generator), classes[kept])
    draws = math.ceil(HELD_OUT_DRAWS / len(held))
    held_latents = posterior.select(held).draw(draws, generator=generator).flatten(0, 1)
    held_classes = classes[held].repeat_interleave(draws)

    best, best_nats, in_vain = copy.deepcopy(flow.state_dict()), _nats(flow, held_latents, held_classes).item(), 0
    optimizer = torch.optim.Adam(flow.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_steps)
    for step in range(1, max_steps + 1):
        some = kept[torch.randint(len(kept), (draws_per_step,), generator=generator)]
        latents = posterior.select(some).sample(generator)
        with torch.enable_grad():
            optimizer.zero_grad()
            _nats(flow, latents, classes[some]).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % STEPS_PER_LOOK and step < max_steps:
            continue
        with torch.no_grad():
            nats = _nats(flow, held_latents, held_classes).item()
        if not math.isfinite(nats):
            raise FloatingPointError(
                f"The fit of the flow diverged by step {step} of {max_steps}: the held-out codes cost {nats} nats. Lower "
                f"`learning_rate`, which is {learning_rate}."
            )
        logger.info("step %d of %d: held-out codes cost %.2f nats", step, max_steps, nats)
        in_vain += 1
        if nats < best_nats:
            best, best_nats, in_vain = copy.deepcopy(flow.state_dict()), nats, 0
        elif in_vain == MOST_LOOKS_IN_VAIN:
            break
    flow.load_state_dict(best)
    return flow.freeze()


def _rows(model: VAEModel, texts: Texts | LatentDistribution) -> list[str] | LatentDistribution:
    """`texts` as a list, or the posteriors that they are; a `ValueError` for what is neither, or over other dimensions."""
    if isinstance(texts, torch.Tensor):
        raise ValueError(
            "`texts` is a tensor, and a flow is fitted to samples of q, not to single codes: give texts, or what `encode_texts` "
            "makes of them."
        )
    if not isinstance(texts, LatentDistribution):
        return as_list("texts", texts)
    size = texts.mode().shape[-1]
    if size != model.config.total_latent_size:
        raise ValueError(f"`texts` is over {size} dimensions; the model's z has {model.config.total_latent_size}.")
    return texts


def _posterior(
    model: VAEModel, processor: VAEProcessor, rows: list[str] | LatentDistribution, batch_size: int
) -> LatentDistribution:
    """q of each row, on the CPU; a `ValueError` that names the rows of which it is not finite."""
    posterior = rows if isinstance(rows, LatentDistribution) else encode_texts(model, processor, rows, batch_size=batch_size)
    posterior = posterior.map(lambda parameter: parameter.detach().cpu())
    finite = torch.stack([each.flatten(1).isfinite().all(1) for each in posterior.parameters().values()]).all(0)
    broken = (~finite).nonzero().flatten().tolist()
    if broken:
        raise ValueError(f"`texts` has posteriors that are not finite in row(s) {broken[:10]}: the model's weights may hold NaN.")
    return posterior


def _classes(labels: Sequence[str] | None, count: int) -> tuple[list[str] | None, torch.Tensor]:
    """The different labels in alphabetical order, and for each text the number of its own; without labels, 0 for all."""
    if labels is None:
        return None, torch.zeros(count, dtype=torch.long)
    if isinstance(labels, str) or len(labels) != count:
        found = "one text" if isinstance(labels, str) else f"a list of {len(labels)}"
        raise ValueError(f"`labels` is {found}, and `texts` holds {count}: give a label for each.")
    wrong = next((label for label in labels if not isinstance(label, str)), None)
    if wrong is not None:
        raise ValueError(f"`labels` holds {wrong!r}; labels are texts.")
    names = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    return names, torch.tensor([numbers[label] for label in labels])


@torch.no_grad()
def _start(flow: FlowPrior, latents: torch.Tensor, classes: torch.Tensor) -> None:
    """Gives the flow the moments of `latents`, so that it starts from a Gaussian of these, and each label its share and moments."""
    flow.center.copy_(latents.mean(0))
    # A dimension without any spread is left as it is.
    spread = latents.std(0)
    flow.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))
    if flow.labels is None:
        return
    member = one_hot(classes, len(flow.labels)).float()
    # A label whose texts are all held out is rare, not impossible.
    counts = member.sum(0).clamp(min=0.5)
    flow.weights.copy_(counts / counts.sum())
    noise = flow.to_noise(latents)[0]
    means, squares = (member.T @ each / counts.unsqueeze(-1) for each in (noise, noise.square()))
    flow.means.copy_(means)
    # Of one text alone there is no variance.
    flow.logvars.copy_((squares - means.square()).clamp(min=1e-2).log())


def _nats(flow: FlowPrior, latents: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """-log p(z, label), the mean over the rows; without labels, -log p(z)."""
    every = flow(batch_size=len(latents))
    # The weights of the other labels are 0, and what is left is the share of its own.
    own = every.weights * one_hot(classes, every.weights.shape[1])
    return -FlowDistribution(flow, own, every.means, every.logvars).log_prob(latents).mean()


def prior_gain(
    model: VAEModel,
    processor: VAEProcessor,
    prior: GaussianMixturePrior | FlowPrior,
    texts: Texts | LatentDistribution,
    num_samples: int = 10,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, float]:
    r"""
    By how many nats a fitted prior is closer to the aggregate posterior than N(0, I) is:

    \(\mathrm{KL}(q(z) \,\|\, p_0(z)) - \mathrm{KL}(q(z) \,\|\, p(z)) = \mathbb E_{q(z)}[\log p(z) - \log p_0(z)]\) with
    \(p_0 = \mathcal N(0, I)\).

    The entropy of q(z), which no number of texts gives if z tells them all apart, falls out of it. The mean KL of the ELBO falls by
    the same nats.

    Args:
        model ([`VAEModel`]): any model of the family.
        processor ([`VAEProcessor`]): its processor.
        prior ([`GaussianMixturePrior`] or [`FlowPrior`]): a fitted one.
        texts (`list[str]` or [`LatentDistribution`]): held-out texts, at least two, or their posteriors from [`encode_texts`].
        num_samples (`int`, defaults to 10): draws of z from the posterior of each.
        seed (`int`, defaults to 0): of these.
        batch_size (`int`, defaults to 64): texts that are encoded at once.

    Returns:
        `prior_gain`, nats per text, above 0 if the fitted prior is the closer one, and `prior_gain_error`, its standard error over
        the texts; `fitted` and `standard`, the mean log density of the samples under each.

    Raises:
        ValueError: fewer than two texts, no draw, a prior of another latent size, or texts that [`encode_texts`] refuses.
    """
    rows = _rows(model, texts)
    if len(rows) < 2:
        raise ValueError(f"`texts` holds {len(rows)}; a standard error takes two or more.")
    if prior.latent_size != model.config.total_latent_size:
        raise ValueError(f"`prior` is over {prior.latent_size} dimensions; the model's z has {model.config.total_latent_size}.")
    check_count("num_samples", num_samples)
    posterior = _posterior(model, processor, rows, batch_size)
    latents = posterior.draw(num_samples, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        fitted = prior().to("cpu").log_prob(latents.flatten(0, 1)).view(len(rows), -1).double().mean(1)
    standard = DiagonalGaussian.standard(1, latents.shape[-1]).log_prob(latents).double().mean(1)
    gain = fitted - standard
    return {
        "prior_gain": gain.mean().item(),
        "prior_gain_error": (gain.std() / math.sqrt(len(gain))).item(),
        "fitted": fitted.mean().item(),
        "standard": standard.mean().item(),
    }


__all__ = ["fit_flow_prior", "prior_gain"]
