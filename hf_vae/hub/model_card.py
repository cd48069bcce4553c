"""Model cards that are written from a run's own record."""

from __future__ import annotations

import math
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from ..evaluation.metrics import known_metrics
from ..training.files import write_whole
from ..variants import paper_of
from .attribute_section import attribute_section
from .markdown import LONGEST, as_text, code_block
from .run_record import RunRecord

# The captions of the pictures that a card shows if they lie beside it.
PICTURES = {
    "training.png": "Reconstruction, KL and KL weight in training",
    "latent.png": "The KL of each dimension of z, and the posterior means of held-out texts against the prior",
    "interpolation.png": "From one held-out text to another in z",
}


def make_model_card(model: PreTrainedModel, record: RunRecord, pictures: Collection[str] = ()) -> ModelCard:
    """
    Makes the card of a trained model. If it holds attributes, the card lists them, and shows how to ask for one.

    Args:
        model ([`VAEModel`]): the model.
        record ([`RunRecord`]): the record of its training.
        pictures (`list[str]`): files beside the card. Those of `PICTURES` are shown.

    Raises:
        ValueError: the record has no metric that the card could show.
    """
    shown = [metric for metric in known_metrics(record.metrics) if not metric.detail and record.metrics[metric.name] is not None]
    if not shown:
        raise ValueError("`record.metrics` holds none of the known metrics; measure the model before its card is written.")
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
                metric_type=metric.name,
                metric_name=metric.title,
                metric_value=round(float(record.metrics[metric.name]), 4),
            )
            for metric in shown
            # The Hub's metadata is JSON, which has neither infinity nor NaN.
            if math.isfinite(record.metrics[metric.name])
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
            (metric.title, *(_shown(values.get(metric.name)) for values in (record.metrics, record.baseline))) for metric in shown
        ],
        pictures=[(caption, name) for name, caption in PICTURES.items() if name in pictures],
        paper=paper_of(model.config.model_type),
        attributes=attribute_section(cast(Any, model).latent_attributes, model.config.is_conditional),
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def write_model_card(model: PreTrainedModel, record: RunRecord, directory: str | Path) -> Path:
    """Writes the card of [`make_model_card`] to `README.md` in the model's directory, with the pictures that lie there."""
    path = Path(directory) / "README.md"
    write_whole(path, str(make_model_card(model, record, {each.name for each in Path(directory).iterdir()})))
    return path
