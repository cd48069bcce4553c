"""Dialogues to tensors: messages as chat templates take them, their speakers, acts, and other features."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase
from transformers.utils import logging

from .checks import check_choice, check_count
from .configuration_dialog_cvae import CONTEXT_ENCODINGS
from .padding import check_rows
from .processing_conditional_vae import ConditionalVAEProcessor
from .processing_vae import as_items, check_text_length, is_text
from .prompt_templates import REFUSALS, SOURCE, PromptTemplate, chat_ids

logger = logging.get_logger(__name__)

Message = dict[str, str]
# The role of messages that set the scene. It never replies.
SYSTEM = "system"


def replying_role(messages: Sequence[Message]) -> str | None:
    """
    The role that is expected to reply: that of the last speaker before the present one. `None` means somebody who has not spoken
    yet. The system never replies.
    """
    speakers = [message["role"] for message in messages if message["role"] != SYSTEM]
    return next((speaker for speaker in reversed(speakers) if speaker != speakers[-1]), None)


class DialogCVAEProcessor(ConditionalVAEProcessor):
    r"""
    The two tokenizers of a [`DialogCVAEModel`]. Its `text` is a dialogue or a list of dialogues. A dialogue is a list of messages
    `{"role": …, "content": …}`, as chat templates take them, or a dictionary with these keys:

    - `messages`: the turns so far;
    - `role` (*optional*): who replies; by default the last speaker before the present one. The model only knows turns of the one
      who replies and turns of others, so any name will do, except `"system"`, which never replies;
    - `act` (*optional*): the act of the reply, one of `acts`: in training the target's act, in generation the act that you want;
    - `meta` (*optional*): a dictionary with a value for each of `meta_categories` and `meta_values`.

    In a text, each turn is a line that begins with one of `speaker_marks`, and the prompt ends with the mark of the one who
    replies. If the decoder's tokenizer has a chat template, the template writes the prompt (unless `use_chat_template` is `False`),
    and successive turns of one side become one message. Some templates want the user to begin, or refuse system messages. For them
    a system message becomes part of the user's next turn, and an empty turn of the user precedes a dialogue that the replying side
    begins. If the template refuses that too, the prompt is plain text, as for other decoders, and a warning says so. A special
    token that is written in a message is text in a chat template; elsewhere it is that token, as in [`VAEProcessor`].

    Only the last `max_turns` turns of a dialogue are read. In a text, the oldest turns are left out until the rest has at most
    `max_length` tokens; if the last turn alone has more, its end is read.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the decoder's.
        encoder_tokenizer (`PreTrainedTokenizerBase`): the encoder's. If it truncates on the right, a copy is used that truncates on
            the left.
        source_conditioning (`str`, defaults to `"prompt"`): the model's.
        context_encoding (`str`, defaults to `"flat"`): the model's.
        acts (`list[str]`, *optional*): the names of the acts, in the order of their numbers.
        meta_categories (`dict[str, list[str]]`, *optional*): the categorical features and the values of each.
        meta_values (`list[str]`, *optional*): the features that are numbers.
        speaker_marks (`list[str]`, defaults to `["user:", "assistant:"]`): how a turn of somebody else begins, and how a turn of
            the one who replies begins.
        max_turns (`int`, defaults to 10): the number of turns that are read.
        max_turn_length (`int`, *optional*): the number of tokens of each turn that are read with
            `context_encoding="hierarchical"`; by default a call's `max_length`.
        max_context_length (`int`, *optional*): the `max_length` of calls that give none.
        prompt_template (`str`, *optional*): the prompt, with `{source}` in the place of the turns as a text:
            `"{source}\nassistant:"`. As of a [`ConditionalVAEProcessor`], the last token behind the turns is the start token.
        use_chat_template (`bool`, *optional*): `None` as above: a chat template, if there is one, and then the model's start token.
            With `True` the chat template's last token is the start token, and what it refuses is an error. With `False` prompts are
            plain text.

    Raises:
        ValueError: a choice does not exist, a number is out of range, or a template cannot serve.
    """

    marks_of_speakers = ("user:", "assistant:")

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder_tokenizer: PreTrainedTokenizerBase,
        source_conditioning: str = "prompt",
        context_encoding: str = "flat",
        acts: Sequence[str] | None = None,
        meta_categories: dict[str, list[str]] | None = None,
        meta_values: Sequence[str] | None = None,
        speaker_marks: Sequence[str] = marks_of_speakers,
        max_turns: int = 10,
        max_turn_length: int | None = None,
        max_context_length: int | None = None,
        prompt_template: str | None = None,
        use_chat_template: bool | None = None,
        **kwargs,
    ):
        check_choice("context_encoding", context_encoding, CONTEXT_ENCODINGS)
        check_count("max_turns", max_turns)
        for name, length in (("max_turn_length", max_turn_length), ("max_context_length", max_context_length)):
            check_text_length(name, length, encoder_tokenizer)
        _check_names("speaker_marks", speaker_marks)
        if len(speaker_marks) != 2:
            raise ValueError(
                f"`speaker_marks` is {list(speaker_marks)}; give two marks, one for others and one for the one who replies."
            )
        _check_names("acts", acts)
        _check_names("meta_values", meta_values)
        for name, values in (meta_categories or {}).items():
            _check_names(f"meta_categories[{name!r}]", values)
        if encoder_tokenizer.truncation_side != "left":
            encoder_tokenizer = copy.deepcopy(encoder_tokenizer)
            encoder_tokenizer.truncation_side = "left"
        if prompt_template is not None and use_chat_template:
            raise ValueError(
                "`prompt_template` and `use_chat_template` are given, and the turns of a dialogue are messages of their own: leave "
                "one of them out."
            )
        super().__init__(tokenizer, encoder_tokenizer, source_conditioning, prompt_template, use_chat_template, **kwargs)
        self.context_encoding = context_encoding
        self.acts = None if acts is None else list(acts)
        self.meta_categories = dict(meta_categories or {})
        self.meta_values = list(meta_values or ())
        self.speaker_marks = list(speaker_marks)
        self.max_turns, self.max_turn_length, self.max_context_length = max_turns, max_turn_length, max_context_length

    @property
    def template_length(self) -> int:
        """None: `max_length` counts all that the decoder reads of a dialogue."""
        return 0

    def __call__(
        self, text: Any, text_target: Any = None, max_length: int | None = None, *more: Any, **options: Any
    ) -> BatchEncoding:
        """As [`ConditionalVAEProcessor.__call__`]; `max_length` defaults to the processor's `max_context_length`."""
        longest = self.max_context_length if max_length is None else max_length
        return super().__call__(text, text_target, longest, *more, **options)

    def batch(self, text: Any) -> tuple[list[dict], bool]:
        if isinstance(text, Mapping) and "messages" in text:
            return [self._checked(0, text)], True
        expected = "a dialogue, which is a list of messages or a dictionary with `messages`, or a list of dialogues"
        items = as_items("text", text, expected)
        # A dialogue in a dictionary has `messages`, and a message does not.
        single = isinstance(items[0], Mapping) and "messages" not in items[0]
        return [self._checked(number, dialogue) for number, dialogue in enumerate([items] if single else items)], single

    def _checked(self, number: int, dialogue: Any) -> dict:
        """The last turns of a dialogue as `{"messages", "own", "act", "meta"}`; `own` marks the turns of the one who replies."""
        given = dialogue if isinstance(dialogue, Mapping) else {"messages": dialogue}
        unknown = sorted(set(given) - {"messages", "role", "act", "meta"})
        if unknown:
            raise ValueError(
                f"Dialogue {number} has {', '.join(unknown)}; it may have messages, role, act and meta: leave the rest out."
            )
        messages = given.get("messages")
        if messages is None or (isinstance(messages, Sequence) and not messages):
            raise ValueError(f"Dialogue {number} has no turns, so there is nothing to reply to: give it at least one.")
        messages = as_items(f"dialogue {number}", messages, "a list of messages, each with a `role` and a `content`")
        for turn, message in enumerate(messages):
            content = message.get("content") if isinstance(message, Mapping) else None
            if not is_text(content) or message.get("role") is None:
                raise ValueError(
                    f"Turn {turn} of dialogue {number} is {message!r}; it needs a `role` and a `content` with some text."
                )
        role = given.get("role")
        if role == SYSTEM:
            raise ValueError(f"The `role` of dialogue {number} is {SYSTEM!r}, which never replies: name another, or leave it out.")
        role = replying_role(messages) if role is None else role
        messages = messages[-self.max_turns :]
        own = [message["role"] == role for message in messages]
        act, meta = self._act(number, given.get("act")), self._meta(number, given.get("meta"))
        return {"messages": messages, "own": own, "act": act, "meta": meta}

    def _act(self, number: int, act: str | None) -> int:
        if act is None:
            return -100
        if self.acts is None:
            raise ValueError(f"The act {act!r} of dialogue {number} is given, but the processor has no `acts`: leave the act out.")
        if act not in self.acts:
            raise ValueError(f"The act {act!r} of dialogue {number} is not known; choose one of {', '.join(self.acts)}.")
        return self.acts.index(act)

    def _meta(self, number: int, meta: Mapping | None) -> dict[str, list]:
        names = [*self.meta_categories, *self.meta_values]
        meta = {} if meta is None else meta
        if not isinstance(meta, Mapping) or set(meta) != set(names):
            found = sorted(meta) if isinstance(meta, Mapping) else repr(meta)
            raise ValueError(
                f"`meta` of dialogue {number} has {found}; the processor reads {sorted(names)}: give each of these a value."
            )
        features: dict[str, list] = {}
        if self.meta_categories:
            for name, values in self.meta_categories.items():
                if meta[name] not in values:
                    known = ", ".join(map(str, values))
                    raise ValueError(f"`meta[{name!r}]` of dialogue {number} is {meta[name]!r}; choose one of {known}.")
            features["meta_categories"] = [values.index(meta[name]) for name, values in self.meta_categories.items()]
        if self.meta_values:
            numbers = {name: _as_number(meta[name]) for name in self.meta_values}
            for name, value in numbers.items():
                if not math.isfinite(value):
                    raise ValueError(f"`meta[{name!r}]` of dialogue {number} is {meta[name]!r}; it must be a finite number.")
            features["meta_values"] = list(numbers.values())
        return features

    def as_text(self, dialogue: dict) -> str:
        """The turns as one text, each on a line."""
        return "\n".join(
            f"{self.speaker_marks[own]} {message['content'].strip()}"
            for message, own in zip(dialogue["messages"], dialogue["own"], strict=True)
        )

    def _chat_messages(self, dialogue: dict, strict: bool) -> list[Message]:
        """
        The turns as messages of a chat template; successive turns of one side become one message. `strict` is for templates that
        only know a user and an assistant, who take turns, and the user begins.
        """
        sides: list[Message] = [{"role": "user", "content": ""}] if strict and dialogue["own"][0] else []
        for message, own in zip(dialogue["messages"], dialogue["own"], strict=True):
            role = "assistant" if own else SYSTEM if message["role"] == SYSTEM and not strict else "user"
            if sides and sides[-1]["role"] == role:
                sides[-1]["content"] += f"\n{message['content']}"
            else:
                sides.append({"role": role, "content": message["content"]})
        return sides

    def _chat_prompt(self, dialogue: dict, longest: int | None) -> list[int] | None:
        """The prompt as the chat template writes it. Of a dialogue that it refuses `None`, or with `use_chat_template` an error."""
        for strict in (False, True):
            messages = self._chat_messages(dialogue, strict)
            try:
                ids = chat_ids(self.tokenizer, messages)
                break
            except REFUSALS as error:
                refusal = error
        else:
            if self.use_chat_template:
                raise ValueError(
                    f"The chat template of the decoder's tokenizer refuses a dialogue ({refusal}): leave `use_chat_template` out, "
                    "and the prompts of such dialogues are plain text."
                )
            logger.warning_once(
                f"The chat template of the decoder's tokenizer refuses a dialogue ({refusal}). The prompts of such dialogues are "
                "plain text with `speaker_marks`."
            )
            return None
        if not self.use_chat_template:
            return ids
        if ids.pop() != self.start_token_id:
            raise ValueError("The chat template of the decoder's tokenizer does not end all prompts with one and the same token.")
        if longest is None or len(ids) <= longest:
            return ids
        *others, last = messages
        template = PromptTemplate.from_chat(self.tokenizer, [*others, {**last, "content": SOURCE}])
        return template.prompts(self.tokenizer, [last["content"]], longest, keep_end=True)[0]

    def _plain_prompts(self, dialogues: list[dict]) -> list[list[int]]:
        texts = [f"{self.as_text(dialogue)}\n{self.speaker_marks[True]}" for dialogue in dialogues]
        return [self._open(row) for row in self.tokenizer(texts)["input_ids"]]

    def _prompts(self, dialogues: list[dict], longest: int | None = None) -> list[list[int]]:
        """What the decoder reads of dialogues in front of the start token; with `longest`, of those whose last turn is too long."""
        if self.prompt_template is not None:
            template = PromptTemplate.parse(self.prompt_template)
            return template.prompts(self.tokenizer, [*map(self.as_text, dialogues)], longest, keep_end=True)
        if self.use_chat_template is False or not getattr(self.tokenizer, "chat_template", None):
            return self._plain_prompts(dialogues)
        return [self._chat_prompt(dialogue, longest) or self._plain_prompts([dialogue])[0] for dialogue in dialogues]

    @staticmethod
    def _within(dialogues: list[dict], longest: int | None, tokenize) -> tuple[list[dict], list[list[int]]]:
        """
        Of each dialogue as many of the last turns as have at most `longest` tokens, but at least one turn, and the tokens that
        `tokenize` makes of them.
        """
        dialogues, rows = list(dialogues), tokenize(dialogues)
        while longest is not None:
            cut = [i for i, row in enumerate(rows) if len(row) > longest and len(dialogues[i]["messages"]) > 1]
            if not cut:
                break
            for i in cut:
                dialogues[i] = {**dialogues[i], **{name: dialogues[i][name][1:] for name in ("messages", "own")}}
            for i, row in zip(cut, tokenize([dialogues[i] for i in cut])):
                rows[i] = row
        return dialogues, rows

    def features(self, texts: list, targets: list[str] | None, cuts: dict[str, dict[str, Any]]) -> dict[str, list]:
        """Unpadded features by the names of the model's arguments; `cuts` has the tokenizers' options for text, target and pair."""
        features: dict[str, list] = {}
        longest = cuts["text"]["max_length"] if cuts["text"]["truncation"] else None
        if self.context_encoding == "flat":
            read, _ = self._within(texts, longest, lambda each: self.encoder_tokenizer([*map(self.as_text, each)])["input_ids"])
            lines = [self.as_text(dialogue) for dialogue in read]
            source = self.encoder_tokenizer(lines, **cuts["text"])
            features.update({name: source[name] for name in ("input_ids", "attention_mask")})
        else:
            most = self.max_turn_length or longest
            cut = {"truncation": most is not None, "max_length": most}
            contents = [message["content"] for text in texts for message in text["messages"]]
            turns = iter(self._beginnings(contents, cut)["input_ids"])
            features["input_ids"] = [[next(turns) for _ in text["messages"]] for text in texts]
            features["same_speaker"] = [[int(own) for own in text["own"]] for text in texts]
        if self.source_conditioning == "prompt":
            read, prompts = self._within(texts, longest, self._prompts)
            if longest is not None:
                # Of those that are still too long a single turn is left.
                pairs = zip(read, prompts)
                prompts = [row if len(row) <= longest else self._prompts([each], longest)[0][-longest:] for each, row in pairs]
            features["prompt_input_ids"] = prompts
            features["prompt_attention_mask"] = [[1] * len(prompt) for prompt in features["prompt_input_ids"]]
        for name in texts[0]["meta"]:
            features[name] = [text["meta"][name] for text in texts]
        # Always with targets, so that all parts of a corpus have the same columns even if some turns have no act.
        if self.acts is not None and (targets is not None or any(text["act"] != -100 for text in texts)):
            features["act_labels"] = [text["act"] for text in texts]
        if targets is not None:
            if self.context_encoding == "flat":
                pair = self._pair(lines, targets, cuts)
            else:
                rows = self._beginnings(targets, cuts["target"])["input_ids"]
                pair = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
            features.update({f"posterior_{name}": rows for name, rows in pair.items()})
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def pad(
        self,
        features: list[dict[str, Any]],
        padding: bool | str = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
        max_length: int | None = None,
        max_target_length: int | None = None,
    ) -> BatchEncoding:
        """
        As [`ConditionalVAEProcessor.pad`]. With `context_encoding="hierarchical"`, empty turns follow the last one, and
        `padding="max_length"` is refused.
        """
        turn_by_turn = self.context_encoding == "hierarchical" and "input_ids" in features[0]
        if self.context_encoding == "hierarchical" and padding in ("max_length", False):
            raise ValueError(
                f"`padding` is {padding!r}; with `context_encoding='hierarchical'` turns are padded to the longest one: leave "
                "`padding` out, or give `pad_to_multiple_of`."
            )
        own = [name for name in ("meta_categories", "meta_values", "act_labels") if name in features[0]]
        apart = {*own, *(("input_ids", "same_speaker") if turn_by_turn else ())}
        rest = [{name: row[name] for name in row if name not in apart} for row in features]
        options: dict[str, Any] = {"padding": padding, "pad_to_multiple_of": pad_to_multiple_of}
        options.update(max_length=max_length, max_target_length=max_target_length)
        batch = super().pad(rest, return_tensors=return_tensors, **options) if rest[0] else BatchEncoding()
        for name in own:
            batch[name] = [row[name] for row in features]
        if turn_by_turn:
            batch.update(self._padded_turns(features, pad_to_multiple_of or 1))
        batch.convert_to_tensors(return_tensors)
        if "meta_values" in own and return_tensors == "np":
            # PyTorch makes these float32, and NumPy float64.
            batch["meta_values"] = batch["meta_values"].astype("float32")
        return batch

    def _padded_turns(self, features: list[dict[str, Any]], multiple_of: int) -> dict[str, list]:
        """Token ids of turns and their mask, `(dialogues, turns, tokens)`, and whose turn each is, `(dialogues, turns)`."""
        check_rows("input_ids", [row["input_ids"] for row in features], len)
        turns = max(len(row["input_ids"]) for row in features)
        words = max(len(turn) for row in features for turn in row["input_ids"])
        words = -(-words // multiple_of) * multiple_of
        padding = self.encoder_tokenizer.pad_token_id
        rows: list[list[list[int]]] = [row["input_ids"] + [[]] * (turns - len(row["input_ids"])) for row in features]
        return {
            "input_ids": [[turn + [padding] * (words - len(turn)) for turn in row] for row in rows],
            "attention_mask": [[[1] * len(turn) + [0] * (words - len(turn)) for turn in row] for row in rows],
            "same_speaker": [row["same_speaker"] + [0] * (turns - len(row["same_speaker"])) for row in features],
        }


def _check_names(name: str, given: Sequence | None) -> None:
    """Raises a `ValueError` unless `given` is a list of different names."""
    if given is not None and (isinstance(given, str) or any(list(given).count(each) > 1 for each in given)):
        raise ValueError(f"`{name}` is {given!r}; give a list in which no two are equal.")


def _as_number(value: Any) -> float:
    """`value` as a float; NaN if it is not a number, or too large for one."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


__all__ = ["DialogCVAEProcessor"]
