"""Model cards that are written from a run's own record."""

from __future__ import annotations

import math
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from ..variants import paper_of
from .files import write_whole
from .markdown import LONGEST, as_text, code_block
from .run_record import RunRecord

# How each figure reads in a table, by its name in `metrics.json`.
METRIC_NAMES = {
    "elbo": "ELBO (nats per sentence)",
    "iw_nll": "NLL, importance-weighted bound (nats per sentence)",
    "mc_nll": "NLL, Monte Carlo over the prior (nats per sentence)",
    "kl": "KL(q ‖ p) (nats per sentence)",
    "reconstruction": "Reconstruction (nats per sentence)",
    "nll_posterior": "NLL, z from the posterior (nats per sentence)",
    "nll_prior": "NLL, z from the prior (nats per sentence)",
    "nll_shuffled": "NLL, z of another sentence (nats per sentence)",
    "nll_zero": "NLL, z = 0 (nats per sentence)",
    "mutual_information": "Mutual information of sentence and z under q (nats)",
    "active_units_0.01": "Active units (variance of the posterior mean above 0.01)",
    "ppl_per_word_iw": "Perplexity per word, importance-weighted bound",
    "ppl_per_token_iw": "Perplexity per token, importance-weighted bound",
    "language_model_nll": "NLL, the same model trained without z (nats per sentence)",
    "entropy": "Exact entropy of the data (nats per sentence)",
    "reconstruction_at_mean_exact_match": "Share of sentences reconstructed exactly from the posterior's mean",
    "reconstruction_at_mean_bleu": "BLEU of reconstructions from the posterior's mean",
    "bleu": "BLEU, average output",
    "best_bleu": "BLEU, best of the outputs",
    "chrf": "chrF, average output",
    "best_chrf": "chrF, best of the outputs",
    "ter": "TER, average output (lower: closer)",
    "best_ter": "TER, best of the outputs (lower: closer)",
    "ibleu": "iBLEU (α = 0.8)",
    "self_bleu": "self-BLEU (lower: more diverse)",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "copy_bleu": "BLEU of copying the source",
    "copy_ibleu": "iBLEU of copying the source",
    "grammatical": "Share of grammatical outputs",
    "arithmetic": "Share of analogies in z that change the wanted factor alone",
    "midpoints_grammatical": "Share of grammatical midpoints between sentences",
    "meaning_kept": "Share of outputs that keep the meaning",
    "distinct_correct_in_10": "Distinct correct paraphrases in 10",
    "valid_reply": "Share of replies that are right",
    "distinct_valid_in_10": "Distinct right replies in 10",
    "act_match": "Share of replies that are right and perform the predicted act",
    **{
        f"{name}_{side}": f"{label}, {side} over the references"
        for name, label in {
            **{f"bleu_{order}": f"BLEU-{order}" for order in range(1, 5)},
            "a_bow": "A-bow", "e_bow": "E-bow", "act": "Dialogue act",
        }.items()
        for side in ("precision", "recall")
    },
    "distinct_1_inter": "distinct-1 within the replies to a context",
    "distinct_2_inter": "distinct-2 within the replies to a context",
}  # fmt: skip


# The captions of the pictures that a card shows if they lie beside it.
PICTURES = {
    "training.png": "Reconstruction, KL and KL weight in training",
    "latent.png": "The KL of each dimension of z, and the posterior means of held-out texts against the prior",
    "interpolation.png": "From one held-out text to another in z",
}


def make_model_card(model: PreTrainedModel, record: RunRecord, pictures: Collection[str] = ()) -> ModelCard:
    """
    Makes the card of a trained model.

    Args:
        model ([`VAEModel`]): the model.
        record ([`RunRecord`]): the record of its training.
        pictures (`list[str]`): files beside the card. Those of `PICTURES` are shown.

    Raises:
        ValueError: the record has no figure that the card could show.
    """
    shown = {name: float(record.metrics[name]) for name in METRIC_NAMES if record.metrics.get(name) is not None}
    if not shown:
        raise ValueError("`record.metrics` holds none of the known figures; measure the model before its card is written.")
    data = ModelCardData(
        language=record.language,
        license=record.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["hf_vae", "variational-autoencoder", model.config.model_type],
        base_model=list(record.base_models) or None,
        datasets=list(record.dataset_ids) or None,
        model_name=" ".join(record.name.split()),
        eval_results=[
            EvalResult(
                task_type="text-generation",
                task_name=model.config.model_type,
                dataset_type="custom" if not record.dataset_ids else record.dataset_ids[0],
                dataset_name=" ".join(record.dataset.split()),
                metric_type=name,
                metric_name=METRIC_NAMES[name],
                metric_value=round(value, 4),
            )
            for name, value in shown.items()
            # The Hub's metadata is JSON, which has neither infinity nor NaN.
            if math.isfinite(value)
        ],
    )
    example = record.example or (record.samples[0][0] if record.samples else "your sentence")
    return ModelCard.from_template(
        data,
        template_str=files(__package__).joinpath("model_card_template.md").read_text(encoding="utf-8"),
        as_text=as_text,
        code_block=code_block,
        record=record,
        example=example[:LONGEST] if isinstance(example, str) else example,
        config=model.config,
        model_class=type(model).__name__,
        task=cast(Any, model).pipeline_class.default_task,
        num_parameters=f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M",
        rows=[
            (METRIC_NAMES[name], f"{value:.3f}", "–" if record.baseline.get(name) is None else f"{record.baseline[name]:.3f}")
            for name, value in shown.items()
        ],
        pictures=[(caption, name) for name, caption in PICTURES.items() if name in pictures],
        paper=paper_of(model.config.model_type),
    )


def write_model_card(model: PreTrainedModel, record: RunRecord, directory: str | Path) -> Path:
    """Writes the card of [`make_model_card`] to `README.md` in the model's directory, with the pictures that lie there."""
    path = Path(directory) / "README.md"
    write_whole(path, str(make_model_card(model, record, {each.name for each in Path(directory).iterdir()})))
    return path
