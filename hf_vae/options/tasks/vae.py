"""The arguments of `train vae`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import SplitArguments
from ..report import ReportArguments


@dataclass
class DataArguments(SplitArguments):
    train_file: str | None = field(
        default=None, metadata={"help": "Text lines, JSON lines, CSV or a dataset's name. Without it: the embedded grammar."}
    )
    text_column: str = field(default="text", metadata={"help": "Column of the sentences, if the rows have columns."})
    max_length: int = field(default=64, metadata={"help": "Longest sentence in tokens with its EOS; a longer one is truncated."})
    grammar_sentences: int = field(default=60_000, metadata={"help": "Embedded grammar: training sentences."})


@dataclass
class EvaluationArguments(ReportArguments):
    max_test_samples: int | None = field(
        default=None, metadata={"help": "Test sentences to measure on, from the first; all by default."}
    )
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the importance-weighted bound."})
    refine_steps: int = field(
        default=0, metadata={"help": "Gradient steps on each test sentence's own posterior; 0 leaves it out."}
    )
    max_new_tokens: int = field(default=40, metadata={"help": "Longest sentence to generate."})
    with_baseline: bool = field(
        default=False,
        metadata={"help": "Also train and measure the same model without z, a language model, and keep it in baseline/."},
    )
