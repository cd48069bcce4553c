"""The command that talks to a dialogue model in the terminal; examples/chat.py shows how it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import AutoModel, AutoProcessor, HfArgumentParser

from ..dialog_session import DialogSession
from ..modeling_dialog_cvae import DialogCVAEModel
from .checks import check_least


@dataclass
class ChatArguments:
    model: str = field(metadata={"help": "Directory or Hub name of a dialogue model."})
    num_replies: int = field(default=3, metadata={"help": "Replies to each turn."})
    latent_temperature: float | None = field(
        default=None, metadata={"help": "Factor on the spread of z; 0 gives the likeliest z. Default: the model's."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Tokens of the conversation that are read."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest reply."})
    seed: int | None = field(default=None, metadata={"help": "Of the noise in z."})


def main(argv: Sequence[str]) -> None:
    if argv and not argv[0].startswith("-"):
        argv = ["--model", *argv]
    (arguments,) = HfArgumentParser(cast(Any, ChatArguments)).parse_args_into_dataclasses(list(argv))
    check_least(vars(arguments), {"num_replies": 1, "max_new_tokens": 1, "max_length": 1})
    model, processor = AutoModel.from_pretrained(arguments.model), AutoProcessor.from_pretrained(arguments.model)
    if not isinstance(model, DialogCVAEModel):
        raise ValueError(f"{arguments.model} is a {type(model).__name__}; this talks to a DialogCVAEModel.")
    longest = model.longest_context(arguments.max_new_tokens)
    if None not in (longest, arguments.max_length) and arguments.max_length > longest:
        raise ValueError(f"`--max_length` is {arguments.max_length}; beside a reply the model holds {longest} tokens.")
    generator = torch.Generator()
    generator.manual_seed(arguments.seed) if arguments.seed is not None else generator.seed()
    session = DialogSession(model, processor, generator=generator)
    try:
        talk(session, arguments)
    except KeyboardInterrupt:
        print()


def talk(session: DialogSession, arguments: ChatArguments) -> None:
    """Answers every line of the standard input until it ends."""
    processor = session.processor
    act: str | None = None
    replies: list = []
    for line in sys.stdin:
        line = line.strip()
        if line == "/quit":
            break
        if line == "/reset":
            session.messages.clear()
            replies = []
            print("(a new conversation)")
            continue
        command, _, rest = line.partition(" ")
        if command == "/act":
            act = rest.strip() or None
            if act is not None and act not in (processor.acts or ()):
                print(f"(the acts are {', '.join(processor.acts or ()) or 'none: this model has no acts'})")
                act = None
            continue
        if line.startswith("/"):
            chosen = line.removeprefix("/")
            if not chosen.isdecimal():
                print(f"({command} is no command; there are /1, /2, …, /act, /reset and /quit)")
                continue
            text = replies[int(chosen) - 1].text if 1 <= int(chosen) <= len(replies) else ""
            if not text:
                print(f"(there is no reply {chosen} to say)")
                continue
            session.messages[-1]["content"] = text
            print(f"(said: {session.messages[-1]['content']})")
            continue
        if line:
            session.say(line)
        elif session.messages and session.messages[-1]["role"] == session.role:
            session.messages.pop()
        if not session.messages:
            continue
        replies = session.replies(
            arguments.num_replies,
            act=act,
            latent_temperature=arguments.latent_temperature,
            max_length=arguments.max_length,
            max_new_tokens=arguments.max_new_tokens,
            do_sample=False,
        )
        for number, reply in enumerate(replies, start=1):
            print(f"{number}. {reply.text}" + (f"   [{reply.act}]" if reply.act else ""))
        # A reply may be empty, which is no turn.
        said = next((reply for reply in replies if reply.text), None)
        if said is not None:
            session.say(said.text, session.role)
