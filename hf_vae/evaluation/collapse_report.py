"""Is z used? A verdict in plain words, from figures that a collapsed model cannot make look well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from .information import ACTIVE_UNITS_THRESHOLD

# KL and active units are reported, and no high one speaks for z: free bits let an encoder move z about at no charge, and a model
# of KL 13 with 23 of 32 units active was seen to write one of two sentences whatever the z.

# One nat of I(x; z) tells e = 2.7 examples apart, the least that could be called content. Of few examples, whose ceiling ln N is
# low itself, half of the ceiling is asked.
MIN_MUTUAL_INFORMATION = 1.0
MIN_CEILING_SHARE = 0.5
# Another z must make a text e times less likely. The mean gap of some hundred examples is known to a few tenths of a
# nat, so noise does not reach this.
MIN_GAP = 1.0
# A decoder that reads all that z says loses at least I(x; z) when z is exchanged (the gap is then I plus a KL, hence no less).
# Half of it leaves room for both figures' noise.
MIN_GAP_PER_INFORMATION = 0.5

# Above it most of what is measured is how UNK follows on UNK, whatever z says.
MAX_UNKNOWN_TOKENS = 0.5

REQUIRED = ("kl", "mutual_information", "mutual_information_ceiling", "nll_posterior", "nll_shuffled")


@dataclass(frozen=True)
class CollapseReport:
    """
    Args:
        verdict (`str`): `"ignored"`, `"partly used"` or `"used"`: what the decoder does with z. `"unknown words"` if these texts
            cannot show it.
        summary (`str`): the verdict in one sentence.
        findings (`list[str]`): what was found, a sentence each.
        advice (`list[str]`): what to try; empty if z is used.
        figures (`dict`): what it follows from, among it `shuffled_gap`, `prior_gap` if z from the prior was measured, and
            `kl_minus_mutual_information` if the prior is one for all, in nats.
    """

    verdict: str
    summary: str
    findings: list[str]
    advice: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def ignored(self) -> bool:
        return self.verdict == "ignored"

    def to_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        lines = [self.summary, *(f"  - {finding}" for finding in self.findings)]
        if self.advice:
            lines += ["  What to try:", *(f"  - {advice}" for advice in self.advice)]
        return "\n".join(lines)


def collapse_report(metrics: Mapping[str, float], language_model_nll: float | None = None) -> CollapseReport:
    """
    Whether the decoder uses z.

    z is ignored if I(x; z) is below `MIN_MUTUAL_INFORMATION` (or half of its ceiling) or another example's z costs less than
    `MIN_GAP`; partly used if it costs less than half of I(x; z). A high KL and active units do not speak for it. Where the prior
    depends on x, the smaller of I and KL stands for I(y; z|x), and z from the prior for another example's.

    Args:
        metrics (`dict`): means in nats per sentence as [`information_metrics`] and [`likelihood_metrics`] name them: `kl`,
            `mutual_information`, `mutual_information_ceiling`, `nll_posterior`, `nll_shuffled`; used where present: `nll_prior`,
            `nll_zero`, `iw_nll` with `iw_nll_error`, `active_units_0.01`, `latent_size`, `unknown_tokens`. With
            `prior_depends_on_source` the prior is p(z|x), and `nll_prior` is needed too.
        language_model_nll (`float`, *optional*): a language model's of the same size on the same texts.

    Raises:
        ValueError: a figure that it needs is missing.
    """
    one_prior = not metrics.get("prior_depends_on_source", False)
    missing = [name for name in (*REQUIRED, *(() if one_prior else ("nll_prior",))) if name not in metrics]
    if missing:
        raise ValueError(f"`metrics` lacks {', '.join(missing)}: `information_metrics` and `likelihood_metrics` measure them.")
    information, ceiling = metrics["mutual_information"], metrics["mutual_information_ceiling"]
    figures = {name: metrics[name] for name in REQUIRED}
    figures["shuffled_gap"] = metrics["nll_shuffled"] - metrics["nll_posterior"]
    if "nll_prior" in metrics:
        figures["prior_gap"] = metrics["nll_prior"] - metrics["nll_posterior"]
    if one_prior:
        figures["kl_minus_mutual_information"] = metrics["kl"] - information
    # Where p(z|x) depends on x, I(x,y; z) counts what z says of x, and another example's z tells of another x: a z of KL 0, which
    # says nothing of y that x does not, would pass both. There it is I(y; z|x) ≤ KL that counts, and the z that p(z|x) gives.
    gap, said = (figures["shuffled_gap"], information) if one_prior else (figures["prior_gap"], min(metrics["kl"], information))
    # Written so that a figure that is no number counts against z.
    least = min(MIN_MUTUAL_INFORMATION, MIN_CEILING_SHARE * ceiling)
    says_something = information >= least and (one_prior or metrics["kl"] >= least)
    is_missed = gap >= MIN_GAP
    other = "another example's" if one_prior else "one from the prior"
    unknown = metrics.get("unknown_tokens", 0.0)
    if unknown > MAX_UNKNOWN_TOKENS:
        verdict = "unknown words"
        summary = (
            f"These texts do not show whether z is used: {100 * unknown:.1f} % of their tokens are not in the model's vocabulary."
        )
    elif not is_missed:
        verdict, summary = "ignored", f"z is being ignored: the decoder does about as well with {other}."
    elif not says_something:
        verdict, summary = "ignored", "z is being ignored: it says almost nothing about the example."
    elif not gap >= MIN_GAP_PER_INFORMATION * said:
        verdict, summary = "partly used", "z is used in part: it says more about the example than the decoder reads."
    else:
        verdict, summary = "used", f"z is used: it tells examples apart, and the decoder misses it when it is {other}."
    findings = _findings(metrics, figures)
    if language_model_nll is not None:
        figures["language_model_nll"] = language_model_nll
    if language_model_nll is not None and "iw_nll" in metrics:
        figures["iw_nll"] = metrics["iw_nll"]
        findings.append(_against_language_model(metrics, language_model_nll, verdict))
    if verdict == "unknown words":
        advice = ["Measure on texts like those of the training, or train with a vocabulary that has these words."]
    else:
        advice = [] if verdict == "used" else _advice(says_something, figures)
    return CollapseReport(verdict, summary, findings, advice, figures)


def _findings(metrics: Mapping[str, float], figures: Mapping[str, float]) -> list[str]:
    information, ceiling = figures["mutual_information"], figures["mutual_information_ceiling"]
    # With I at its ceiling, what more there is of it counts as KL - I.
    at_ceiling = information >= 0.9 * ceiling
    findings = [
        f"Mutual information I(x; z): {information:.2f} nats of at most {ceiling:.2f}, the entropy of the examples (ln N where all "
        "differ)."
    ]
    if "kl_minus_mutual_information" in figures:
        findings.append(
            f"KL: {figures['kl']:.2f} nats; {'at most ' if at_ceiling else ''}{figures['kl_minus_mutual_information']:.2f} of them "
            "(KL - I) only move the aggregate posterior away from the prior and say nothing about the example."
        )
    else:
        findings.append(
            f"KL to p(z|x): {figures['kl']:.2f} nats, the most that z says of the target beside what the source says; the mutual "
            "information counts what z says of the source too."
        )
    sources = {
        "its own z": "nll_posterior",
        "another example's": "nll_shuffled",
        "z from the prior": "nll_prior",
        "z = 0": "nll_zero",
    }
    shown = ", ".join(f"{metrics[name]:.2f} with {label}" for label, name in sources.items() if name in metrics)
    from_prior = f", one from the prior {figures['prior_gap']:.2f}" if "prior_gap" in figures else ""
    findings.append(f"Another example's z costs {figures['shuffled_gap']:.2f} nats per sentence{from_prior} (NLL {shown}).")
    if at_ceiling:
        findings.append("I(x; z) is close to its ceiling: with so few examples more of it cannot be seen.")
    name = f"active_units_{ACTIVE_UNITS_THRESHOLD}"
    if name in metrics:
        of_all = f" of {metrics['latent_size']:.0f}" if "latent_size" in metrics else ""
        findings.append(
            f"Active units: {metrics[name]:.0f}{of_all} with Var(mean) > {ACTIVE_UNITS_THRESHOLD}; they show that the encoder "
            "moves z, not that the decoder reads it."
        )
    return findings


def _against_language_model(metrics: Mapping[str, float], language_model_nll: float, verdict: str) -> str:
    iw_nll, error = metrics["iw_nll"], metrics.get("iw_nll_error", 0.0)
    difference = iw_nll - language_model_nll
    comparison = f"Importance-weighted NLL {iw_nll:.2f}, {abs(difference):.2f} nats"
    # Two standard errors over draws of z. Of a single draw, which shows none, and of what is no number, nothing is said.
    if not abs(difference) > 2 * error:
        return (
            f"Importance-weighted NLL {iw_nll:.2f} ± {error:.2f}, the language model's {language_model_nll:.2f}: from these draws "
            "of z it cannot be told which is better."
        )
    if difference > 0:
        return (
            f"{comparison} worse than the language model's {language_model_nll:.2f}: z costs more than it brings, unless more "
            "samples of z lower this bound."
        )
    reason = "but not by its z" if verdict == "ignored" else "z pays for itself"
    return f"{comparison} better than the language model's {language_model_nll:.2f}: {reason}."


def _advice(says_something: bool, figures: Mapping[str, float]) -> list[str]:
    advice = []
    if not says_something and figures["kl"] - figures["mutual_information"] > MIN_MUTUAL_INFORMATION:
        advice.append(
            "The KL is paid for nothing. Free bits that are granted to every example invite this: normalise the posterior means "
            "over the batch in their place (batch_norm_gamma=0.7), or grant them to each dimension's mean over the batch "
            "(free_bits_per='batch')."
        )
    elif not says_something:
        advice.append(
            "The encoder says nothing: normalise the posterior means over the batch (batch_norm_gamma=0.7). If that is not enough, "
            "grant free bits, or begin with a small KL weight."
        )
    advice.append(
        "Make the decoder need z: word dropout, a bag-of-words loss (a pretrained decoder may do better without it), or train an "
        "autoencoder first, then reset the decoder and anneal the KL."
    )
    if says_something:
        advice.append("z does say something: see that it reaches the decoder at every token, and train the decoder on it longer.")
    return advice
