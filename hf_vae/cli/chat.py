"""The command that talks to a dialogue model in the terminal; examples/chat.py shows how it is called."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence

import torch
from transformers import AutoModel, AutoProcessor

from ..configuration_dialog_cvae import DialogCVAEConfig
from ..dialog_session import DialogSession, Reply
from ..hub.saved_model import saved_config
from ..options.chat import ChatArguments
from ..processing_vae import check_text_length
from .checks import check_draws, check_least, check_model_name
from .parsing import parse_plain

_HELP = """\
Write a turn, and the model answers with several replies. Each has a z of its own; the first counts as said.
  (an empty line)  other replies to the same turn
  /2               says the second reply in place of the first
  /act NAME        asks for replies of this act from now on; /act alone for any
  /acts            lists the acts
  /reset           a new conversation
  /help            this list
  /quit            ends; so do Ctrl-D and Ctrl-C"""
_COMMANDS = "/1, /2, …, /act, /acts, /reset, /help and /quit"


def main(argv: Sequence[str]) -> None:
    (arguments,) = parse_plain((ChatArguments,), argv, "model")
    check_least(vars(arguments), {"num_replies": 1, "max_new_tokens": 1})
    check_draws(vars(arguments))
    check_model_name(arguments.model)
    config = saved_config(arguments.model)
    if not isinstance(config, DialogCVAEConfig):
        raise ValueError(f"{arguments.model} holds a model of type {config.model_type!r}, and this talks to a dialogue model.")
    processor = AutoProcessor.from_pretrained(arguments.model)
    check_text_length("--max_length", arguments.max_length, processor.encoder_tokenizer)
    model = AutoModel.from_pretrained(arguments.model)
    longest = model.longest_context(arguments.max_new_tokens)
    if None not in (longest, arguments.max_length) and arguments.max_length > longest:
        raise ValueError(f"`--max_length` is {arguments.max_length}; beside a reply the model holds {longest} tokens.")
    generator = torch.Generator()
    generator.manual_seed(arguments.seed) if arguments.seed is not None else generator.seed()
    print(f"This is {arguments.model}, a dialogue model.\n{_HELP}\n{_acts(processor.acts)}\n")
    try:
        Conversation(DialogSession(model, processor, generator=generator), arguments).run()
    except KeyboardInterrupt:
        print()


def _acts(acts: Sequence[str] | None) -> str:
    return f"(the acts are {', '.join(acts)})" if acts else "(this model has no acts)"


def _lines() -> Iterator[str]:
    """What is written, with a prompt and a history if somebody writes it."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        # `input` then has a history, and keys to edit with.
        importlib.import_module("readline")
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


class Conversation:
    """
    Answers every line of the standard input until it ends.

    Args:
        session ([`DialogSession`]): of the model.
        arguments ([`ChatArguments`]): how it replies.
    """

    def __init__(self, session: DialogSession, arguments: ChatArguments):
        self.session, self.arguments = session, arguments
        self.act: str | None = None
        self.replies: list[Reply] = []

    def run(self) -> None:
        for line in map(str.strip, _lines()):
            if line == "/quit":
                return
            if line.startswith("/"):
                command, _, rest = line.partition(" ")
                print(self.obey(command, rest.strip()), end="")
            else:
                self.answer(line)

    def obey(self, command: str, rest: str) -> str:
        """Does what a line that begins with a slash says, and gives what is to be printed."""
        if command == "/help":
            return f"{_HELP}\n"
        if command == "/acts":
            return f"{_acts(self.session.processor.acts)}\n"
        if command == "/reset":
            self.session.messages.clear()
            self.replies = []
            return "(a new conversation)\n"
        if command == "/act":
            acts = self.session.processor.acts
            self.act = rest if rest in (acts or ()) else None
            return f"{_acts(acts)}\n" if rest and self.act is None else ""
        chosen = command.removeprefix("/")
        if not chosen.isdecimal():
            return f"({command} is no command; there are {_COMMANDS})\n"
        text = self.replies[int(chosen) - 1].text if 1 <= int(chosen) <= len(self.replies) else ""
        if not text:
            return f"(there is no reply {chosen} to say)\n"
        self.session.messages[-1]["content"] = text
        return f"(said: {text})\n"

    def answer(self, line: str) -> None:
        """Replies to a line, or anew to the turn before it if it is empty."""
        session, arguments = self.session, self.arguments
        if line:
            session.say(line)
        elif session.messages and session.messages[-1]["role"] == session.role:
            session.messages.pop()
        if not session.messages:
            return
        self.replies = session.replies(
            arguments.num_replies,
            act=self.act,
            latent_temperature=arguments.latent_temperature,
            latent_spread=arguments.latent_spread,
            max_length=arguments.max_length,
            max_new_tokens=arguments.max_new_tokens,
            do_sample=False,
        )
        for number, reply in enumerate(self.replies, start=1):
            print(f"{number}. {reply.text or '(empty)'}" + (f"   [{reply.act}]" if reply.act else ""))
        # A reply may be empty, which is no turn.
        said = next((reply for reply in self.replies if reply.text), None)
        if said is not None:
            session.say(said.text, session.role)
