"""The paraphrase metrics as an `evaluate` metric, which needs no network."""

from __future__ import annotations

import datasets
import evaluate

from .text_metrics import paraphrase_metrics


class ParaphraseMetric(evaluate.Metric):
    """
    [`paraphrase_metrics`] behind `evaluate`'s interface:

    ```python
    ParaphraseMetric().compute(predictions=outputs, references=references, sources=sources)
    ```

    with a list of outputs and a list of references for each source.
    """

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Quality and diversity of several paraphrases of each source.",
            citation="",
            inputs_description="Lists of outputs and of references for each source, and the sources.",
            features=datasets.Features({"predictions": datasets.List(texts), "references": datasets.List(texts), "sources": texts}),
        )

    def _compute(self, predictions, references, sources) -> dict[str, float]:
        return paraphrase_metrics(sources, predictions, references)
