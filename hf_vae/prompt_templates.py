"""What is written around a source in the decoder's prompt: by a template of the user's, or by the tokenizer's chat template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

# What a chat template that does not take a conversation raises. One that needs tools, or contents of another type, fails with
# Python's own errors.
REFUSALS = (TemplateError, TypeError, ValueError)
SOURCE = "{source}"


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """
    Messages in the chat template. A special token that is written in a message is text, so that nobody can forge a turn.

    Raises:
        TemplateError: the template leaves a message out.
    """
    options: dict[str, Any] = {"add_generation_prompt": True, "return_dict": False}
    # Characters for private use hold the places of the messages.
    contents = {f"\ue000{number}\ue000": message["content"] for number, message in enumerate(messages)}
    marked = [{**message, "content": mark} for message, mark in zip(messages, contents)]
    text = cast(str, tokenizer.apply_chat_template(marked, tokenize=False, **options))
    left_out = [message["role"] for message, mark in zip(messages, contents) if mark not in text]
    if left_out:
        raise TemplateError(f"it leaves out what the {left_out[0]} says")
    special = _special_tokens(tokenizer)
    if not any(token in message["content"] for message in messages for token in special):
        return cast(list[int], tokenizer.apply_chat_template(messages, tokenize=True, **options))
    ids: list[int] = []
    for piece in re.split("(\ue000\\d+\ue000)", text):
        ids += _tokens(tokenizer, contents.get(piece, piece), split_special_tokens=piece in contents)
    return ids


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts that `tokenizer` reads as one special token."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


@dataclass(frozen=True)
class PromptTemplate:
    """
    The text in front of a source and the text behind it. If there is one behind it, its last token is the start token, which the
    model itself puts in front of y.

    Args:
        before, after (`str`): the two texts.
        is_chat (`bool`, defaults to `False`): whether a chat template has written them. All special tokens are then its own: the
            tokenizer adds none, and one that is written in a source is text.
    """

    before: str
    after: str
    is_chat: bool = False

    @classmethod
    def parse(cls, template: Any) -> PromptTemplate:
        """
        The template of a text with `{source}` in it.

        Raises:
            ValueError: `{source}` is not there, or more than once.
        """
        if not isinstance(template, str) or template.count(SOURCE) != 1:
            raise ValueError(
                f"`prompt_template` is {template!r}; it is a text that holds {SOURCE!r} once, such as '{SOURCE}\\nParaphrase:\\n'."
            )
        before, _, after = template.partition(SOURCE)
        return cls(before, after)

    @classmethod
    def from_chat(cls, tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> PromptTemplate:
        """
        What the chat template of `tokenizer` writes around the `{source}` that one of `messages` holds, an answer being expected.

        Raises:
            ValueError: there is no chat template, or it does not take these messages.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                "`use_chat_template` is set, and the decoder's tokenizer has no chat template: leave it out, set the tokenizer's "
                "`chat_template`, or give a `prompt_template`."
            )
        try:
            text = cast(str, tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            if text.count(SOURCE) != 1:
                raise TemplateError("it does not write once what the message says")
        except REFUSALS as error:
            raise ValueError(
                f"The chat template of the decoder's tokenizer refuses a message of the {messages[-1]['role']} ({error}): leave "
                "`use_chat_template` out, or give a `prompt_template`."
            ) from error
        before, _, after = text.partition(SOURCE)
        return cls(before, after, is_chat=True)

    def start_token_id(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """The last token of the text behind the source; `None` if there is none."""
        end = _tokens(tokenizer, self.after)
        return end[-1] if end else None

    def length(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """How many tokens of a prompt are the template's own."""
        return len(self._begin(tokenizer)) + len(self._end(tokenizer))

    def prompts(
        self, tokenizer: PreTrainedTokenizerBase, sources: list[str], longest: int | None, keep_end: bool
    ) -> list[list[int]]:
        """
        The prompt of each of `sources` without the start token, at most `longest` tokens. Of a source that is too long the
        beginning is read, or with `keep_end` the end.

        Raises:
            ValueError: the template leaves no token for a source.
        """
        opening, end = self._opening(tokenizer), self._end(tokenizer)
        forgeable = _special_tokens(tokenizer) if self.is_chat else []
        rows = tokenizer([self.before + source for source in sources], add_special_tokens=False)["input_ids"]
        prompts = [[*opening, *row, *end] for row in rows]
        for i, source in enumerate(sources):
            too_long = longest is not None and len(prompts[i]) > longest
            if too_long or any(token in source for token in forgeable):
                prompts[i] = self._in_pieces(tokenizer, source, longest, keep_end)
        return prompts

    def _in_pieces(self, tokenizer: PreTrainedTokenizerBase, source: str, longest: int | None, keep_end: bool) -> list[int]:
        begin, end = self._begin(tokenizer), self._end(tokenizer)
        space = self.before[len(self.before.rstrip(" ")) :]
        words = _tokens(tokenizer, space + source, split_special_tokens=self.is_chat)
        if longest is not None:
            room = longest - len(begin) - len(end)
            if room < 1:
                raise ValueError(
                    f"`max_length` is {longest}, and the prompt's template by itself has {len(begin) + len(end)} tokens: it must "
                    f"be at least {len(begin) + len(end) + 1}."
                )
            words = words[-room:] if keep_end else words[:room]
        return [*begin, *words, *end]

    def _begin(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        # Without its last space: in most vocabularies it belongs to the word behind it.
        return [*self._opening(tokenizer), *_tokens(tokenizer, self.before.rstrip(" "))]

    def _end(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        # By itself, so that the start token is the same whatever the source ends with.
        return _tokens(tokenizer, self.after)[:-1]

    def _opening(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        return [] if self.is_chat else _opening(tokenizer)


def check_templates(source_conditioning: str, prompt_template: Any, use_chat_template: Any) -> None:
    """Raises a `ValueError` for a template of a prompt that nobody reads, or a malformed one."""
    if use_chat_template not in (None, False, True):
        raise ValueError(f"`use_chat_template` is {use_chat_template!r}; give True or False.")
    if source_conditioning != "prompt":
        given = {"prompt_template": prompt_template is not None, "use_chat_template": bool(use_chat_template)}
        for name in (name for name, is_given in given.items() if is_given):
            raise ValueError(
                f"`{name}` is given and `source_conditioning` is {source_conditioning!r}, with which the decoder reads no prompt: "
                "leave one of them out."
            )
    if prompt_template is not None:
        PromptTemplate.parse(prompt_template)


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, **options: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False, **options)["input_ids"] if text else []


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that `tokenizer` puts in front of a text."""
    words, with_special = _tokens(tokenizer, "a"), tokenizer("a")["input_ids"]
    places = range(len(with_special) - len(words) + 1)
    return next((with_special[:place] for place in places if with_special[place : place + len(words)] == words), [])


__all__ = ["REFUSALS", "SOURCE", "PromptTemplate", "chat_ids", "check_templates"]
