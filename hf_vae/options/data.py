"""The arguments of the data: files, columns and lengths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class FileArguments:
    """How files of texts are to be read."""

    encoding: str | None = field(
        default=None, metadata={"help": "Encoding of files, such as latin-1. Default: what a byte order mark says, else UTF-8."}
    )
    quoting: str | None = field(
        default=None,
        metadata={
            "help": "Of .csv and .tsv files. minimal, the default of .csv: cells may stand in quotation marks; none, the default "
            "of .tsv: quotation marks are text."
        },
    )

    @property
    def file_options(self) -> dict[str, Any]:
        """Arguments of the functions that read files."""
        return {"encoding": self.encoding, "quoting": self.quoting}


@dataclass
class SplitArguments(FileArguments):
    """The files of the three splits. That of the training may be read while it is trained on."""

    train_file: str | None = field(
        default=None, metadata={"help": "JSON lines, CSV or a dataset's name. Without it: the embedded corpus."}
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "As train_file; measured while training with --eval_strategy, and at the end without a test_file."},
    )
    test_file: str | None = field(default=None, metadata={"help": "As train_file; measured at the end. Default: validation_file."})
    own_data: bool = field(
        default=False,
        metadata={"help": "For recipes: the settings are for data of your own; refuse to run without a train_file."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on this many rows at most, from the first."})
    streaming: bool = field(
        default=False, metadata={"help": "Read the train_file while training, tokenised on the fly; needs --max_steps."}
    )
    shuffle_buffer: int = field(
        default=10_000, metadata={"help": "With streaming: pairs that are held to draw the next one from; 1 keeps their order."}
    )
    first_rows: int = field(
        default=10_000,
        metadata={"help": "With streaming: first pairs that a vocabulary is learnt from, and what else is known of the data."},
    )


@dataclass
class PairArguments(SplitArguments):
    """Sources and targets: where they stand in a row, and how long they may be."""

    source_column: str = field(default="source", metadata={"help": "Column of the sources."})
    target_column: str = field(default="targets", metadata={"help": "Column of the targets: one text or a list."})
    max_source_length: int = field(default=64, metadata={"help": "Longest source in tokens; a longer one is truncated."})
    max_target_length: int = field(
        default=64, metadata={"help": "Longest target in tokens with its EOS; a longer one is truncated."}
    )
