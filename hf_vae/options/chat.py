"""The arguments of `chat`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ChatArguments:
    model: str = field(metadata={"help": "Directory or Hub name of a dialogue model."})
    num_replies: int = field(default=3, metadata={"help": "Replies to each turn."})
    latent_temperature: float | None = field(
        default=None, metadata={"help": "Factor on the spread of z; 0 gives the likeliest z. Default: the model's."}
    )
    latent_spread: str | None = field(
        default=None,
        metadata={
            "help": "How the z of one turn's replies lie to each other: independent, quasi_random, ... Default: the model's."
        },
    )
    max_length: int | None = field(default=None, metadata={"help": "Tokens of the conversation that are read."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest reply."})
    seed: int | None = field(default=None, metadata={"help": "Random seed of z."})
