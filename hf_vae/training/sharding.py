"""Training whose weights live in pieces on several processes: FSDP and DeepSpeed."""

from __future__ import annotations

from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainingArguments

KINDS = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)


def in_pieces() -> bool:
    """Whether the Trainer that has begun keeps the weights in pieces."""
    return AcceleratorState().distributed_type in KINDS


def refuse_sharding(name: str) -> None:
    """
    For callbacks that read or change whole weights, once the Trainer has begun.

    Raises:
        ValueError: DeepSpeed, FSDP or Megatron hold the weights and gradients; `name` is who needs them whole.
    """
    if in_pieces():
        raise ValueError(
            f"{name} needs whole weights between two steps, and {AcceleratorState().distributed_type.value} keeps them in "
            "pieces: leave it out, or train with one process or plain data parallelism (DDP)."
        )


def refuse_copies(training_args: TrainingArguments) -> None:
    """Raises a `ValueError` if the Trainer would use `nn.DataParallel`, whose copies of a model have no parameters."""
    if training_args.n_gpu > 1:
        raise ValueError(
            f"One process has {training_args.n_gpu} GPUs, which the Trainer would share out with `nn.DataParallel`: its copies of "
            "a model have no parameters of their own. Start one process for each with `accelerate launch`, or show it one GPU only "
            "(`CUDA_VISIBLE_DEVICES`)."
        )


def prepare_for_sharding(model: nn.Module) -> None:
    """
    Tells accelerate's FSDP2 what it would get wrong of a model with an embedding in each half; call it before the Trainer begins.
    It gives the input embedding and the output layer a group of their own, which must not share a weight with another one: a
    decoder's that predicts with its embeddings' own weights does, and so does the embedding inside a class that `device_map` is
    not to split.

    Args:
        model ([`VAEModel`]): of any of the family.
    """
    vae: Any = model
    embedding = vae.get_input_embeddings()
    holders = {type(module).__name__ for module in vae.modules() if embedding in set(module.children())}
    vae._no_split_modules = type(vae._no_split_modules)(name for name in vae._no_split_modules if name not in holders)
    if vae.get_output_embeddings().weight is vae.decoder.get_input_embeddings().weight:
        # Both then stay with what no layer has, in the last group.
        vae.get_output_embeddings = lambda: None
