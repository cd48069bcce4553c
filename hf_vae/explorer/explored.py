"""A model with its processor and its texts, as the panels of a page use them: one for all who look at it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor

import hf_vae

from ..encoders import longest_text, reserved_positions
from ..evaluation import LikelihoodEvaluator
from ..hub.saved_model import saved_config
from ..latent_distribution import LatentDistribution
from ..latent_space import decode_latents, encode_texts, sample_prior
from ..modeling_vae import VAEModel
from ..processing_dialog import DialogCVAEProcessor
from ..processing_vae import VAEProcessor, is_text
from ..unknown_words import WARN_ABOVE, texts_in, unknown_share
from .corpus import MOST_POINTS, Corpus, embedded_corpus, read_corpus

# The longest text that a page asks for.
MOST_NEW_TOKENS = 64


@dataclass
class Explored:
    """
    Args:
        model ([`VAEModel`]): any model of the family; put into evaluation mode.
        processor ([`VAEProcessor`]): its processor.
        name (`str`): what the page calls it; its folder or its name on the Hub, where its card is looked for.
        corpus ([`Corpus`], *optional*): the texts of the map.
        max_new_tokens (`int`, *optional*): of every text that is written; by default 64, or half of what the decoder holds.

    Attributes:
        lock: is held by whoever uses the model, because several people may look at one page.
    """

    model: VAEModel
    processor: VAEProcessor
    name: str = "model"
    corpus: Corpus | None = None
    max_new_tokens: int | None = None
    lock: Any = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self):
        self.model.eval()
        if self.max_new_tokens is None:
            holds = self.model.decoder.longest_text
            self.max_new_tokens = MOST_NEW_TOKENS if holds is None else max(1, min(MOST_NEW_TOKENS, holds // 2))

    @property
    def is_conditional(self) -> bool:
        """Whether a text has a source."""
        return self.model.config.is_conditional

    @property
    def is_dialog(self) -> bool:
        """Whether sources are dialogues."""
        return isinstance(self.processor, DialogCVAEProcessor)

    @property
    def has_posterior(self) -> bool:
        """Whether a text has a code."""
        return self.model.config.has_posterior and self.processor.embedding_size is None

    def check_posterior(self) -> None:
        """Raises a `ValueError` if texts have no codes."""
        if self.processor.embedding_size is not None:
            raise ValueError(_reads_vectors(self.processor.embedding_size) + " Draw from the prior.")
        if not self.has_posterior:
            raise ValueError(
                "This model has no posterior (it was trained with `objective='gsnn'`), so a text has no code. Draw from the prior."
            )

    def as_source(self, written: str | None) -> Any:
        """
        What is written in a field as the processor takes it: of a dialogue each line is a turn, and the speakers take turns. A
        model without sources has `None`.

        Raises:
            ValueError: nothing is written, and the model needs a source.
        """
        if not self.is_conditional:
            return None
        if not is_text(written):
            raise ValueError("The source is empty: this model writes with a source in view.")
        assert written is not None
        if not isinstance(self.processor, DialogCVAEProcessor):
            return written.strip()
        lines = [line.strip() for line in written.splitlines() if line.strip()]
        roles = ("user", "assistant")
        # The last turn is the one that is answered.
        messages = [{"role": roles[(len(lines) - 1 - number) % 2], "content": line} for number, line in enumerate(lines)]
        return {"messages": messages, "role": "assistant", "meta": self.meta}

    @property
    def meta(self) -> dict[str, Any] | None:
        """What the model reads of a dialogue besides its turns: of the first known dialogue, or else any."""
        if not isinstance(self.processor, DialogCVAEProcessor):
            return None
        if self.corpus is not None and self.corpus.sources and self.corpus.sources[0].get("meta"):
            return self.corpus.sources[0]["meta"]
        categories = {name: values[0] for name, values in self.processor.meta_categories.items()}
        return {**categories, **dict.fromkeys(self.processor.meta_values, 0.0)} or None

    def written_source(self, row: int) -> str:
        """The source of a text of the corpus, as [`~Explored.as_source`] reads it; empty if there is none."""
        if self.corpus is None or self.corpus.sources is None or not len(self.corpus):
            return ""
        source = self.corpus.sources[row]
        return source if isinstance(source, str) else "\n".join(" ".join(each.split()) for each in texts_in([source]))

    def example(self, number: int = 0) -> str:
        """A text to begin with; empty if none is known."""
        return "" if self.corpus is None or len(self.corpus) <= number else self.corpus.texts[number]

    def note_on(self, *texts: str | None) -> str:
        """What is to be said of words that the model does not know; empty if there are none."""
        given = [text for text in texts if text is not None and is_text(text)]
        # A model of given vectors has one tokenizer.
        tokenizers = [each for each in (self.processor.encoder_tokenizer, self.processor.tokenizer) if each is not None]
        share = max(unknown_share(each, given) for each in tokenizers)
        if share <= WARN_ABOVE:
            return ""
        return (
            f"{100 * share:.0f} % of these words are not in the model's vocabulary. It knows the words of its training texts, and "
            "what it writes here says little."
        )

    def encode(self, texts: list[str], sources: list[Any] | None = None) -> LatentDistribution:
        """q of each text, `ValueError`s as of [`encode_texts`]."""
        self.check_posterior()
        with self.lock:
            return encode_texts(self.model, self.processor, texts, sources)

    def decode(self, latents: torch.Tensor, source: Any = None) -> list[str]:
        """A text for each z, all with the same source."""
        with self.lock:
            conditioning = {} if source is None else dict(self.processor(source))
            return decode_latents(self.model, self.processor, latents, max_new_tokens=self.max_new_tokens, **conditioning)

    @cached_property
    def longest(self) -> int | None:
        """Tokens of a text, or of a text and of its source each, that the encoder holds; `None`: any number."""
        most = longest_text(self.model.encoder.config, reserved_positions(self.model.encoder))
        return most if most is None or not self.is_conditional else most // 2

    @cached_property
    def posterior(self) -> LatentDistribution:
        """
        q of each text of the corpus. What is longer than the encoder holds is cut.

        Raises:
            ValueError: there are no texts, or they have no codes.
        """
        self.check_posterior()
        if self.corpus is None:
            raise ValueError("There is no file of texts: name one with `--file`, or draw from the prior.")
        with self.lock:
            return encode_texts(self.model, self.processor, self.corpus.texts, self.corpus.sources, max_length=self.longest)

    @cached_property
    def cut(self) -> int:
        """How many texts of the corpus the encoder does not read whole."""
        if self.corpus is None or not self.has_posterior or self.longest is None:
            return 0
        rows = self.processor.encoder_tokenizer(self.corpus.texts)["input_ids"]
        return sum(len(row) > self.longest for row in rows)

    @cached_property
    def codes(self) -> torch.Tensor:
        """z of each text of the corpus, `(texts, latent_size)`: of a draw its own, else the mode of q."""
        if self.corpus is not None and self.corpus.latents is not None:
            return self.corpus.latents
        return self.posterior.mode()

    @cached_property
    def unit_kl(self) -> torch.Tensor | None:
        """Mean KL(q ‖ p) of each unit of z over the corpus, nats, `(latent_size,)`; `None` without a closed form."""
        if self.corpus is None or not self.has_posterior:
            return None
        posterior = self.posterior
        with self.lock:
            prior = self.evaluator(range(len(self.corpus))).prior() if self.is_conditional else self.one_prior()
            kl = posterior.kl(prior)
        return None if kl is None or kl.shape[-1] != self.model.config.total_latent_size else kl.mean(0)

    def one_prior(self) -> LatentDistribution:
        """p(z) of a model without sources, one row."""
        with torch.no_grad():
            return self.model.prior(batch_size=1).latent_dist.to("cpu")

    def evaluator(self, rows: range) -> LikelihoodEvaluator:
        """Some examples of the corpus, to be measured. What is longer than the model holds is cut."""
        assert self.corpus is not None
        some = self.corpus.select(rows)
        lengths: dict[str, Any] = {}
        if self.longest is not None:
            lengths = {"max_length": self.longest, "max_target_length": self.longest}
        return LikelihoodEvaluator(self.model, self.processor, some.sources or some.texts, some.texts, **lengths)

    def draw(self, number: int, seed: int, written_source: str | None = None) -> Corpus:
        """Texts that the model writes from draws of its prior, of one source if it needs one."""
        source = self.as_source(written_source)
        with self.lock:
            conditioning = {} if source is None else dict(self.processor(source))
            options = {"max_new_tokens": self.max_new_tokens, **conditioning}
            drawn = sample_prior(self.model, self.processor, number, seed=seed, **options)
        return Corpus(
            texts=[text or "(empty)" for text in drawn.texts],
            origin=f"{number:,} draws from the prior, decoded greedily, with seed {seed}.",
            sources=None if source is None else [source] * number,
            latents=drawn.latents,
        )


def load_explored(
    model: str | None = None, file: str | None = None, most: int = MOST_POINTS, seed: int = 0, **reading: Any
) -> Explored:
    """
    Loads what a page shows.

    Args:
        model (`str`, *optional*): the folder of a model of the family, its name on the Hub, or `"sentences"` or `"paraphrase"`, the
            models that come with the package. By default the first of these.
        file (`str`, *optional*): texts, as [`read_corpus`] reads them. By default the packaged models have sentences of the
            embedded grammar, a VAE has draws from its prior, and a conditional model none, until it is given a source.
        most (`int`, defaults to 2000): texts at most; of more, a sample.
        seed (`int`, defaults to 0): of the sample and of the draws.
        reading: further options of [`read_corpus`].

    Raises:
        OSError: there is no such model or file.
        ValueError: a model that is not one of the family, a file that cannot be read, or one for a model that reads given vectors.
    """
    packaged = model is None or model in ("sentences", "paraphrase")
    name = model or "sentences"
    folder = hf_vae.demo(name) if packaged else name
    size = saved_config(folder, name).embedding_size
    if size is not None and file is not None:
        raise ValueError(f"{_reads_vectors(size)} Leave `--file` out, and the page shows draws from the prior.")
    processor = AutoProcessor.from_pretrained(folder)
    # Before the weights are loaded, which may take long.
    corpus = read_corpus(file, processor, most=most, seed=seed, **reading) if file else None
    explored = Explored(AutoModel.from_pretrained(folder), processor, folder, corpus)
    if packaged and corpus is None:
        explored.corpus = embedded_corpus(processor, min(most, 1000), seed)
    elif corpus is None and not explored.is_conditional:
        explored.corpus = explored.draw(min(most, 500), seed)
    return explored


def _reads_vectors(size: int) -> str:
    return f"This model reads vectors of {size} numbers in the place of texts, so a text has no code."
