"""The arguments of a model: its encoder and decoder, z between them, and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .techniques import (
    AggressiveEncoderArguments,
    BagOfWordsScheduleArguments,
    DecoderResetArguments,
    DenoisingArguments,
    EncoderCacheArguments,
    KLScheduleArguments,
    LearningRateArguments,
    MinimumRateArguments,
    StageArguments,
)


@dataclass
class ModelArguments(
    StageArguments,
    LearningRateArguments,
    AggressiveEncoderArguments,
    DecoderResetArguments,
    MinimumRateArguments,
    KLScheduleArguments,
    BagOfWordsScheduleArguments,
    DenoisingArguments,
    EncoderCacheArguments,
):
    """The encoder and the decoder, pretrained or from scratch; z between them; and what keeps z from being ignored."""

    encoder_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub id or path of a pretrained encoder. Without it, encoder and decoder start from scratch."},
    )
    decoder_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub id or path of a pretrained causal LM. Without it, a small decoder starts from scratch."},
    )
    encoder_type: str = field(default="bert", metadata={"help": "Architecture of the encoder."})
    decoder_type: str = field(default="llama", metadata={"help": "Architecture of the decoder."})
    hidden_size: int = field(default=128, metadata={"help": "Width of encoder and decoder."})
    embedding_size: int | None = field(
        default=None, metadata={"help": "LSTMs: width of the embeddings, if not that of the layers."}
    )
    encoder_layers: int = field(default=1, metadata={"help": "Layers of the encoder."})
    decoder_layers: int = field(default=2, metadata={"help": "Layers of the decoder."})
    num_attention_heads: int = field(default=4, metadata={"help": "Attention heads of encoder and decoder."})
    initializer_range: float = field(default=0.1, metadata={"help": "Standard deviation of the first weights."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout of encoder and decoder."})
    recurrent_dropout: float = field(default=0.0, metadata={"help": "LSTMs: dropout of the weights from state to state."})
    tie_word_embeddings: bool = field(default=True, metadata={"help": "The decoder predicts with the weights of its embeddings."})
    tokenizer_type: str = field(default="bpe", metadata={"help": "bpe: byte-level BPE. word: the words between spaces."})
    vocab_size: int = field(default=1024, metadata={"help": "Maximum size of the vocabulary."})
    latent_size: int = field(default=32, metadata={"help": "Dimensions of z, or of each of its vectors."})
    num_latents: int = field(
        default=1, metadata={"help": "Vectors that z consists of; from two on learned queries read the encoder's states."}
    )
    latent_injection: list[str] = field(
        default_factory=lambda: ["embedding"], metadata={"help": "How z enters the decoder; several ways may be named."}
    )
    latent_placement: str = field(
        default="before_source",
        metadata={"help": "before_source: the decoder reads its prompt with z. after_source: z enters at the start token."},
    )
    prefix_length: int | None = field(
        default=None,
        metadata={"help": "With `prefix`: the embeddings that z becomes. Default: 4, or one for each of several vectors."},
    )
    decoder_start_token: str | None = field(
        default=None,
        metadata={
            "help": "The token of the decoder's tokenizer that the target follows, such as '\\n', which is read as a newline. "
            "Default: the last one of a prompt's template, or else the decoder's BOS."
        },
    )
    posterior_bias: bool = field(default=True, metadata={"help": "Whether the posterior's head has a bias; Optimus' has none."})
    pooling: str | None = field(
        default=None,
        metadata={
            "help": "What the posterior reads of the encoder: mean, target (of a pair the mean over y alone), first, pooler, "
            "attention of learned queries, or, of texts without a source, local_attention, where each query looks at its share of "
            "the text above all. Default: what an encoder of sentence-transformers was trained with, mean of any other, and "
            "attention with several vectors."
        },
    )
    prior_type: str = field(
        default="standard",
        metadata={"help": "standard: N(0, I). flow: a p(z) that is learned. conditional, if there is an x: p(z|x), a network."},
    )
    free_bits: float = field(default=0.0, metadata={"help": "Nats of KL that the training loss does not charge for."})
    free_bits_per: str = field(
        default="sentence",
        metadata={
            "help": "What gets the free bits: each sentence, each vector or dimension of z, or a dimension's mean over the batch."
        },
    )
    capacity: float | None = field(default=None, metadata={"help": "Charge for the KL's distance from this many nats instead."})
    batch_norm_gamma: float | None = field(
        default=None, metadata={"help": "Normalise the posterior means over the batch to this spread (BN-VAE); 0: not at all."}
    )
    bow_loss_weight: float = field(default=0.0, metadata={"help": "Weight of the bag-of-words loss."})
    word_dropout: float = field(default=0.0, metadata={"help": "Share of the target's tokens hidden from the decoder."})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train only what is new around the encoder."})
    freeze_decoder: bool = field(default=False, metadata={"help": "Train only what is new around the decoder."})
    save_trained_only: bool = field(
        default=False,
        metadata={"help": "Leave frozen pretrained parts out of what is saved, and name where they are loaded from."},
    )
    lora: dict | str | None = field(
        default=None,
        metadata={
            "help": "Adapters: a rank, such as 8, or arguments of peft's LoraConfig as JSON. The layers of z are trained whole. "
            "Merged at the end."
        },
    )

    is_conditional: ClassVar[bool] = False

    def __post_init__(self):
        # A command line cannot say `None`, and a recipe may have set them.
        self.batch_norm_gamma = self.batch_norm_gamma or None
        self.new_weights_learning_rate = self.new_weights_learning_rate or None

    @property
    def has_posterior(self) -> bool:
        """Whether z is drawn from a q in training."""
        return True


@dataclass
class ConditionalArguments(ModelArguments):
    """What conditional models have besides: how x is read, the prior of z given x, and Sohn et al.'s objectives."""

    source_conditioning: str = field(default="prompt", metadata={"help": "How the decoder sees the source."})
    prompt_template: str | None = field(
        default=None,
        metadata={
            "help": "What the decoder reads of a source, such as '{source}\\nParaphrase:\\n', in which \\n is read as a newline. "
            "Its last token is the start token. Default: the source alone."
        },
    )
    use_chat_template: bool | None = field(
        default=False,
        metadata={"help": "The chat template of the decoder's tokenizer writes the prompt: the user says the source."},
    )
    tie_encoders: bool = field(
        default=True, metadata={"help": "One encoder for q and for what else reads the source, the prior or the decoder."}
    )
    prior_regularization: float = field(default=0.0, metadata={"help": "Weight of KL(p(z|x) ‖ N(0, I)) in the training loss."})
    source_noise: float = field(
        default=0.0, metadata={"help": "Rate at which tokens of the source are hidden in training from the decoder and the prior."}
    )
    objective: str = field(default="cvae", metadata={"help": "cvae: the ELBO. gsnn: z from the prior. hybrid: a mixture of both."})
    hybrid_alpha: float = field(default=0.5, metadata={"help": "Share of the ELBO in the hybrid objective."})
    is_conditional: ClassVar[bool] = True

    @property
    def has_posterior(self) -> bool:
        return self.objective != "gsnn"
