"""What a card says of the attributes that a model holds, and how to ask for one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..latent_attribute import LatentAttribute
from ..modeling_vae import VAEModel
from ..training.files import write_whole
from .markdown import as_text

HEADING = "## Attributes"
# The section stands before this one of a card of ours.
NEXT = "## Results"
_LAST = "`hf_vae.latent_space.edit` gives them to a text."
# Up to its own last line, since what follows may be the user's; and of ours no line but the first begins with `#`.
_SECTION = re.compile(rf"^{HEADING}\n(?:(?!#).*\n)*?{re.escape(_LAST)}$", re.MULTILINE)


def attribute_section(attributes: Mapping[str, LatentAttribute], is_conditional: bool) -> str:
    """
    The section of a card in Markdown; empty without attributes.

    Args:
        attributes (mapping of `str` to [`LatentAttribute`]): those of a model, `model.latent_attributes`.
        is_conditional (`bool`): whether the model has a source, which `generate` is then given.
    """
    if not attributes:
        return ""
    rows = [f"| `{name}` | {_values(each)} | {_score(each)} |" for name, each in attributes.items()]
    [(name, first), *_] = attributes.items()
    drawn = "**inputs, num_return_sequences=5" if is_conditional else "num_samples=5"
    asked = f"{{{json.dumps(name)}: {_literal(_example(first))}}}"
    return "\n".join(
        [
            HEADING,
            "",
            "The model holds what these look like in z. `generate` draws z that has the one that is asked for:",
            "",
            "```python",
            f"sequences = model.generate({drawn}, attributes={asked}, do_sample=False, max_new_tokens=40)",
            "print(processor.batch_decode(sequences, skip_special_tokens=True))",
            "```",
            "",
            "| attribute | values | on labels that were left out |",
            "|---|---|---|",
            *rows,
            "",
            _LAST,
        ]
    )


def write_attributes(model: VAEModel, directory: str | Path) -> Path:
    """
    Puts the section about the model's attributes into the card in `directory`, in the place of an earlier one: attributes are
    fitted after a training, which leaves the card. All else that the card says stays as it is.

    Args:
        model ([`VAEModel`]): with the attributes of `set_attribute`; without any a section that is there is removed.
        directory (`str` or `Path`): of the model and its `README.md`.

    Raises:
        ValueError: there is no card.
    """
    path = Path(directory) / "README.md"
    if not path.is_file():
        raise ValueError(f"{directory} has no README.md: write one with `hf_vae.hub.write_model_card`, which shows attributes too.")
    card = path.read_text(encoding="utf-8")
    section = attribute_section(cast(Any, model.latent_attributes), model.config.is_conditional)
    earlier = _SECTION.search(card)
    if earlier:
        before, behind = card[: earlier.start()], card[earlier.end() :]
        card = before + section + behind if section else before + behind.lstrip("\n")
    elif section:
        before, heading, behind = card.partition(f"\n{NEXT}\n")
        card = f"{before.rstrip()}\n\n{section}\n{heading}{behind}"
    write_whole(path, card)
    return path


def _values(attribute: LatentAttribute) -> str:
    if attribute.labels is None:
        return f"a number from {attribute.lowest.item():.3g} to {attribute.highest.item():.3g}"
    return as_text(", ".join(map(str, attribute.labels)))


def _score(attribute: LatentAttribute) -> str:
    score = attribute.score.item()
    if math.isnan(score):
        return "–"
    return f"R² {score:.2f}" if attribute.labels is None else f"accuracy {100 * score:.1f} %"


def _example(attribute: LatentAttribute) -> Any:
    """A value to ask for: of labels the first one, of numbers one in the middle."""
    if attribute.labels is None:
        return float(f"{(attribute.lowest.item() + attribute.highest.item()) / 2:.3g}")
    return attribute.labels[0]


def _literal(value: Any) -> str:
    """As Python's code has it, on one line."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
