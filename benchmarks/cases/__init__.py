"""One module for each case; its `run(options)` yields rows."""

from types import ModuleType

from . import generation, importance_bound, imports, langvae, quality, ragged_text, scaling, training_step, vocabulary

CASES: dict[str, ModuleType] = {
    "training_step": training_step,
    "generation": generation,
    "importance_bound": importance_bound,
    "ragged_text": ragged_text,
    "vocabulary": vocabulary,
    "langvae": langvae,
    "quality": quality,
    "imports": imports,
    "scaling": scaling,
}
