"""
Two learning rates: one for what pretrained parts bring along, which should change little, and a higher one for what is new around
them. With one rate either the parts forget what they know, or z learns nothing in the time that a fine-tuning takes.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from ..options.techniques import LearningRateArguments
from .loss_parts import find_model
from .techniques import register_technique

# Below these lies what a pretrained part brings along.
_OF_PARTS = ("encoder.", "source_encoder.", "decoder.lm.")


def new_weights(model: nn.Module) -> set[str]:
    """
    The names of the weights that no pretrained part has: those outside the parts, and those that a part was loaded without.

    Args:
        model ([`VAEModel`]): of any of the family.
    """
    names = {name for name, _ in model.named_parameters()}
    without = set(getattr(model, "missing_in_parts", ()))
    return {name for name in names if not name.startswith(_OF_PARTS)} | (names & without)


def two_rates(
    model: nn.Module, training_args: TrainingArguments, new_weights_learning_rate: float | None
) -> tuple[torch.optim.Optimizer | None, None]:
    """
    The `optimizers` of a plain Trainer whose new weights ([`new_weights`]) learn at a rate of their own. The schedule of
    `training_args` scales both rates alike.

        Trainer(model, training_args, optimizers=two_rates(model, training_args, 1e-3), …)

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one, whose adapters learn at the rate of the parts. It is
            moved to the device of `training_args`, as the Trainer would.
        training_args (`TrainingArguments`): say which optimizer it is, and the rate of all other weights.
        new_weights_learning_rate (`float`, *optional*): of the new weights; `None` leaves the optimizer to the Trainer.

    Returns:
        The optimizer and, in the place of a schedule, `None`. As with the Trainer's own, matrices alone decay.

    Raises:
        ValueError: the rate is not positive, or the optimizer takes no groups of weights.
    """
    if new_weights_learning_rate is None:
        return None, None
    if not new_weights_learning_rate > 0:
        raise ValueError(f"`new_weights_learning_rate` is {new_weights_learning_rate}; it must be above 0.")
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(training_args, cast(Any, model))
    takes_groups = isinstance(optimizer_class, type) and issubclass(optimizer_class, torch.optim.Optimizer)
    if not takes_groups or {"params", "model"} & set(options):
        name = OptimizerNames(training_args.optim).value
        raise ValueError(
            f"`new_weights_learning_rate` gives groups of weights their own rates, which `--optim {name}` does not take: choose "
            "another optimizer, such as adamw_torch, or leave the rate out."
        )
    if not getattr(model, "hf_device_map", None):
        model.to(training_args.device)
    vae = find_model(model)
    names = new_weights(vae)
    new = {id(parameter) for name, parameter in vae.named_parameters() if name in names}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = []
    for is_new, rate in ((False, training_args.learning_rate), (True, new_weights_learning_rate)):
        for is_matrix, decay in ((True, training_args.weight_decay), (False, 0.0)):
            weights = [each for each in trained if (id(each) in new) is is_new and (each.ndim > 1) is is_matrix]
            if weights:
                groups.append({"params": weights, "lr": rate, "weight_decay": decay})
    return optimizer_class(groups, **options), None


def check_learning_rates(args: Any, training_args: TrainingArguments) -> None:
    rate = args.new_weights_learning_rate
    if rate is not None and not rate > 0:
        raise ValueError(f"`--new_weights_learning_rate` is {rate}; it must be above 0.")


register_technique(LearningRateArguments, check=check_learning_rates)
