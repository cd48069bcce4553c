"""The arguments of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from .data import FileArguments
from .saved_model import SavedModelArguments


@dataclass
class ModelArguments(SavedModelArguments):
    language_model: str | None = field(
        default=None,
        metadata={"help": "Hub id or path of a causal language model, measured on the same texts; with its own tokenizer, if any."},
    )
    language_model_nll: float | None = field(
        default=None, metadata={"help": "The NLL of a language model, if it is known: nats per sentence, EOS counted."}
    )


@dataclass(kw_only=True)
class DataArguments(FileArguments):
    file: str = field(
        metadata={"help": "Text file of one sentence a line, JSON lines, CSV or TSV with columns, or a dataset's name."}
    )
    split: str = field(default="test", metadata={"help": "Split of a named dataset; a file is read whole."})
    text_column: str = field(default="text", metadata={"help": "VAE: column of the sentences, if the file has columns."})
    source_column: str = field(default="source", metadata={"help": "Conditional models: column of the sources."})
    target_column: str = field(
        default="targets", metadata={"help": "Conditional models: column of the targets; of several the first is scored."}
    )
    max_samples: int | None = field(default=None, metadata={"help": "Use this many rows at most, from the first."})
    max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens that the encoder reads; a longer one is truncated."}
    )
    max_target_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest target in tokens, EOS included; a longer one is truncated, and its metrics are the truncated text's."
        },
    )


@dataclass
class EvaluationArguments:
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the importance-weighted bound."})
    refine_steps: int = field(default=0, metadata={"help": "Gradient steps on each example's own posterior; 0 leaves it out."})
    batch_size: int = field(default=64, metadata={"help": "Examples at once."})
    chunk: int | None = field(
        default=None,
        metadata={"help": "Samples of z of each example decoded at once; 1 on a CPU, 8 elsewhere. More if no layer reads z."},
    )
    seed: int = field(default=0, metadata={"help": "Random seed."})
    metrics_tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "sacrebleu's tokenizer for perplexity per word and BLEU: 13a, intl, zh, ja-mecab, ko-mecab, char, ... Texts "
            "without spaces between words need one."
        },
    )
    output_file: str | None = field(default=None, metadata={"help": "JSON file for the metrics."})
    compare_with: list[str] = field(
        default_factory=list, metadata={"help": "JSON files of other models' metrics, for a table of rate and distortion."}
    )
    plot_file: str | None = field(default=None, metadata={"help": "Picture of that table."})


@dataclass
class FrontierArguments:
    """Quality against diversity."""

    frontier: bool = field(
        default=False,
        metadata={"help": "Conditional models: also how good and how different a source's outputs are, decoded in several ways."},
    )
    frontier_baseline: str | None = field(
        default=None,
        metadata={
            "help": "With frontier: Hub id or path of the same model trained without z, to compare with; training with "
            "--with_baseline leaves it in baseline/."
        },
    )
    frontier_outputs: int = field(default=10, metadata={"help": "With frontier: outputs of each source."})
    frontier_embedder: str | None = field(
        default=None,
        metadata={"help": "With frontier: Hub id or path of an encoder, whose cosine says how much of its source an output keeps."},
    )
    frontier_plot: str | None = field(default=None, metadata={"help": "With frontier: picture of it."})
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "With frontier: longest output in tokens; the model's own default if not given."}
    )
