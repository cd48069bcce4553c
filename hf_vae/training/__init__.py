"""
What the plain `Trainer` needs to train a VAE: a KL schedule, the callback that follows it, the collator, and the techniques against
posterior collapse that live in the training loop, and the stages before and after it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .aggressive import AggressiveEncoderCallback
from .bow_annealing import BagOfWordsAnnealingCallback
from .collator import VAEDataCollator
from .decoder_reset import DecoderResetCallback, reset_decoder
from .denoising import DenoisingCallback, NoiseVocabulary, TokenNoise
from .divergence import StopOnDivergenceCallback, leave_out_cudnn_attention
from .drop_last import EvaluateEveryExampleCallback
from .kl_annealing import KLAnnealingCallback
from .kl_weight import KLWeightCallback
from .minimum_rate import MinimumDesiredRateCallback
from .schedules import (
    ConstantSchedule,
    CyclicalSchedule,
    LinearSchedule,
    Schedule,
    SigmoidSchedule,
    TanhSchedule,
    make_schedule,
)
from .techniques import register_technique

if TYPE_CHECKING:
    from .encoder_cache import cache_encoder_outputs
    from .fits import fit_conditional_prior, fit_decoder, fit_posterior, fit_soft_tokens
    from .learning_rates import new_weights, two_rates
    from .new_modules import modules_to_save
    from .stages import pretrain_encoder, train_without_latent

# What needs the Trainer itself, by module. Whoever imports the package for a model does not wait for it, and datasets with it.
_WITH_TRAINER = {
    "encoder_cache": ("cache_encoder_outputs",),
    "fits": ("fit_conditional_prior", "fit_decoder", "fit_posterior", "fit_soft_tokens"),
    "stages": ("pretrain_encoder", "train_without_latent"),
    "learning_rates": ("new_weights", "two_rates"),
    "new_modules": ("modules_to_save",),
}


def __getattr__(name: str) -> Any:
    for module, names in _WITH_TRAINER.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AggressiveEncoderCallback",
    "BagOfWordsAnnealingCallback",
    "ConstantSchedule",
    "CyclicalSchedule",
    "DecoderResetCallback",
    "DenoisingCallback",
    "EvaluateEveryExampleCallback",
    "KLAnnealingCallback",
    "KLWeightCallback",
    "LinearSchedule",
    "MinimumDesiredRateCallback",
    "NoiseVocabulary",
    "Schedule",
    "SigmoidSchedule",
    "StopOnDivergenceCallback",
    "TanhSchedule",
    "TokenNoise",
    "VAEDataCollator",
    "cache_encoder_outputs",
    "fit_conditional_prior",
    "fit_decoder",
    "fit_posterior",
    "fit_soft_tokens",
    "leave_out_cudnn_attention",
    "make_schedule",
    "modules_to_save",
    "new_weights",
    "pretrain_encoder",
    "register_technique",
    "reset_decoder",
    "train_without_latent",
    "two_rates",
]
