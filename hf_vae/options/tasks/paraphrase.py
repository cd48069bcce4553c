"""The arguments of `train paraphrase`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import PairArguments
from ..report import PairEvaluationArguments


@dataclass
class DataArguments(PairArguments):
    pairing: str = field(
        default="targets",
        metadata={"help": "Pairs to train on: source to targets, or, of paraphrases, both_ways, or all texts of a row."},
    )
    grammar_pairs: int = field(default=60_000, metadata={"help": "Embedded grammar: training pairs, a meaning each."})


@dataclass
class EvaluationArguments(PairEvaluationArguments):
    num_paraphrases: int = field(default=10, metadata={"help": "Paraphrases of each test source."})
