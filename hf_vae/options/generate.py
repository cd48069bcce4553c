"""The arguments of `generate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from .data import FileArguments


@dataclass(kw_only=True)
class SourceArguments(FileArguments):
    file: str = field(
        metadata={
            "help": "The sources: text file of one a line, JSON lines, CSV or TSV with columns, or a dataset's name. For a "
            "dialogue model JSON lines of turns."
        }
    )
    split: str = field(default="test", metadata={"help": "Split of a named dataset; a file is read whole."})
    source_column: str | None = field(default=None, metadata={"help": "Column of the sources. Default: source, else text."})
    max_samples: int | None = field(default=None, metadata={"help": "Use this many rows at most, from the first."})
    max_length: int | None = field(
        default=None, metadata={"help": "Longest source in tokens that is read; a longer one is truncated, not refused."}
    )


@dataclass(kw_only=True)
class GenerateArguments:
    output: str = field(
        metadata={"help": "JSON lines for the outputs. If the same command has begun this file, it goes on where it stopped."}
    )
    num_outputs: int = field(
        default=10, metadata={"aliases": ["--num"], "help": "Outputs of each source, each with a z of its own; --num for short."}
    )
    seed: int = field(default=0, metadata={"help": "Random seed."})
    latent_source: str | None = field(
        default=None,
        metadata={"help": "What z is drawn from. Default: posterior of a VAE's sources, prior of a conditional model."},
    )
    latent_temperature: float | None = field(
        default=None, metadata={"help": "Factor on the spread of z; 0 gives the likeliest z. Default: the model's."}
    )
    latent_spread: str | None = field(
        default=None,
        metadata={"help": "How the z of one source lie to each other: independent, quasi_random, ... Default: the model's."},
    )
    max_new_tokens: int | None = field(default=None, metadata={"help": "Longest output in tokens. Default: the model's."})
    num_beams: int | None = field(default=None, metadata={"help": "Beams for each z. Default: the model's, as a rule 1."})
    do_sample: bool = field(
        default=False, metadata={"help": "Draw tokens too, with random numbers of the row's own, and do not take the likeliest."}
    )
    temperature: float | None = field(default=None, metadata={"help": "With do_sample: the scores are divided by it."})
    top_k: int | None = field(default=None, metadata={"help": "With do_sample: draw one of so many likeliest tokens; 0: of all."})
    top_p: float | None = field(default=None, metadata={"help": "With do_sample: draw one of the likeliest tokens of this share."})
    batch_size: int = field(default=32, metadata={"help": "Sources at once."})
    block_size: int = field(
        default=512,
        metadata={"help": "Sources that the processes share and that are written together; a kill loses no more than these."},
    )
