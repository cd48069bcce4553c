"""What the plain `Trainer` needs to train a VAE: a KL schedule, the callback that follows it, and the collator."""

from .callbacks import KLAnnealingCallback
from .collator import VAEDataCollator
from .schedules import (
    ConstantSchedule,
    CyclicalSchedule,
    LinearSchedule,
    Schedule,
    SigmoidSchedule,
    TanhSchedule,
    make_schedule,
)

__all__ = [
    "ConstantSchedule",
    "CyclicalSchedule",
    "KLAnnealingCallback",
    "LinearSchedule",
    "Schedule",
    "SigmoidSchedule",
    "TanhSchedule",
    "VAEDataCollator",
    "make_schedule",
]
