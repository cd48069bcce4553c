"""Which file of arguments is a command's default, and what is in it. `cli.recipe` reads the values as the command line would."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import yaml

from .mistakes import with_guess

# Beside `hf_vae/__init__.py`, by whatever name this module was loaded.
RECIPES = Path(cast(Any, find_spec("hf_vae")).origin).parent / "cli" / "recipes"
_PART_NAMES = {"encoder_name_or_path", "decoder_name_or_path"}
# What a model without a q of its own does without.
_OF_POSTERIOR = {
    "free_bits", "batch_norm_gamma", "soft_token_fit_steps", "decoder_fit_steps", "posterior_fit_steps", "prior_fit_steps",
}  # fmt: skip


def is_recipe(word: str) -> bool:
    """Whether a command line that begins with this `word` begins with a file of arguments."""
    return word.lower().endswith((".yaml", ".yml", ".json"))


def find_recipe(name: str) -> Path:
    """
    The file of arguments called `name`: a path, or, if there is none, the package's own recipe of that file name, such as
    `paraphrase_embedded.yaml`.

    Raises:
        FileNotFoundError: there is neither.
    """
    own = RECIPES / Path(name).name
    for path in (Path(name), own):
        if path.is_file():
            return path
    known = sorted(path.name for path in RECIPES.glob("*.yaml"))
    beside = [str(path) for path in Path(name).parent.glob("*.yaml")]
    guess = with_guess(name, [*beside, *known])
    raise FileNotFoundError(f"There is no file {guess} of arguments, and the package's own recipes are {', '.join(known)}.")


def is_package_s(recipe: str) -> bool:
    """Whether a file of arguments of this name would be one of the package's, as [`find_recipe`] looks for it."""
    path = Path(recipe)
    return not path.is_file() or path.resolve().parent == RECIPES.resolve()


def default_recipe(task: str, named: Collection[str]) -> str:
    """
    The recipe of the package whose values are the defaults of a command without a file of arguments: for the embedded corpus, for
    files and a model from scratch, or for files and pretrained parts.

    Args:
        task (`str`): what the command trains.
        named (collection of `str`): the arguments that its command line names.
    """
    if "train_file" not in named:
        return f"{task}_embedded.yaml"
    # A decoder from scratch is trained like one behind an encoder from scratch.
    return f"{task}_pretrained.yaml" if "decoder_name_or_path" in named else f"{task}_from_scratch.yaml"


def replaced_by(said: Mapping[str, Any], recipe: str | None = None) -> set[str]:
    """
    The arguments of a file that cannot be meant beside what the command line has `said`. The file is the [`default_recipe`], or the
    `recipe` that the command line names. Nothing is replaced in a file of the user's own: what does not go together there is
    refused.
    """
    if recipe is not None and not is_package_s(recipe):
        return set()
    replaced: set[str] = set()
    if recipe is None and _PART_NAMES & set(said):
        # One part alone is not completed by the other of a recipe that nobody has named.
        replaced |= _PART_NAMES
    if "num_train_epochs" in said:
        # The Trainer would follow the recipe's number of steps.
        replaced.add("max_steps")
    if said.get("objective") == "gsnn":
        replaced |= _OF_POSTERIOR
    if {"capacity", "minimum_rate"} & set(said):
        replaced.add("free_bits")
    if said.get("objective", "cvae") != "cvae" or said.get("prior_regularization"):
        # These train p(z|x) from the first step on, so it cannot be fitted afterwards.
        replaced |= {"prior_type", "prior_fit_steps"}
    if "lora" in said or said.get("prior_type", "standard") != "standard":
        # p(z|x) is learnt together with q, or not at all.
        replaced.add("prior_fit_steps")
    if said.get("freeze_decoder"):
        replaced |= {"latent_free_steps", "freeze_decoder_with_latent"}
    if said.get("latent_free_steps") == 0:
        replaced.add("freeze_decoder_with_latent")
    if {"use_chat_template", "decoder_start_token"} & set(said) or said.get("source_conditioning", "prompt") != "prompt":
        # The source is to be written in another way, or not for the decoder at all.
        replaced.add("prompt_template")
    return replaced


def kept_beside(values: Mapping[str, Any], said: Mapping[str, Any], recipe: str | None = None) -> dict[str, Any]:
    """The `values` of a file of arguments, less those that are [`replaced_by`] what the command line has `said`."""
    replaced = replaced_by(said, recipe)
    return {name: value for name, value in values.items() if name not in replaced}


def written_in(name: str) -> dict[str, Any]:
    """What stands in a recipe, as YAML reads it; nothing if it cannot be read."""
    try:
        found = yaml.safe_load(find_recipe(name).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}
