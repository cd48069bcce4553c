"""The arguments of `train cvae`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import PairArguments
from ..model import ConditionalArguments
from ..report import PairEvaluationArguments


@dataclass
class CVAEArguments(ConditionalArguments):
    prior_type: str = field(default="conditional", metadata={"help": "conditional: a network p(z|x). standard: N(0, I)."})


@dataclass
class DataArguments(PairArguments):
    given: float | None = field(
        default=None,
        metadata={"help": "Share of each text's words that is given, 0.25 for the first quarter; the rest is to be generated."},
    )
    text_column: str = field(default="text", metadata={"help": "With given: column of the texts, if the rows have columns."})
    num_dialogues: int = field(default=60_000, metadata={"help": "Embedded dialogues: training contexts with a reply each."})


@dataclass
class EvaluationArguments(PairEvaluationArguments):
    num_outputs: int = field(default=10, metadata={"help": "Outputs for each test source."})
