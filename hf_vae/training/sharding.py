"""Where weights live in pieces, a callback cannot change them."""

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


def refuse_sharding(name: str) -> None:
    """
    For callbacks that change weights, once the Trainer has begun.

    Raises:
        ValueError: DeepSpeed, FSDP or Megatron hold the weights and gradients; `name` is who needs them whole.
    """
    kind = AcceleratorState().distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM):
        raise ValueError(
            f"{name} changes weights between the Trainer's steps, and {kind.value} keeps them in pieces: train with one process or "
            "plain data parallelism (DDP)."
        )
