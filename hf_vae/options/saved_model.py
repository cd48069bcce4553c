"""The arguments that name a trained model, for the commands that use one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SavedModelArguments:
    model_name_or_path: str = field(metadata={"help": "Hub id or path of a model of hf_vae; may stand first, without its name."})
    dtype: str = field(
        default="auto",
        metadata={"help": "Number format of all weights; auto: as they were saved."},
    )
