"""The arguments of `explore`."""

from __future__ import annotations

from dataclasses import dataclass, field

from .data import FileArguments


@dataclass
class ExploreArguments(FileArguments):
    model: str | None = field(
        default=None,
        metadata={
            "help": "Directory or Hub name of a model of hf_vae, or sentences or paraphrase, the two that come with the package. "
            "Default: sentences."
        },
    )
    file: str | None = field(
        default=None,
        metadata={
            "help": "Texts of the map: a text file of one sentence a line, JSON lines, CSV or TSV with columns, or a dataset's "
            "name. Default: draws from the prior."
        },
    )
    split: str = field(default="test", metadata={"help": "Split of a named dataset; of a file rows are drawn from the whole."})
    text_column: str = field(default="text", metadata={"help": "VAE: column of the sentences, if the file has columns."})
    source_column: str = field(default="source", metadata={"help": "Conditional models: column of the sources."})
    target_column: str = field(
        default="targets", metadata={"help": "Conditional models: column of the targets; of several the first is shown."}
    )
    max_points: int = field(default=2000, metadata={"help": "Points of the map at most; of more rows a sample is drawn."})
    port: int | None = field(default=None, metadata={"help": "Port of the page. Default: the first free one from 7860 on."})
    open_browser: bool = field(default=False, metadata={"help": "Open the page in the browser."})
    seed: int = field(default=0, metadata={"help": "Random seed of the sample, and of the first draws."})
