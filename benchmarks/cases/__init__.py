"""One module for each case; its `run(options)` yields rows."""

from types import ModuleType

from . import (
    compiled_generation,
    generation,
    importance_bound,
    imports,
    langvae,
    quality,
    ragged_text,
    read_once,
    scaling,
    training_step,
    vocabulary,
)

CASES: dict[str, ModuleType] = {
    "training_step": training_step,
    "generation": generation,
    "importance_bound": importance_bound,
    "read_once": read_once,
    "ragged_text": ragged_text,
    "vocabulary": vocabulary,
    "langvae": langvae,
    "quality": quality,
    "imports": imports,
    "scaling": scaling,
    "compiled_generation": compiled_generation,
}
# What runs where nothing else is asked for.
DEFAULTS = tuple(name for name in CASES if name != "compiled_generation")
