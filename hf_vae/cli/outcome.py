"""What a run comes to, in words: whether z is used, and what is wrong with the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation import CollapseReport

# With `objective="gsnn"` z is drawn from the prior in training too, and there is no q whose z could be exchanged.
_NO_POSTERIOR = "Whether z is used is not measured: this objective trains no posterior to compare with."


def verdict_line(metrics: Mapping[str, Any]) -> str:
    """Whether z is used, in a paragraph with the numbers that say so; `metrics` hold a collapse report if there is a posterior."""
    if "collapse_report" not in metrics:
        return _NO_POSTERIOR
    report = metrics["collapse_report"]
    figures = report["figures"]
    from_prior = f", one from the prior {figures['prior_gap']:.2f}" if "prior_gap" in figures else ""
    return (
        f"{report['summary']} The KL is {figures['kl']:.2f} nats, the mutual information {figures['mutual_information']:.2f} of at "
        f"most {figures['mutual_information_ceiling']:.2f}. Another example's z costs {figures['shuffled_gap']:.2f} nats per "
        f"sentence{from_prior}."
    )


def verdict(metrics: Mapping[str, Any]) -> str:
    """The whole collapse report, with what to try if z is ignored."""
    return str(CollapseReport(**metrics["collapse_report"])) if "collapse_report" in metrics else _NO_POSTERIOR


def output_warnings(outputs: Sequence[Sequence[str]]) -> list[str]:
    """
    A sentence for each thing that is wrong with the outputs of many sources.

    Args:
        outputs (`list[list[str]]`): several for each source, each with a z of its own.
    """
    several = [texts for texts in outputs if len(texts) > 1]
    empty = sum(not any(text.strip() for text in texts) for texts in outputs)
    equal = sum(len(set(texts)) == 1 and any(text.strip() for text in texts) for texts in several)
    found = []
    if empty:
        found.append(
            f"Warning: {_of(empty, len(outputs))} got empty outputs alone. The model ends its texts at once: train longer."
        )
    if equal:
        found.append(f"Warning: all outputs of {_of(equal, len(several))} are equal, though each has a z of its own.")
    return found


def _of(count: int, total: int) -> str:
    return f"the {total} source{'s' if total > 1 else ''}" if count == total else f"{count} of {total} sources"
