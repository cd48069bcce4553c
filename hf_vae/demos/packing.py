"""From a trained model's folder to a demo: small, without code, and with a card of one page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.utils import SAFE_WEIGHTS_NAME

from ..evaluation.metrics import known_metrics
from ..hub.attribute_section import attribute_section
from ..latent_attribute import LatentAttribute

# What loads a model and its processor; pictures, metrics and the code stay behind.
CONFIGS = ("config.json", "processor_config.json", "tokenizer_config.json", "encoder_tokenizer/tokenizer_config.json")
OTHERS = ("generation_config.json", "tokenizer.json", "encoder_tokenizer/tokenizer.json")

CARD = """\
---
language: en
library_name: transformers
license: apache-2.0
pipeline_tag: text-generation
tags:
- hf_vae
- variational-autoencoder
---

# {name}

A small {kind} that comes with `hf_vae`.
It was trained from scratch on the package's own grammar, and it knows the words of that grammar only.

```python
import hf_vae
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(hf_vae.demo("{name}"))
processor = AutoProcessor.from_pretrained(hf_vae.demo("{name}"))
```

Weights are float16 in the file, and float32 when they are loaded. The command that trains and packs it is `python -m hf_vae.demos`.

{attributes}## Results

On held-out texts of the grammar, before the weights were rounded:

| metric | value |
|---|---|
{rows}

## Limits

The texts are those of a toy grammar. The model shows what z does, and it is of no other use.
"""


def pack(trained: Path, folder: Path, kind: str, attributes: Mapping[str, LatentAttribute] | None = None) -> None:
    """
    Writes the model in `trained` to `folder`, as a demo with the folder's name.

    Args:
        trained (`Path`): what a training command has left.
        folder (`Path`): replaced, if it exists.
        kind (`str`): what the card calls the model.
        attributes (mapping of `str` to [`LatentAttribute`], *optional*): what it is to hold, fitted to the trained model.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "encoder_tokenizer").mkdir(parents=True)
    for file in CONFIGS:
        config = json.loads((trained / file).read_text(encoding="utf-8"))
        # The package is there, so the model needs no code of its own, and names none.
        for name in ("auto_map", "custom_pipelines"):
            config.pop(name, None)
        if attributes and file == "config.json":
            config["latent_attributes"] = {name: each.spec for name, each in attributes.items()}
        (folder / file).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in OTHERS:
        shutil.copyfile(trained / file, folder / file)
    tensors = load_file(trained / SAFE_WEIGHTS_NAME)
    for name, each in (attributes or {}).items():
        tensors |= {f"latent_attributes.{name}.{buffer}": tensor for buffer, tensor in each.state_dict().items()}
    rounded = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    save_file(rounded, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
    # safetensors keeps its files from others.
    (folder / SAFE_WEIGHTS_NAME).chmod(0o644)
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    section = attribute_section(attributes or {}, AutoConfig.from_pretrained(folder).is_conditional)
    card = CARD.format(name=folder.name, kind=kind, rows=_rows(metrics), attributes=f"{section}\n\n" if section else "")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _rows(metrics: Mapping[str, object]) -> str:
    """The rows of the card's table, in the order of a report."""
    values = {metric.title: metrics[metric.name] for metric in known_metrics(metrics) if not metric.detail}
    return "\n".join(f"| {title} | {value:.3f} |" for title, value in values.items() if isinstance(value, float))
