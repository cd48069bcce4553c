"""One call makes a variant known: to the Auto classes, to `pipeline`, to what is saved with a model, and to its model card."""

from dataclasses import dataclass
from typing import Any, cast

from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_vae import VAEConfig
from .modeling_vae import VAEModel
from .pipelines import LatentTextGenerationPipeline
from .processing_vae import VAEProcessor


@dataclass(frozen=True)
class Paper:
    """
    The paper that a variant comes from, as its model cards cite it.

    Args:
        key (`str`): the BibTeX key.
        title (`str`): the title.
        authors (`str`): the authors as BibTeX writes them, "Gupta, Ankush and Agarwal, Arvind".
        booktitle (`str`): where the paper appeared.
        year (`int`): when it appeared.
    """

    key: str
    title: str
    authors: str
    booktitle: str
    year: int


# By model type.
_PAPERS: dict[str, Paper] = {}


def register_variant(
    config: type[VAEConfig],
    model: type[VAEModel],
    processor: type[VAEProcessor],
    pipeline: type[LatentTextGenerationPipeline] | None = None,
    paper: Paper | None = None,
) -> None:
    """
    Makes a variant known to `AutoConfig`, `AutoModel`, `AutoModelForSeq2SeqLM`, `AutoProcessor`, `pipeline` and the model cards.
    What is saved of it then carries its own code, for machines that do not have it (`trust_remote_code=True`).

    ```python
    register_variant(HeadlineConfig, HeadlineModel, HeadlineProcessor, paper=Paper("you2026headlines", ...))
    ```

    A second call with the same classes changes nothing.

    Args:
        config (`type[VAEConfig]`): the configuration class, with a `model_type` of its own.
        model (`type[VAEModel]`): the model class, whose `config` is annotated with that class.
        processor (`type[VAEProcessor]`): the processor class.
        pipeline (`type[LatentTextGenerationPipeline]`, *optional*): the pipeline class, with a `default_task` of its own; it
            becomes the model's `pipeline_class`. By default the model keeps its parent's.
        paper ([`Paper`], *optional*): the paper that a model card cites; without one the card cites none.

    Raises:
        ValueError: an argument is not a class of its kind, the model has another configuration, or another class is registered for
            the model type or the task.
    """
    _check_class("config", config, VAEConfig)
    _check_class("model", model, VAEModel)
    _check_class("processor", processor, VAEProcessor)
    pipeline = model.pipeline_class if pipeline is None else pipeline
    _check_class("pipeline", pipeline, LatentTextGenerationPipeline)
    if paper is not None and not isinstance(paper, Paper):
        raise ValueError(f"`paper` is {paper!r}; give a `Paper(key, title, authors, booktitle, year)`.")
    own = cast(type[VAEConfig], model.config_class)
    if own is not config:
        raise ValueError(
            f"`model` is {model.__name__}, whose configuration is {own.__name__}, and `config` is "
            f"{config.__name__}: write `config: {config.__name__}` in the body of the model's class."
        )
    model_type, task = config.model_type, pipeline.default_task
    if model_type in CONFIG_MAPPING:
        _check_free("config", config, "model_type", model_type, CONFIG_MAPPING[model_type])
    registered = PIPELINE_REGISTRY.supported_tasks.get(task, {}).get("impl")
    _check_free("pipeline", pipeline, "default_task", task, registered)

    AutoConfig.register(model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoModelForSeq2SeqLM.register(config, model, exist_ok=True)
    AutoProcessor.register(config, processor, exist_ok=True)
    config.register_for_auto_class()
    model.register_for_auto_class("AutoModel")
    processor.register_for_auto_class("AutoProcessor")
    model.pipeline_class = pipeline
    if registered is not pipeline:
        PIPELINE_REGISTRY.register_pipeline(task, pipeline_class=pipeline, pt_model=AutoModel, type="text")
    if paper is not None:
        _PAPERS[model_type] = paper


def paper_of(model_type: str) -> Paper | None:
    """The paper that `register_variant` was given for a model type."""
    return _PAPERS.get(model_type)


def _check_class(name: str, given: Any, base: type) -> None:
    """Raises a `ValueError` unless `given` is `base` or a subclass of it."""
    if not (isinstance(given, type) and issubclass(given, base)):
        found = f"the class {given.__name__}" if isinstance(given, type) else f"an object of type {type(given).__name__}"
        raise ValueError(f"`{name}` is {found}; give a subclass of {base.__name__}.")


def _check_free(name: str, given: type, field: str, value: str, registered: type | None) -> None:
    """Raises a `ValueError` if another class is registered for `value`. A class that was defined once more has the same name."""
    if registered is not None and registered.__name__ != given.__name__:
        raise ValueError(
            f"`{name}` is {given.__name__}, and its `{field}` {value!r} belongs to {registered.__name__}: give {given.__name__} a "
            f"`{field}` of its own."
        )
