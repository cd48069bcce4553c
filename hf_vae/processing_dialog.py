"""Dialogues to tensors: messages as chat templates take them, with who spoke, acts, and what else is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase

from .configuration_dialog_cvae import CONTEXT_ENCODINGS
from .configuration_vae import check_choice
from .processing_vae import ConditionalVAEProcessor, check_rows

Message = dict[str, str]


def replying_role(messages: Sequence[Message]) -> str | None:
    """Who is expected to reply: the one who spoke last before somebody else did, or `None`, somebody who has not spoken yet."""
    last = messages[-1]["role"]
    return next((message["role"] for message in reversed(messages) if message["role"] != last), None)


class DialogCVAEProcessor(ConditionalVAEProcessor):
    r"""
    The two tokenizers of a [`DialogCVAEModel`]. What it takes as `text` is a dialogue or a list of them. A dialogue is a list of
    messages `{"role": …, "content": …}`, as chat templates take them, or a dictionary with the messages and what else is known:

    - `messages`: the turns so far;
    - `role` (*optional*): who replies; where it is not given, the one who spoke last before the last speaker did. Only who replies
      and who does not is told apart, so any name will do;
    - `act` (*optional*): the act of the reply, one of `acts`; in training that of the target, in generation the one that is wanted;
    - `meta` (*optional*): a dictionary with a value for each of `meta_categories` and `meta_values`.

    As one text every turn stands on a line that opens with one of `speaker_marks`, and the prompt ends with the mark of the one who
    replies; a decoder's tokenizer with a chat template writes the prompt with that, turns of one side in succession as one message.
    Of a dialogue with more than `max_turns` turns the last ones are read. As one text, turns are left out from the oldest on until
    the rest has no more than `max_length` tokens; of a last turn that has more by itself, the end is read.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the decoder's.
        encoder_tokenizer (`PreTrainedTokenizerBase`): the encoder's; it truncates on the left from now on.
        source_conditioning (`str`, defaults to `"prompt"`): the model's.
        context_encoding (`str`, defaults to `"flat"`): the model's.
        acts (`list[str]`, *optional*): names of the acts, by their numbers.
        meta_categories (`dict[str, list[str]]`, *optional*): the categorical features and the values of each.
        meta_values (`list[str]`, *optional*): the features that are numbers.
        speaker_marks (`list[str]`, defaults to `["user:", "assistant:"]`): what opens a turn of somebody else, and of the one who
            replies.
        max_turns (`int`, defaults to 10): turns that are read.
        max_turn_length (`int`, *optional*): tokens of each turn that are read with `context_encoding="hierarchical"`.

    Raises:
        ValueError: a choice that does not exist, or a number out of range.
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
        **kwargs,
    ):
        check_choice("context_encoding", context_encoding, CONTEXT_ENCODINGS)
        for name, least in (("max_turns", max_turns), ("max_turn_length", max_turn_length)):
            if least is not None and least < 1:
                raise ValueError(f"`{name}` is {least}; at least 1 is read.")
        if len(speaker_marks) != 2:
            raise ValueError(f"`speaker_marks` is {list(speaker_marks)}; there are two, of others and of the one who replies.")
        super().__init__(tokenizer, encoder_tokenizer, source_conditioning, **kwargs)
        encoder_tokenizer.truncation_side = "left"
        self.context_encoding = context_encoding
        self.acts = None if acts is None else list(acts)
        self.meta_categories = dict(meta_categories or {})
        self.meta_values = list(meta_values or ())
        self.speaker_marks = list(speaker_marks)
        self.max_turns, self.max_turn_length = max_turns, max_turn_length

    # A dialogue -----------------------------------------------------------------------------------------------------------

    def batch(self, text: Any) -> tuple[list[dict], bool]:
        # A message has no messages.
        single = isinstance(text, dict) or (bool(text) and isinstance(text[0], dict) and "messages" not in text[0])
        dialogues = [text] if single else list(text)
        if not dialogues:
            raise ValueError("`text` is an empty list.")
        return [self._checked(number, dialogue) for number, dialogue in enumerate(dialogues)], single

    def _checked(self, number: int, dialogue: Any) -> dict:
        """The last turns of a dialogue as `{"messages", "own", "act", "meta"}`; `own` says which are of the one who replies."""
        given = dialogue if isinstance(dialogue, dict) else {"messages": dialogue}
        unknown = sorted(set(given) - {"messages", "role", "act", "meta"})
        if unknown:
            raise ValueError(f"Dialogue {number} has {', '.join(unknown)}; it may have messages, role, act and meta.")
        messages = list(given.get("messages") or ())
        if not messages:
            raise ValueError(f"Dialogue {number} has no turns: there is nothing to reply to.")
        for turn, message in enumerate(messages):
            content = message.get("content")
            if not isinstance(content, str) or not content.strip() or "role" not in message:
                raise ValueError(
                    f"Turn {turn} of dialogue {number} is {message!r}; it needs a `role` and a `content` with some text."
                )
        role = given.get("role")
        role = replying_role(messages) if role is None else role
        messages = messages[-self.max_turns :]
        own = [message["role"] == role for message in messages]
        return {"messages": messages, "own": own, "act": self._act(given.get("act")), "meta": self._meta(number, given.get("meta"))}

    def _act(self, act: str | None) -> int:
        if act is None:
            return -100
        if self.acts is None:
            raise ValueError(f"The act {act!r} is given, but the processor has no `acts`.")
        if act not in self.acts:
            raise ValueError(f"The act {act!r} is not known; the acts are {', '.join(self.acts)}.")
        return self.acts.index(act)

    def _meta(self, number: int, meta: dict | None) -> dict[str, list]:
        names = [*self.meta_categories, *self.meta_values]
        if set(meta or ()) != set(names):
            raise ValueError(f"`meta` of dialogue {number} has {sorted(meta or ())}; the processor reads {sorted(names)}.")
        features: dict[str, list] = {}
        if meta and self.meta_categories:
            for name, values in self.meta_categories.items():
                if meta[name] not in values:
                    raise ValueError(f"`meta[{name!r}]` of dialogue {number} is {meta[name]!r}; it may be {', '.join(values)}.")
            features["meta_categories"] = [values.index(meta[name]) for name, values in self.meta_categories.items()]
        if meta and self.meta_values:
            features["meta_values"] = [float(meta[name]) for name in self.meta_values]
        return features

    # As one text ----------------------------------------------------------------------------------------------------------

    def as_text(self, dialogue: dict) -> str:
        """The turns as one text, a line each."""
        return "\n".join(
            f"{self.speaker_marks[own]} {message['content'].strip()}"
            for message, own in zip(dialogue["messages"], dialogue["own"], strict=True)
        )

    def _chat_prompt(self, dialogue: dict) -> list[int]:
        sides: list[Message] = []
        for message, own in zip(dialogue["messages"], dialogue["own"], strict=True):
            role = "assistant" if own else "system" if message["role"] == "system" else "user"
            if sides and sides[-1]["role"] == role:
                sides[-1]["content"] += f"\n{message['content']}"
            else:
                sides.append({"role": role, "content": message["content"]})
        ids: Any = self.tokenizer.apply_chat_template(sides, add_generation_prompt=True, tokenize=True, return_dict=False)
        return ids

    def _prompts(self, dialogues: list[dict]) -> list[list[int]]:
        if getattr(self.tokenizer, "chat_template", None):
            return [self._chat_prompt(dialogue) for dialogue in dialogues]
        texts = [f"{self.as_text(dialogue)}\n{self.speaker_marks[True]}" for dialogue in dialogues]
        return [self._open(row) for row in self.tokenizer(texts)["input_ids"]]

    @staticmethod
    def _within(dialogues: list[dict], longest: int | None, tokenize) -> tuple[list[dict], list[list[int]]]:
        """
        The last turns of each dialogue that make no more than `longest` tokens, but at least one, and what `tokenize` makes of
        them.
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

    # To tensors -----------------------------------------------------------------------------------------------------------

    def features(self, texts: list, targets: list[str] | None, cuts: dict[str, dict[str, Any]]) -> dict[str, list]:
        """Unpadded features by the names of the model's arguments; `cuts` has tokenizers' options for text, target and pair."""
        features: dict[str, list] = {}
        longest = cuts["text"]["max_length"] if cuts["text"]["truncation"] else None
        if self.context_encoding == "flat":
            read, _ = self._within(texts, longest, lambda each: self.encoder_tokenizer([*map(self.as_text, each)])["input_ids"])
            lines = [self.as_text(dialogue) for dialogue in read]
            source = self.encoder_tokenizer(lines, **cuts["text"])
            features.update({name: source[name] for name in ("input_ids", "attention_mask")})
        else:
            cut = {"truncation": self.max_turn_length is not None, "max_length": self.max_turn_length}
            turns = self._first_tokens([message["content"] for text in texts for message in text["messages"]], cut)
            features["input_ids"] = [[next(turns) for _ in text["messages"]] for text in texts]
            features["same_speaker"] = [[int(own) for own in text["own"]] for text in texts]
        if self.source_conditioning == "prompt":
            _, prompts = self._within(texts, longest, self._prompts)
            features["prompt_input_ids"] = [prompt if longest is None else prompt[-longest:] for prompt in prompts]
            features["prompt_attention_mask"] = [[1] * len(prompt) for prompt in features["prompt_input_ids"]]
        for name in texts[0]["meta"]:
            features[name] = [text["meta"][name] for text in texts]
        # With targets always, so that all parts of a corpus have the same columns, whichever turns are annotated.
        if self.acts is not None and (targets is not None or any(text["act"] != -100 for text in texts)):
            features["act_labels"] = [text["act"] for text in texts]
        if targets is not None:
            if self.context_encoding == "flat":
                pair = dict(self._pair(lines, targets, cuts["pair"]))
            else:
                rows = list(self._first_tokens(targets, cuts["target"]))
                pair = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
            features.update({f"posterior_{name}": rows for name, rows in pair.items()})
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def _first_tokens(self, texts: list[str], cut: dict[str, Any]) -> Iterator[list[int]]:
        """Each text as the encoder reads it by itself; of one that is too long the beginning."""
        side, self.encoder_tokenizer.truncation_side = self.encoder_tokenizer.truncation_side, "right"
        rows = self.encoder_tokenizer(texts, **cut)["input_ids"]
        self.encoder_tokenizer.truncation_side = side
        return iter(rows)

    def pad(
        self,
        features: list[dict[str, Any]],
        padding: bool | str = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchEncoding:
        """As [`ConditionalVAEProcessor.pad`]; with `context_encoding="hierarchical"` turns are padded behind the last one."""
        own: set[str] = {name for name in ("same_speaker", "meta_categories", "meta_values", "act_labels") if name in features[0]}
        if self.context_encoding == "hierarchical":
            own.add("input_ids")
        rest = [{name: row[name] for name in row if name not in own} for row in features]
        options: dict[str, Any] = {"padding": padding, "pad_to_multiple_of": pad_to_multiple_of, "return_tensors": return_tensors}
        batch = super().pad(rest, **options) if rest[0] else BatchEncoding()
        if "act_labels" in own:
            batch["act_labels"] = torch.tensor([row["act_labels"] for row in features])
        if "meta_categories" in own:
            batch["meta_categories"] = torch.tensor([row["meta_categories"] for row in features])
        if "meta_values" in own:
            batch["meta_values"] = torch.tensor([row["meta_values"] for row in features], dtype=torch.float32)
        if "input_ids" in own:
            check_rows("input_ids", [row["input_ids"] for row in features], len)
            turns = max(len(row["input_ids"]) for row in features)
            words = max(len(turn) for row in features for turn in row["input_ids"])
            shape = (len(features), turns, words)
            batch["input_ids"] = torch.full(shape, self.encoder_tokenizer.pad_token_id)
            batch["attention_mask"] = torch.zeros(shape, dtype=torch.long)
            batch["same_speaker"] = torch.zeros(shape[:2], dtype=torch.long)
            for number, row in enumerate(features):
                batch["same_speaker"][number, : len(row["same_speaker"])] = torch.tensor(row["same_speaker"])
                for turn, ids in enumerate(row["input_ids"]):
                    batch["input_ids"][number, turn, : len(ids)] = torch.tensor(ids)
                    batch["attention_mask"][number, turn, : len(ids)] = 1
        return batch


__all__ = ["DialogCVAEProcessor"]
