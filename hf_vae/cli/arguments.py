"""The arguments of the commands that train, and how they are read from a recipe and a command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar, cast

from transformers import HfArgumentParser, TrainingArguments

from ..configuration_vae import PARTS
from ..training.aggressive import AggressiveEncoderArguments
from ..training.decoder_reset import DecoderResetArguments
from ..training.denoising import DenoisingArguments
from ..training.kl_annealing import KLScheduleArguments
from ..training.learning_rates import LearningRateArguments
from ..training.minimum_rate import MinimumRateArguments
from ..training.stages import StageArguments
from ..training.techniques import TECHNIQUES
from .recipe import find_recipe, read_recipe

# What a command's `--help` ends with.
_EPILOG = (
    "These defaults are those of the package's recipe {task}_embedded.yaml, which is used without --train_file. "
    "With --train_file they are those of {task}_from_scratch.yaml, and with pretrained parts those of {task}_pretrained.yaml. All "
    "three hold on to the KL. A file of arguments that comes first stands in their place."
)
# What a model without a q of its own does without.
_OF_POSTERIOR = {"free_bits", "batch_norm_gamma", "posterior_fit_steps", "prior_fit_steps"}
_PART_NAMES = {f"{part}_name_or_path" for part in PARTS}
# Nats per sentence, whatever the batches; the Trainer by itself would choose by a mean over them.
BEST_BY = "elbo"


@dataclass
class ModelArguments(
    StageArguments,
    LearningRateArguments,
    AggressiveEncoderArguments,
    DecoderResetArguments,
    MinimumRateArguments,
    KLScheduleArguments,
    DenoisingArguments,
):
    """The encoder and the decoder, pretrained or from scratch; z between them; and what keeps z from being ignored."""

    encoder_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub id or path of a pretrained encoder. Without it, encoder and decoder start from scratch."},
    )
    decoder_name_or_path: str | None = field(default=None, metadata={"help": "Hub id or path of a pretrained causal LM."})
    encoder_type: str = field(default="bert", metadata={"help": "From scratch: bert or lstm."})
    decoder_type: str = field(default="llama", metadata={"help": "From scratch: llama, gpt2 or lstm."})
    hidden_size: int = field(default=128, metadata={"help": "From scratch: width of encoder and decoder."})
    embedding_size: int | None = field(default=None, metadata={"help": "From scratch, LSTMs: width of embeddings, if another."})
    encoder_layers: int = field(default=1, metadata={"help": "From scratch: layers of the encoder."})
    decoder_layers: int = field(default=2, metadata={"help": "From scratch: layers of the decoder."})
    num_attention_heads: int = field(default=4, metadata={"help": "From scratch: heads of encoder and decoder."})
    initializer_range: float = field(default=0.1, metadata={"help": "From scratch: scale of the first weights."})
    dropout: float = field(default=0.0, metadata={"help": "From scratch: dropout of encoder and decoder."})
    recurrent_dropout: float = field(
        default=0.0, metadata={"help": "From scratch: dropout of an LSTM's weights from state to state."}
    )
    tie_word_embeddings: bool = field(
        default=True, metadata={"help": "From scratch: the decoder predicts with its embeddings' own weights."}
    )
    tokenizer_type: str = field(default="bpe", metadata={"help": "From scratch: bpe, or word for text split at spaces."})
    vocab_size: int = field(default=1024, metadata={"help": "From scratch: most tokens of the vocabulary."})
    latent_size: int = field(default=32, metadata={"help": "Dimensions of z."})
    latent_injection: list[str] = field(
        default_factory=lambda: ["embedding"], metadata={"help": "Ways of z into the decoder: embedding, memory, prefix, logits."}
    )
    latent_placement: str = field(
        default="before_source",
        metadata={"help": "before_source: the decoder reads its prompt with z; after_source: z enters at the start token."},
    )
    prefix_length: int = field(default=4, metadata={"help": "Embeddings that z becomes, with `prefix`."})
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
            "help": "What the posterior reads of the encoder: mean, target (of a pair the mean over y alone), first or pooler. "
            "Default: what an encoder of sentence-transformers was trained with, and mean of any other."
        },
    )
    free_bits: float = field(default=0.0, metadata={"help": "Nats of KL that the training loss does not charge for."})
    free_bits_per: str = field(default="sentence", metadata={"help": "sentence, dimension or batch."})
    capacity: float | None = field(default=None, metadata={"help": "Charge for the KL's distance from this many nats instead."})
    batch_norm_gamma: float | None = field(
        default=None, metadata={"help": "Batch norm of posterior means to this spread; 0: none."}
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
        metadata={"help": "Arguments of peft's LoraConfig as JSON; the latent's layers are trained whole. Merged at the end."},
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

    source_conditioning: str = field(default="prompt", metadata={"help": "prompt, cross_attention or initial_state."})
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
    prior_type: str = field(default="standard", metadata={"help": "standard, N(0, I), or conditional, a network p(z|x)."})
    prior_regularization: float = field(default=0.0, metadata={"help": "Weight of KL(p(z|x) ‖ N(0, I)) in the training loss."})
    source_noise: float = field(
        default=0.0, metadata={"help": "Rate at which tokens of the source are hidden in training from all but q."}
    )
    objective: str = field(default="cvae", metadata={"help": "cvae (the ELBO), gsnn (z from the prior) or hybrid."})
    hybrid_alpha: float = field(default=0.5, metadata={"help": "Share of the ELBO in the hybrid objective."})
    is_conditional: ClassVar[bool] = True

    @property
    def has_posterior(self) -> bool:
        return self.objective != "gsnn"


@dataclass
class ReportArguments:
    """Whether z is used, looked at while training."""

    collapse_report_samples: int = field(
        default=200,
        metadata={"help": "With --eval_strategy: validation examples of the collapse report at every evaluation; 0: none."},
    )
    metrics_tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "sacrebleu's tokenizer for metrics of words: 13a, intl, zh, ja-mecab, ko-mecab, char, ... Texts without spaces "
            "between words need one."
        },
    )


@dataclass
class PairEvaluationArguments(ReportArguments):
    """How a model of pairs is measured at the end."""

    max_test_samples: int = field(default=500, metadata={"help": "Test sources to measure on."})
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the bounds on the likelihood."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest output to generate, in tokens."})
    latent_temperature: float = field(
        default=1.0, metadata={"help": "Factor on the spread of z in the outputs measured; becomes the model's default."}
    )
    with_baseline: bool = field(
        default=False, metadata={"help": "Also train and measure the same model without z, and keep it in baseline/."}
    )


@dataclass
class FileArguments:
    """How files of texts are to be read."""

    encoding: str | None = field(
        default=None, metadata={"help": "Encoding of files, such as latin-1. Default: what a byte order mark says, else UTF-8."}
    )
    quoting: str | None = field(
        default=None,
        metadata={
            "help": "Of .csv and .tsv files. minimal, the default of .csv: cells may stand in quotation marks; none, the default "
            "of .tsv: quotation marks are text."
        },
    )

    @property
    def file_options(self) -> dict[str, Any]:
        """Arguments of the functions that read files."""
        return {"encoding": self.encoding, "quoting": self.quoting}


@dataclass
class SplitArguments(FileArguments):
    """The files of the three splits. That of the training may be read while it is trained on."""

    train_file: str | None = field(
        default=None, metadata={"help": "JSON lines, CSV or a dataset's name. Without it: the embedded corpus."}
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "As train_file; measured while training with --eval_strategy, and at the end without a test_file."},
    )
    test_file: str | None = field(default=None, metadata={"help": "As train_file; measured at the end. Default: validation_file."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on this many rows at most."})
    streaming: bool = field(
        default=False, metadata={"help": "Read the train_file while training, tokenised on the fly; needs --max_steps."}
    )
    shuffle_buffer: int = field(
        default=10_000, metadata={"help": "With streaming: pairs that are held to draw the next one from; 1 keeps their order."}
    )
    first_rows: int = field(
        default=10_000,
        metadata={"help": "With streaming: first pairs that a vocabulary is learnt from, and what else is known of the data."},
    )


@dataclass
class PairArguments(SplitArguments):
    """Sources and targets: where they stand in a row, and how long they may be."""

    source_column: str = field(default="source", metadata={"help": "Column of the sources."})
    target_column: str = field(default="targets", metadata={"help": "Column of the targets: one text or a list."})
    max_source_length: int = field(default=64, metadata={"help": "Longest source in tokens; a longer one is truncated."})
    max_target_length: int = field(
        default=64, metadata={"help": "Longest target in tokens with its EOS; a longer one is truncated."}
    )


def with_techniques(arguments: type) -> type:
    """The model's `arguments` with those of the techniques that were registered besides, from outside the package."""
    more = tuple(technique.arguments for technique in TECHNIQUES if not issubclass(arguments, technique.arguments))
    if not more:
        return arguments
    # The model's come first, and have what the others lack: a `__module__`, a docstring and their properties.
    return make_dataclass(arguments.__name__, [], bases=(arguments, *more), namespace={"__doc__": arguments.__doc__})


