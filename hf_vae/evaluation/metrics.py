"""Every metric of `metrics.json`, in the order of a report: its name, its label, its unit, and which way is better."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """
    Args:
        name (`str`): the key in `metrics.json`. A word in braces stands for a number: `distinct_correct_in_{count}`.
        label (`str`): what it is, in words. Words in braces are those of the name.
        unit (`str`): of its values; empty for scores, shares and counts.
        better (`str`, *optional*): `"higher"` or `"lower"`; `None` if neither is better by itself.
        detail (`bool`): it explains the metrics above it. Tables indent it, and model cards leave it out.
    """

    name: str
    label: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    detail: bool = False

    @property
    def title(self) -> str:
        """The label with the unit. A score without a unit says if lower is better; a number of nats need not."""
        note = self.unit or ("lower is better" if self.better == "lower" else "")
        return f"{self.label} ({note})" if note else self.label


_NATS = "nats per sentence"


def _error(name: str) -> Metric:
    return Metric(f"{name}_error", "standard error over draws of z", _NATS, "lower", detail=True)


def _precision_and_recall(name: str, label: str) -> list[Metric]:
    return [
        Metric(f"{name}_precision", f"{label}, precision over the references", better="higher"),
        Metric(f"{name}_recall", f"{label}, recall over the references", better="higher"),
        Metric(f"{name}_f1", f"{label}, F1 of both", better="higher", detail=True),
    ]


def _of_inversion(prefix: str, of_which: str) -> list[Metric]:
    """Of texts that were written from vectors; of the first for each vector, or of the nearest of several."""
    return [
        Metric(
            f"{prefix}exact_match", f"Share of texts that come back from their vectors letter by letter{of_which}", better="higher"
        ),
        Metric(f"{prefix}token_f1", f"F1 of their words{of_which}", better="higher"),
        Metric(f"{prefix}cosine", f"Cosine of the given vector and that of the text{of_which}", better="higher"),
    ]


def _of_each(name: str, label: str, choices: Sequence[str]) -> list[Metric]:
    """The details of the metric `name`, one for each choice of the grammar."""
    words = {choice: choice.replace("time_position", "place of the time") for choice in choices}
    return [Metric(f"{name}_{choice}", f"{label} {words[choice]}", better="higher", detail=True) for choice in choices]


METRICS = (
    Metric("unknown_tokens", "Share of tokens that are not in the vocabulary", better="lower"),
    Metric("references_cut", "share of targets cut to the longest length", better="lower", detail=True),
    Metric("sentences_cut", "share of sentences cut to the longest length", better="lower", detail=True),
    Metric("elbo", "ELBO", _NATS, "higher"),
    Metric("num_examples", "examples, N", detail=True),
    Metric("refinement_elbo_before", "ELBO before refinement of q", _NATS, "higher", detail=True),
    Metric("refinement_elbo_after", "ELBO after refinement of q", _NATS, "higher", detail=True),
    Metric("refinement_gap", "gained by it, the amortisation gap", _NATS, detail=True),
    Metric("refinement_steps", "steps of refinement", detail=True),
    Metric("iw_nll", "NLL, importance-weighted bound", _NATS, "lower"),
    _error("iw_nll"),
    Metric("importance_samples", "samples of z in it, K", detail=True),
    Metric("mc_nll", "NLL, Monte Carlo over the prior", _NATS, "lower"),
    _error("mc_nll"),
    Metric("cll_is", "log p(y|x), lower bound with z from q", _NATS, "higher", detail=True),
    _error("cll_is"),
    Metric("cll_mc", "log p(y|x), lower bound with z from the prior", _NATS, "higher", detail=True),
    _error("cll_mc"),
    Metric("language_model_nll", "NLL, language model without z", _NATS, "lower"),
    Metric("entropy", "Exact entropy of the data", _NATS),
    Metric("cll_exact", "log p(y|x), exact mean over the data", _NATS, detail=True),
    Metric("reconstruction", "Reconstruction", _NATS, "lower"),
    Metric("kl", "KL(q ‖ p)", _NATS),
    Metric("ppl_per_token_iw", "Perplexity per token (EOS counted), importance-weighted bound", better="lower"),
    Metric("ppl_per_token_elbo", "the same from the ELBO", better="lower", detail=True),
    Metric("tokens", "tokens of the targets", detail=True),
    Metric("ppl_per_word_iw", "Perplexity per word (and sentence end), importance-weighted bound", better="lower"),
    Metric("ppl_per_word_elbo", "the same from the ELBO", better="lower", detail=True),
    Metric("words", "words of the targets, and one for the end of each", detail=True),
    Metric("mutual_information", "Mutual information of sentence and z under q", "nats", "higher"),
    Metric("mutual_information_ceiling", "entropy of the examples, its ceiling", "nats", detail=True),
    Metric("kl_minus_mutual_information", "KL(q(z) ‖ p(z)) as KL - I", "nats", "lower", detail=True),
    Metric("marginal_kl", "KL(q(z) ‖ p(z)) by Monte Carlo", "nats", "lower", detail=True),
    Metric("prior_depends_on_source", "whether the prior depends on the source", detail=True),
    Metric("active_units_{threshold}", "Active units (variance of the posterior mean above {threshold})", better="higher"),
    Metric("active_units_{threshold}_fraction", "share of the dimensions of z", detail=True),
    Metric("latent_size", "dimensions of z", detail=True),
    Metric("nll_posterior", "NLL, z from the posterior", _NATS, "lower"),
    Metric("nll_prior", "NLL, z from the prior", _NATS),
    Metric("nll_shuffled", "NLL, z of another sentence", _NATS),
    Metric("nll_zero", "NLL, z = 0", _NATS),
    Metric(
        "reconstruction_at_mean_exact_match", "Share of sentences reconstructed exactly from the posterior's mean", better="higher"
    ),
    Metric(
        "reconstruction_at_mean_token_accuracy",
        "Share of tokens at their place in reconstructions from the posterior's mean",
        better="higher",
        detail=True,
    ),
    Metric("reconstruction_at_mean_bleu", "BLEU of reconstructions from the posterior's mean", better="higher"),
    *_of_inversion("", ""),
    *_of_inversion("best_of_{count}_", ", nearest of {count}"),
    Metric("best_of_{count}_bleu", "BLEU, nearest of {count}", better="higher"),
    Metric("bleu", "BLEU, average output", better="higher"),
    Metric("best_bleu", "BLEU, best of the outputs", better="higher"),
    Metric("chrf", "chrF, average output", better="higher"),
    Metric("best_chrf", "chrF, best of the outputs", better="higher"),
    Metric("ter", "TER, average output", better="lower"),
    Metric("best_ter", "TER, best of the outputs", better="lower"),
    Metric("meteor", "METEOR, average output", better="higher"),
    Metric("best_meteor", "METEOR, best of the outputs", better="higher"),
    Metric("ibleu", "iBLEU (α = 0.8)", better="higher"),
    Metric("self_bleu", "self-BLEU", better="lower"),
    Metric("distinct_{order}", "distinct-{order}", better="higher"),
    Metric("copy_bleu", "BLEU of copying the source"),
    Metric("copy_ibleu", "iBLEU of copying the source"),
    Metric("grammatical", "Share of grammatical outputs", better="higher"),
    Metric("arithmetic", "Share of analogies in z that change the wanted factor alone", better="higher"),
    *_of_each("arithmetic", "of those that change the", ("mood", "voice", "time_position", "agent", "place")),
    Metric("control_accuracy", "Share of edits in z that set the wanted factor", better="higher"),
    *_of_each("control_accuracy", "of those that set the", ("mood", "voice", "time_position")),
    Metric("control_kept", "Share of edits in z that keep all other factors", better="higher"),
    *_of_each("control_kept", "of those that set the", ("mood", "voice", "time_position")),
    Metric("midpoints_grammatical", "Share of grammatical midpoints between sentences", better="higher"),
    Metric("path_edit_distance", "mean edit distance of neighbours on a path", better="lower", detail=True),
    Metric("meaning_kept", "Share of outputs that keep the meaning", better="higher"),
    Metric("distinct_correct_in_{count}", "Distinct correct paraphrases in {count}", better="higher"),
    Metric("distinct_correct_in_{count}_spread", "The same, by z that repel each other", better="higher"),
    Metric("form_transfer", "Share of sources said in exactly the form of another pair", better="higher"),
    *_of_each("form_transfer", "of those, share with that", ("voice", "time_position", "opening", "synonym", "meaning")),
    Metric("valid_reply", "Share of replies that are right", better="higher"),
    Metric("distinct_valid_in_{count}", "Distinct right replies in {count}", better="higher"),
    Metric("act_match", "Share of replies that are right and perform the predicted act", better="higher"),
    *_precision_and_recall("bleu_{order}", "BLEU-{order}"),
    *_precision_and_recall("dialogwae_bleu", "DialogWAE's BLEU"),
    *_precision_and_recall("a_bow", "A-bow"),
    *_precision_and_recall("e_bow", "E-bow"),
    Metric("bow_contexts", "contexts with a known word in each text", detail=True),
    *_precision_and_recall("act", "Dialogue act"),
    Metric("distinct_{order}_inter", "distinct-{order} within the replies to a context", better="higher"),
    Metric("distinct_{order}_intra", "distinct-{order} within a reply", better="higher", detail=True),
)
# What a word in braces stands for.
_NUMBER = "[0-9.]+(?:e-[0-9]+)?"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", rf"(?P<\1>{_NUMBER})", re.escape(name)))


_PATTERNS = [(_pattern(metric.name), metric) for metric in METRICS]


def known_metrics(names: Iterable[str]) -> list[Metric]:
    """For those of `names` that have an entry in [`METRICS`], that entry, with the numbers of the name in it; in its order."""
    names = list(names)
    matches = [(metric, pattern.fullmatch(name)) for pattern, metric in _PATTERNS for name in names]
    return [replace(metric, name=match[0], label=metric.label.format(**match.groupdict())) for metric, match in matches if match]


def metrics_table(metrics: Mapping[str, Any], **others: Mapping[str, Any]) -> str:
    """
    All metrics that are known, one a line; values that are dictionaries are left out.

    Args:
        metrics (`dict`): a model's.
        others (`dict`): of further models, each a column that is headed by its name, with spaces for underscores.
    """
    known = [metric for metric in known_metrics(metrics) if not isinstance(metrics[metric.name], Mapping)]
    titles = [f"  {metric.title}" if metric.detail else metric.title for metric in known]
    width = max(map(len, titles), default=0)
    heads = ["this model", *(name.replace("_", " ") for name in others)] if others else []
    lines = [f"{'':<{width}} " + " ".join(f"{head:>12}" for head in heads)] if heads else []
    for title, metric in zip(titles, known):
        values = [
            _shown(metrics[metric.name]),
            *(_shown(each[metric.name]) if metric.name in each else "-" for each in others.values()),
        ]
        lines.append(f"{title:<{width}} " + " ".join(f"{value:>12}" for value in values))
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if abs(value) >= 1e6 else f"{value:.3f}"


__all__ = ["METRICS", "Metric", "known_metrics", "metrics_table"]
