"""
All differences between the supported versions of transformers, each with its versions. The rest of the package uses the names of
5.24 and never asks for a version.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import transformers
from packaging.version import Version
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, cache_utils, configuration_utils
from transformers.generation import GenerationMixin

# The cache in every `forward`, output and hook of generation: `past_key_values` up to 5.23, `cache` from 5.24 on.
CACHE = "cache" if "cache" in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters else "past_key_values"
CACHE_NAMES = ("cache", "past_key_values")


def cache_parameter(model: PreTrainedModel) -> str | None:
    """The name of the cache in `model.forward`; `None` if it takes none. A model from elsewhere may use the old name."""
    parameters = inspect.signature(type(model).forward).parameters
    return next((name for name in CACHE_NAMES if name in parameters), None)


def takes_cache(method: Callable) -> Callable:
    """Gives the parameter `cache` of `method` the name that transformers looks for, and lets callers use either name."""

    @functools.wraps(method)
    def renamed(self, *args, **kwargs):
        if "past_key_values" in kwargs:
            kwargs["cache"] = kwargs.pop("past_key_values")
        return method(self, *args, **kwargs)

    signature = inspect.signature(method)
    parameters = [each.replace(name=CACHE) if each.name == "cache" else each for each in signature.parameters.values()]
    renamed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return renamed


if hasattr(configuration_utils, "SubConfigSpec"):
    from transformers.configuration_utils import SubConfigSpec

    CompositeConfig = PreTrainedConfig
else:
    # Up to 5.19 a configuration names the classes of its parts and converts their dictionaries itself.
    class SubConfigSpec:  # type: ignore[no-redef]
        def __init__(self, config_class: type, model_type: str):
            self.config_class, self.model_type = config_class, model_type

    class CompositeConfig(PreTrainedConfig):  # type: ignore[no-redef]
        def __init_subclass__(cls, **kwargs):
            cls.sub_configs = {name: spec.config_class for name, spec in cls.sub_configs_defaults.items()}  # type: ignore[attr-defined]
            super().__init_subclass__(**kwargs)

        def __post_init__(self, **kwargs):
            for name, spec in self.sub_configs_defaults.items():
                part = getattr(self, name)
                if not isinstance(part, PreTrainedConfig):
                    setattr(self, name, AutoConfig.for_model(**{"model_type": spec.model_type, **(part or {})}))
            super().__post_init__(**kwargs)


def head_shapes(config: Any) -> tuple[int | list[int], int | list[int]]:
    """The number of key-value heads and their size, for all layers or for each. transformers has this from 5.19 on."""
    if hasattr(configuration_utils, "get_head_shapes"):
        return configuration_utils.get_head_shapes(config)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


# What a cache keeps for a layer that reads another's keys. Up to 5.22 it has nothing there.
EMPTY_LAYERS: set[type] = {cache_utils.DummyLayer} if hasattr(cache_utils, "DummyLayer") else set()

# The word in names of methods and fields of `TrainingArguments`: `gradient_checkpointing` up to 5.22.
ACTIVATION_CHECKPOINTING = (
    "activation_checkpointing" if hasattr(PreTrainedModel, "is_activation_checkpointing") else "gradient_checkpointing"
)


def is_activation_checkpointing(model: PreTrainedModel) -> bool:
    """Whether `model` computes its activations again in the backward pass."""
    return getattr(model, f"is_{ACTIVATION_CHECKPOINTING}")


class AdapterLoading:
    """Mixin that stands before `PreTrainedModel`. Up to 5.17 `load_adapter` silently leaves out what `modules_to_save` names."""

    if Version(transformers.__version__) < Version("5.18"):

        def load_adapter(self, peft_model_id=None, adapter_name=None, *args, adapter_kwargs=None, **kwargs):
            info = super().load_adapter(peft_model_id, adapter_name, *args, adapter_kwargs=adapter_kwargs, **kwargs)  # type: ignore[misc]
            if peft_model_id is not None:
                # No import statement, because code that a model brings along is refused if it imports what is not installed.
                peft = importlib.import_module("peft")
                weights = peft.load_peft_weights(peft_model_id, device=str(self.device), **(adapter_kwargs or {}))  # type: ignore[attr-defined]
                weights = {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}
                peft.set_peft_model_state_dict(self, weights, adapter_name or "default")
            return info