def default_recipe(task: str, named: Collection[str]) -> str:
    """
    The recipe of the package whose values are the defaults of a command without a file of arguments: for the embedded corpus, for
    files and a model from scratch, or for files and pretrained parts.

    Args:
        task (`str`): what the command trains.
        named (collection of `str`): the arguments that its command line names.
    """
    if "train_file" not in named:
        return f"{task}_embedded.yaml"
    return f"{task}_pretrained.yaml" if _PART_NAMES & set(named) else f"{task}_from_scratch.yaml"


def read_defaults(task: str, said: Mapping[str, Any], parser: HfArgumentParser) -> dict[str, Any]:
    """The values of [`default_recipe`], less those that cannot be meant beside what the command line has `said`."""
    replaced: set[str] = set()
    if _PART_NAMES & set(said):
        # One part alone is refused, and not completed by the recipe's other.
        replaced |= _PART_NAMES
    if "num_train_epochs" in said:
        # The Trainer would follow the recipe's number of steps.
        replaced.add("max_steps")
    if said.get("objective") == "gsnn":
        replaced |= _OF_POSTERIOR
    if {"capacity", "minimum_rate"} & set(said):
        replaced.add("free_bits")
    if said.get("objective", "cvae") != "cvae" or said.get("prior_regularization"):
        # These train p(z|x) from the first step on, so it cannot be fitted afterwards.
        replaced |= {"prior_type", "prior_fit_steps"}
    if "lora" in said or said.get("prior_type", "standard") != "standard":
        # p(z|x) is learnt together with q, or not at all.
        replaced.add("prior_fit_steps")
    if said.get("freeze_decoder"):
        replaced |= {"latent_free_steps", "freeze_decoder_with_latent"}
    if said.get("latent_free_steps") == 0:
        replaced.add("freeze_decoder_with_latent")
    if {"use_chat_template", "decoder_start_token"} & set(said) or said.get("source_conditioning", "prompt") != "prompt":
        # The source is to be written in another way, or not for the decoder at all.
        replaced.add("prompt_template")
    defaults = read_recipe(find_recipe(default_recipe(task, said)), parser)
    return {name: value for name, value in defaults.items() if name not in replaced}


