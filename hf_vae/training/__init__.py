"""
What the plain `Trainer` needs to train a VAE: a KL schedule, the callback that follows it, the collator, and the techniques against
posterior collapse that live in the training loop, and the stages before and after it.
"""

from .aggressive import AggressiveEncoderCallback
from .callbacks import KLAnnealingCallback, KLWeightCallback
from .collator import VAEDataCollator
from .decoder_reset import DecoderResetCallback, reset_decoder
from .denoising import DenoisingCallback, NoiseVocabulary, TokenNoise
from .latent_free import train_without_latent
from .minimum_rate import MinimumDesiredRateCallback
from .posterior_fit import fit_posterior
from .pretraining import pretrain_encoder
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
    "AggressiveEncoderCallback",
    "ConstantSchedule",
    "CyclicalSchedule",
    "DecoderResetCallback",
    "DenoisingCallback",
    "KLAnnealingCallback",
    "KLWeightCallback",
    "LinearSchedule",
    "MinimumDesiredRateCallback",
    "NoiseVocabulary",
    "Schedule",
    "SigmoidSchedule",
    "TanhSchedule",
    "TokenNoise",
    "VAEDataCollator",
    "fit_posterior",
    "make_schedule",
    "pretrain_encoder",
    "reset_decoder",
    "train_without_latent",
]
