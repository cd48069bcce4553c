"""The arguments of what is measured, while a model trains and at the end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ReportArguments:
    """Whether z is used, looked at while training, and where the result may lie."""

    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Train anew where a finished model lies, and put the new one in its place."}
    )
    collapse_report_samples: int = field(
        default=200,
        metadata={"help": "With --eval_strategy: validation examples of the collapse report at every evaluation; 0: none."},
    )
    metrics_tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "sacrebleu's tokenizer for metrics of words: 13a, intl, zh, ja-mecab, ko-mecab, char, ... Texts without spaces "
            "between words need one."
        },
    )


@dataclass
class PairEvaluationArguments(ReportArguments):
    """How a model of pairs is measured at the end."""

    max_test_samples: int = field(default=500, metadata={"help": "Test sources to measure on, from the first."})
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the bounds on the likelihood."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest output to generate, in tokens."})
    latent_temperature: float = field(
        default=1.0, metadata={"help": "Factor on the spread of z in the outputs measured; becomes the model's default."}
    )
    latent_spread: str = field(
        default="independent",
        metadata={
            "help": "How the z of one source lie to each other: independent, quasi_random, repelled or antithetic; becomes the "
            "model's default."
        },
    )
    with_baseline: bool = field(
        default=False, metadata={"help": "Also train and measure the same model without z, and keep it in baseline/."}
    )
