"""What the command that trains asks of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset, IterableDataset
from transformers import TrainingArguments

from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor


@dataclass
class Measured:
    """
    What a task has measured, and what a stranger is shown of it.

    Args:
        metrics (`dict`): as they are written.
        baseline (`dict`): those that the card shows of the same model without z; none without a baseline.
        measured_on (`str`): how many examples of which split, and how they were decoded.
        samples (`list[tuple[str, list[str]]]`): sources with outputs, for the card.
        printed (`str`): the samples as the terminal shows them.
        pictures (`dict`): by file name, what draws each.
        outputs (`list[list[str]]`): several for each source, each with a z of its own.
        example (*optional*): what the card's code gives the processor; the first sample's source by default.
    """

    metrics: dict[str, Any]
    baseline: Mapping[str, float]
    measured_on: str
    samples: Sequence[tuple[str, Sequence[str]]]
    printed: str
    pictures: Mapping[str, Callable[[Path], object]]
    outputs: Sequence[Sequence[str]]
    example: Any = None


@dataclass
class Task(ABC):
    """
    One run of a task, from its arguments to what is measured. `load` sets the data: `train`, rows of `source` and `target`;
    `validation` and `test`, rows of `source` and `targets`.
    """

    model_args: Any
    data_args: Any
    evaluation_args: Any
    training_args: TrainingArguments
    train: Dataset = field(init=False)
    validation: Dataset = field(init=False)
    test: Dataset = field(init=False)

    # Of the command, of its recipe, and of the folder that it writes by default.
    name: ClassVar[str]
    model_class: ClassVar[type[VAEModel]]
    processor_class: ClassVar[type[VAEProcessor]]
    # Dataclasses of the model's, the data's and the evaluation's arguments.
    arguments: ClassVar[tuple[type, type, type]]
    # The embedded corpus, in a card's words.
    corpus: ClassVar[str]

    @property
    def on_embedded(self) -> bool:
        """Whether the data is the embedded corpus, of which everything is known."""
        return self.data_args.train_file is None

    @property
    @abstractmethod
    def lengths(self) -> dict[str, int]:
        """The processor's `max_length` and `max_target_length`."""

    @property
    def generation(self) -> dict[str, Any]:
        """What becomes the model's default when it generates."""
        return {"max_new_tokens": self.evaluation_args.max_new_tokens}

    @abstractmethod
    def check(self) -> None:
        """Raises a `ValueError` for what can be refused before anything is computed or written."""

    @abstractmethod
    def load(self) -> None:
        """Loads the data; of a stream the first rows."""

    @abstractmethod
    def stream(self) -> IterableDataset:
        """The training rows, read as they are asked for."""

    @abstractmethod
    def build(self) -> tuple[Any, VAEProcessor]:
        """The model, frozen or with adapters as the arguments say, and its processor."""

    @abstractmethod
    def measure(self, model: Any, processor: VAEProcessor, baseline: Callable[[], Any] | None) -> Measured:
        """
        Measures the trained model on held-out data.

        Args:
            baseline (`Callable`, *optional*): builds and trains the same model without z, if it is wanted.
        """
