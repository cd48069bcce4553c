"""What an adapter has to train and save whole beside itself: the modules around encoder and decoder, which start from scratch."""

from __future__ import annotations

from torch import nn

from .learning_rates import new_weights


def modules_to_save(model: nn.Module) -> list[str]:
    """
    The `modules_to_save` of peft's `LoraConfig` for a model with new weights ([`new_weights`]): the names of the largest modules
    that have no others.

        get_peft_model(model, LoraConfig(target_modules=…, modules_to_save=modules_to_save(model)))

    Args:
        model ([`VAEModel`]): of any of the family, before it is adapted.
    """
    weights = new_weights(model)
    # Peft does not save a container that is never called.
    called = {name for name, module in model.named_modules() if name and not isinstance(module, (nn.ModuleDict, nn.ModuleList))}
    own = {name: {f"{name}.{each}" for each, _ in model.get_submodule(name).named_parameters()} for name in called}
    candidates = [name for name, _ in model.named_modules() if name in called and own[name] and own[name] <= weights]
    while True:
        found: list[str] = []
        for name in candidates:
            if not any(name.startswith(f"{larger}.") for larger in found):
                found.append(name)
        split = {name for name in found if _hit_inside(name, found, called)}
        if not split:
            return found
        candidates = [name for name in candidates if name not in split]


def _hit_inside(name: str, found: list[str], modules: set[str]) -> bool:
    """
    Whether another name that is `found` is also the end of the name of a module inside this one. Peft would wrap that once more,
    and train a copy that nobody uses.
    """
    inside = [each for each in modules if each.startswith(f"{name}.")]
    return any(each.endswith(f".{other}") for each in inside for other in found if other != name)
