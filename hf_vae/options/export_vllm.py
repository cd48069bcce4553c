"""The arguments of `export-vllm`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ExportArguments:
    model_name_or_path: str = field(
        metadata={"help": "Hub id or path of a model of hf_vae, or of an adapter of one, which is merged; may stand first."}
    )
    directory: str = field(metadata={"help": "Folder for the language model and the file that makes prompts; may stand second."})
    dtype: str = field(default="auto", metadata={"help": "Number format of all weights; auto: as they were saved."})
    overwrite: bool = field(default=False, metadata={"help": "Replace an earlier export in the folder."})
