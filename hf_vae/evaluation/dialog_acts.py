"""Acts of replies: which one a model means to perform, and which one a text performs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ..modeling_dialog_cvae import DialogCVAEModel
from ..processing_dialog import DialogCVAEProcessor
from .example_batch import ExampleBatch
from .generation import draw_latents
from .held_out import HeldOutPairs


@torch.no_grad()
def predict_acts(held_out: HeldOutPairs, model: DialogCVAEModel) -> list[list[str]]:
    """The likeliest act under p(a|x,z) for each of the z with which [`HeldOutPairs.measure`] generates, by name."""
    names = cast(DialogCVAEProcessor, held_out.processor).acts or []

    def predict(batch: ExampleBatch) -> list[list[str]]:
        drawn = (held_out.num_outputs, held_out.latent_temperature, held_out.seed)
        latents = draw_latents(model, batch.source, batch.indices, *drawn)
        context = cast(torch.Tensor, batch.source.vector).repeat_interleave(held_out.num_outputs, 0)
        likeliest = model.predict_acts(latents.flatten(0, 1), context).argmax(-1).view(len(batch.indices), -1)
        return [[names[act] for act in row] for row in likeliest.tolist()]

    return held_out.evaluator(model).map(predict, "predicting acts")


class ActClassifier:
    """
    A text's act by logistic regression on its words and pairs of words (scikit-learn), as a judge of generated replies.

    Args:
        texts (`list[str]`): turns.
        acts (`list[str]`): the act of each; turns whose act is `None` are left out.
        seed (`int`, defaults to 0): of the regression.

    Raises:
        ValueError: fewer than two different acts.
    """

    def __init__(self, texts: Sequence[str], acts: Sequence[str | None], seed: int = 0):
        # Here: importing scikit-learn takes a second, which `import hf_vae` should not.
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        known = [(text, act) for text, act in zip(texts, acts, strict=True) if act is not None]
        if len({act for _, act in known}) < 2:
            raise ValueError(f"`acts` are {sorted({act for _, act in known})}; a classifier needs at least two different ones.")
        words = TfidfVectorizer(lowercase=True, token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        self.pipeline = make_pipeline(words, LogisticRegression(C=10.0, max_iter=200, random_state=seed))
        self.pipeline.fit(*zip(*known))

    def __call__(self, texts: Sequence[Sequence[str]]) -> list[list[str]]:
        """The act of each of several texts to each context."""
        labels = iter(self.pipeline.predict([text for row in texts for text in row]))
        return [[str(next(labels)) for _ in row] for row in texts]

    def accuracy(self, texts: Sequence[str], acts: Sequence[str | None]) -> float:
        """Share of `texts` that get their own act, of those whose act is known."""
        known = [(text, act) for text, act in zip(texts, acts, strict=True) if act is not None]
        return float(self.pipeline.score(*zip(*known)))
