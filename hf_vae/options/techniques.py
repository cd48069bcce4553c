"""The arguments of the techniques and stages of `hf_vae.training`, each with a default that leaves the technique out."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass
class StageArguments:
    latent_free_steps: int = field(
        default=0,
        metadata={
            "help": "Steps to train with z = 0 first: as a language model, or, with a source, until the decoder reads it well."
        },
    )
    encoder_pretraining_steps: int = field(
        default=0, metadata={"help": "Steps to train the encoder as a masked language model first, on the training texts."}
    )
    soft_token_fit_steps: int = field(
        default=0,
        metadata={"help": "Steps before the decoder reads z in which q and the soft tokens of prefix learn to name the words."},
    )
    decoder_fit_steps: int = field(
        default=0,
        metadata={
            "help": "Steps after those of --soft_token_fit_steps that train the language model alone, until it reads what z says."
        },
    )
    freeze_decoder_with_latent: bool = field(
        default=False,
        metadata={
            "help": "Train the language model in the steps without z alone. z is then learned around it as it stands, at a "
            "quarter of the time if logits is its only way in."
        },
    )
    posterior_fit_steps: int = field(
        default=0, metadata={"help": "Steps at the end that train q alone, on the true ELBO of the finished decoder."}
    )
    prior_fit_steps: int = field(
        default=0,
        metadata={
            "help": "Conditional models: steps at the very end that put p(z|x) in the place of N(0, I) and train it alone, to "
            "be where q puts z."
        },
    )


# The lengths of the stages before and after the training with z.
STAGE_STEPS = tuple(each.name for each in fields(StageArguments) if each.name.endswith("_steps"))


@dataclass
class LearningRateArguments:
    new_weights_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of what no pretrained part brings along: q, the prior, z's ways into the decoder, the bag of "
            "words. 0, or unset: --learning_rate."
        },
    )


@dataclass
class AggressiveEncoderArguments:
    aggressive_encoder: bool = field(
        default=False, metadata={"help": "Train q to its best between the decoder's steps, while z's information grows."}
    )


@dataclass
class DecoderResetArguments:
    decoder_reset_step: int | None = field(
        default=None, metadata={"help": "Give the decoder new weights at this step, after training an autoencoder up to it."}
    )


@dataclass
class MinimumRateArguments:
    minimum_rate: float | None = field(
        default=None, metadata={"help": "Instead of a schedule: keep the KL above this number of nats with a Lagrange multiplier."}
    )


@dataclass
class KLScheduleArguments:
    """The schedule, which counts unless another technique sets the KL's weight."""

    kl_schedule: str = field(default="constant", metadata={"help": "How the weight of the KL rises."})
    kl_schedule_options: dict | str | None = field(
        default="{}", metadata={"help": "The schedule's options as JSON, such as '{\"steps\": 1000}'."}
    )


@dataclass
class BagOfWordsScheduleArguments:
    bow_schedule: str = field(
        default="constant", metadata={"help": "How the weight of the bag of words changes, as a factor on --bow_loss_weight."}
    )
    bow_schedule_options: dict | str | None = field(
        default="{}",
        metadata={"help": 'The schedule\'s options as JSON, such as \'{"steps": 1000, "start": 1, "weight": 0.1}\'.'},
    )


@dataclass
class DenoisingArguments:
    token_noise: dict | str | None = field(
        default=None, metadata={"help": "Noise on what q reads, TokenNoise's options as JSON, such as '{\"drop\": 0.1}'."}
    )


@dataclass
class EncoderCacheArguments:
    cache_encoder: str | None = field(
        default=None,
        metadata={
            "help": "Folder for the outputs of a frozen encoder: they are computed once and then read from there. A later run with "
            "the same encoder and tokenizer reads them too. The encoder has no dropout then."
        },
    )
