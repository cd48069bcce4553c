"""A fresh decoder for an encoder that has learnt to encode."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from ..checks import check_count, next_seed
from ..modeling_vae import VAEModel
from ..options.techniques import DecoderResetArguments
from .kl_annealing import scheduled
from .sharding import refuse_sharding
from .techniques import register_technique

logger = logging.get_logger(__name__)


def reset_decoder(model: nn.Module, seed: int) -> None:
    """
    Gives the decoder, the projections of z in it included, the weights that a new model of the same configuration has, in place:
    what is tied stays tied, and everything outside `model.decoder` stays as it is.

    The weights are random also if the decoder was pretrained; to go back to pretrained ones, load them into
    `model.decoder.lm` instead.

    Args:
        model ([`VAEModel`]): of any of the family.
        seed (`int`): of the new weights. The generators of the run are left as they are, and all processes get the same weights.

    Raises:
        ValueError: `model` is not a model of hf_vae as it was built; adapters (PEFT) around it have no new weights to draw.
    """
    if not isinstance(model, VAEModel):
        raise ValueError(f"`model` is a {type(model).__name__}; a decoder can be reset in a VAEModel that nothing wraps.")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Of the CPU alone: `torch.manual_seed` would seed the accelerators too.
        torch.default_generator.manual_seed(seed)
        fresh = type(model)(copy.deepcopy(model.config))
    model.decoder.load_state_dict(fresh.decoder.state_dict())


class DecoderResetCallback(TrainerCallback):
    r"""
    Autoencoder pre-training and then a new decoder (Li et al. 2019), in one run: before step `step` the decoder is reset and the
    optimiser forgets its moments. The KL's weight is 0 up to there and anneals after it, with free bits in the model's
    configuration:

        KLAnnealingCallback(CyclicalSchedule(period=2 * step, zero=0.5, rise=0.5, cycles=1)), DecoderResetCallback(step)

    is 0 for `step` steps, rises for as many and stays at 1. All of it follows from the step, so a resumed run resets at the same
    step, once.

    Args:
        step (`int`): the optimiser step before which to reset, at least 1.
        seed (`int`, *optional*): of the new weights; by default another than the run's, which may have made the first ones.

    Raises:
        ValueError: a step below 1, or, as training begins, one that it does not reach, a wrapped model, a frozen decoder, or
            sharded weights.
    """

    def __init__(self, step: int, seed: int | None = None):
        # There is nothing to reset before the first step.
        check_count("step", step)
        self.step, self.seed = step, seed

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        refuse_sharding("DecoderResetCallback")
        if self.step >= state.max_steps:
            raise ValueError(f"`step` is {self.step}, and training ends at step {state.max_steps}: the decoder would not be reset.")
        if not isinstance(model, VAEModel):
            raise ValueError(f"A decoder can be reset in a VAEModel that nothing wraps; this is a {type(model).__name__}.")
        if not all(parameter.requires_grad for parameter in model.decoder.parameters()):
            raise ValueError("The decoder is frozen in whole or in part: after a reset it would keep random weights.")

    def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        if state.global_step != self.step:
            return
        reset_decoder(model, next_seed(args.seed) if self.seed is None else self.seed)
        for parameter in model.decoder.parameters():
            optimizer.state.pop(parameter, None)
        logger.info("The decoder starts anew at step %d.", self.step)


def check_decoder_reset(args: Any, training_args: TrainingArguments) -> None:
    step = args.decoder_reset_step
    if step is None:
        return
    check_count("--decoder_reset_step", step)
    if 0 < training_args.max_steps <= step:
        raise ValueError(f"`--decoder_reset_step` is {step}, and training ends at `--max_steps` {training_args.max_steps}.")
    schedule = scheduled(args)
    is_free = args.free_bits or args.capacity is not None or args.minimum_rate is not None
    if not is_free and min(schedule(each) for each in range(step)) >= 1:
        raise ValueError(
            f"`--decoder_reset_step` is {step}, and up to there the KL has its full weight: what trains is no autoencoder. "
            "Begin with a weight of 0, for instance `--kl_schedule cyclical --kl_schedule_options "
            f'\'{{"period": {2 * step}, "cycles": 1}}\'`, or grant free bits.'
        )
    for name in ("lora", "freeze_decoder", "latent_free_steps", "soft_token_fit_steps", "decoder_fit_steps"):
        if getattr(args, name):
            raise ValueError(f"`--decoder_reset_step` gives the whole decoder new weights; leave `--{name}` out beside it.")


def decoder_reset_callbacks(args: Any, processor: Any) -> list[TrainerCallback]:
    return [] if args.decoder_reset_step is None else [DecoderResetCallback(args.decoder_reset_step)]


register_technique(DecoderResetArguments, decoder_reset_callbacks, check_decoder_reset)
