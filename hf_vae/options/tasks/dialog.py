"""The arguments of `train dialog`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import SplitArguments
from ..model import ConditionalArguments
from ..report import PairEvaluationArguments


@dataclass
class DialogArguments(ConditionalArguments):
    prior_type: str = field(default="conditional", metadata={"help": "conditional: a network p(z|x). standard: N(0, I)."})
    use_chat_template: bool | None = field(
        default=None,
        metadata={
            "help": "true: the chat template of the decoder's tokenizer writes the prompt, and its last token is the start token; "
            "false: prompts are plain text. Default: a chat template, if there is one, and then the decoder's BOS."
        },
    )
    context_encoding: str = field(
        default="flat", metadata={"help": "flat: the turns as one text; hierarchical: turn by turn and a GRU over them."}
    )
    knowledge_guided: bool = field(
        default=False, metadata={"help": "Predict the reply's act and condition on it; turns need acts."}
    )
    act_embedding_size: int = field(default=30, metadata={"help": "Width of an act's embedding."})
    act_hidden_size: int = field(default=400, metadata={"help": "Width of the hidden layer that predicts the act."})
    meta_embedding_size: int = field(default=30, metadata={"help": "Width of each meta feature's embedding."})


@dataclass
class DataArguments(SplitArguments):
    train_file: str | None = field(
        default=None, metadata={"help": "JSON lines or a dataset's name. Without it: the embedded dialogues."}
    )
    test_file: str | None = field(
        default=None, metadata={"help": "As train_file, with references if there are several. Default: validation_file."}
    )
    meta_columns: list[str] = field(default_factory=list, metadata={"help": "Columns with what else is known of a dialogue."})
    max_turns: int = field(default=10, metadata={"help": "The last turns of a context that are read."})
    max_turn_length: int | None = field(default=None, metadata={"help": "With hierarchical: tokens of each turn that are read."})
    max_source_length: int = field(
        default=128, metadata={"help": "Longest context in tokens, as one text; a longer one keeps its last turns."}
    )
    max_target_length: int = field(
        default=40, metadata={"help": "Longest reply in tokens with its EOS; a longer one is truncated."}
    )
    num_dialogues: int = field(default=60_000, metadata={"help": "Embedded dialogues: training contexts with a reply each."})


@dataclass
class EvaluationArguments(PairEvaluationArguments):
    num_outputs: int = field(default=10, metadata={"help": "Replies to each test context."})
    word_vectors: str | None = field(default=None, metadata={"help": "A text file of word vectors, for A-bow and E-bow."})
