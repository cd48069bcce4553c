"""Acts of replies: which one a text performs."""

from __future__ import annotations

from collections.abc import Sequence


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
