"""Whether z is used, measured on the texts of a page, and the model's card."""

from __future__ import annotations

import re
from pathlib import Path

from transformers.utils import cached_file

from ..evaluation import CollapseReport, collapse_report, information_metrics, likelihood_metrics
from .explored import Explored

# As many show up to 4.6 nats of I(x; z), and take a second.
REPORT_TEXTS = 100


def measure_collapse(explored: Explored, most: int = REPORT_TEXTS, seed: int = 0) -> tuple[CollapseReport, int]:
    """
    The collapse report of the page's texts, and how many of them it is measured on, the first ones.

    Raises:
        ValueError: the model has no posterior, there are fewer than two texts, or all are the same.
    """
    explored.check_posterior()
    corpus = explored.corpus
    if corpus is None or len(set(corpus.texts[:most])) < 2:
        raise ValueError("What z tells apart needs two different texts: name a file of texts with `--file`.")
    count = min(most, len(corpus))
    with explored.lock:
        evaluator = explored.evaluator(range(count))
        with evaluator.reading_once():
            posterior, prior = evaluator.posterior(), evaluator.prior()
            metrics = likelihood_metrics(evaluator, num_samples=1, seed=seed, posterior=posterior, prior=prior)
            metrics.update(information_metrics(posterior, prior, seed=seed, examples=evaluator.examples()))
            metrics["unknown_tokens"] = evaluator.unknown_tokens()
    return collapse_report(metrics), count


def model_card(name: str) -> str | None:
    """
    The model's card as Markdown, without the metadata before it and without pictures, which would be fetched from elsewhere;
    `None` if there is none.

    Args:
        name (`str`): the model's folder, or its name on the Hub, of which only what lies on this machine is read.
    """
    options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    try:
        found = cached_file(name, "README.md", local_files_only=True, **options)
    except OSError:
        return None
    if found is None:
        return None
    text = Path(found).read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text).strip()


def facts(explored: Explored) -> dict[str, str]:
    """What the model is, in words."""
    config = explored.model.config
    reads = f"vectors of {config.embedding_size} numbers" if config.encoder is None else config.encoder.model_type
    number = sum(parameter.numel() for parameter in explored.model.parameters())
    return {
        "class": type(explored.model).__name__,
        "encoder, decoder": f"{reads}, {config.decoder.model_type}",
        "parameters": f"{number / 1e6:.1f} million" if number > 1e5 else f"{number:,}",
        "units of z": str(config.total_latent_size),
        "z enters by": ", ".join(config.latent_injection),
        "prior": config.prior_type,
        "attributes": ", ".join(explored.model.latent_attributes) or "none",
    }