def arguments_said(classes: Sequence[type], argv: Sequence[str]) -> dict[str, Any]:
    """The arguments that the command line names, in whatever way argparse understands, with their values."""
    # Whoever asks for help is to get it of the parser that knows the defaults.
    parser = HfArgumentParser(cast(Any, classes), add_help=False)
    parser.set_defaults(**{action.dest: None for action in parser._actions})
    said, _ = parser.parse_known_args(list(argv))
    return {name: value for name, value in vars(said).items() if value is not None}


def parse_arguments(argument_classes: Sequence[type], argv: Sequence[str], task: str, output_dir: str) -> tuple[Any, ...]:
    """
    Dataclasses, `TrainingArguments` last, from a command line that may begin with a YAML or JSON file of arguments; what follows
    the file overrides it. Without a file, the package's recipe for such a run of the `task` is the file ([`default_recipe`]). The
    first of the `argument_classes` is the model's, which gets the arguments of all registered techniques.

    Raises:
        ValueError: the file holds no arguments, or one that does not exist or has a value that cannot be meant.
    """
    model_class, *others = argument_classes
    classes = (with_techniques(model_class), *others, TrainingArguments)
    parser = HfArgumentParser(cast(Any, classes), epilog=_EPILOG.format(task=task))
    recipe: str | None = None
    if argv and argv[0].lower().endswith((".yaml", ".yml", ".json")):
        recipe, *argv = argv
    # The first step is logged so that a run shorter than `logging_steps` has its plot too.
    parser.set_defaults(output_dir=output_dir, logging_first_step=True, metric_for_best_model=BEST_BY)
    if recipe is not None:
        parser.set_defaults(**read_recipe(find_recipe(recipe), parser))
    else:
        parser.set_defaults(**read_defaults(task, arguments_said(classes, argv), parser))
    *parsed, training_args, unknown = parser.parse_args_into_dataclasses(args=list(argv), return_remaining_strings=True)
    if unknown:
        raise ValueError(f"The command line has no such argument(s): {' '.join(unknown)}; a file of arguments comes first.")
    looks_for_best = training_args.load_best_model_at_end or training_args.save_strategy == "best"
    needs_metric = looks_for_best or training_args.lr_scheduler_type == "reduce_lr_on_plateau"
    if training_args.metric_for_best_model == BEST_BY and not needs_metric:
        # The Trainer would keep a best checkpoint besides those that it is told to keep.
        training_args.metric_for_best_model = training_args.greater_is_better = None
    return (*parsed, training_args)
