"""The paraphrase and dialogue metrics as `evaluate` metrics, which need no network."""

from __future__ import annotations

import datasets
import evaluate

from .dialog_metrics import dialog_metrics
from .text_metrics import paraphrase_metrics


class ParaphraseMetric(evaluate.Metric):
    """
    [`paraphrase_metrics`] behind `evaluate`'s interface:

    ```python
    ParaphraseMetric().compute(predictions=outputs, references=references, sources=sources)
    ```

    with a list of outputs and a list of references for each source, and `tokenize` as there.
    """

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Quality and diversity of several paraphrases of each source.",
            citation="",
            inputs_description="Lists of outputs and of references for each source, and the sources.",
            features=datasets.Features({"predictions": datasets.List(texts), "references": datasets.List(texts), "sources": texts}),
        )

    def _compute(self, predictions, references, sources, tokenize=None) -> dict[str, float]:
        return paraphrase_metrics(sources, predictions, references, tokenize)


class DialogMetric(evaluate.Metric):
    """
    [`dialog_metrics`] behind `evaluate`'s interface:

    ```python
    DialogMetric().compute(predictions=replies, references=references)
    ```

    with a list of replies and a list of references for each context. The acts of both, if they are known, go to `compute` as
    `hypothesis_acts` and `reference_acts`, and `tokenize` is as there.
    """

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Precision and recall of several replies to a dialogue context against several references; diversity.",
            citation="",
            inputs_description="Lists of replies and of references for each context.",
            features=datasets.Features({"predictions": texts, "references": texts}),
        )

    def _compute(self, predictions, references, hypothesis_acts=None, reference_acts=None, tokenize=None) -> dict[str, float]:
        return dialog_metrics(predictions, references, hypothesis_acts, reference_acts, tokenize)
