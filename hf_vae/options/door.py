"""
The console script `hf-vae`, which `python -m hf_vae.cli` is too.

    hf-vae train vae|cvae|dialog|paraphrase [FILE OF ARGUMENTS] [ARGUMENTS]
    hf-vae evaluate MODEL --file FILE [ARGUMENTS]
    hf-vae generate MODEL --file FILE --output FILE [ARGUMENTS]
    hf-vae chat MODEL [ARGUMENTS]
    hf-vae explore [MODEL] [--file FILE] [ARGUMENTS]
    hf-vae export-vllm MODEL FOLDER [ARGUMENTS]

`--help` behind any of them lists its arguments, `--help all` those of transformers' TrainingArguments too. On several processes:
`accelerate launch -m hf_vae.cli train paraphrase …`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from .commands import COMMANDS
from .help import asks_for_help, print_help
from .mistakes import told_in_one_line, with_guess


def main(argv: Sequence[str] | None = None) -> None:
    """
    Runs the command that `argv`, by default the command line, begins with.

    Raises:
        SystemExit: with the usage, after `--help` or for a command that does not exist.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (["-h"], ["--help"]) or (argv[:1] == ["train"] and argv[1:2] in (["-h"], ["--help"])):
        print((__doc__ or "").strip())
        raise SystemExit(0)
    words = 2 if argv[:1] == ["train"] else 1
    command = " ".join(argv[:words])
    if command not in COMMANDS:
        found = f"there is no command {with_guess(command, COMMANDS)}" if command else "a command is missing"
        raise SystemExit(f"hf-vae: {found}; choose one of {', '.join(COMMANDS)}. `hf-vae --help` shows how they are called.")
    # What argparse names in a usage or an error.
    sys.argv[0] = f"hf-vae {command}"
    run(command, argv[words:])


def run(command: str, argv: Sequence[str] | None = None) -> None:
    """
    Runs a command, or prints its help. A user's mistake is told in a line.

    Args:
        command (`str`): its name, such as `train vae`.
        argv (`list[str]`, *optional*): its arguments; by default those of the command line.

    Raises:
        SystemExit: after `--help`, or for a mistake.
    """
    argv, told = list(sys.argv[1:] if argv is None else argv), COMMANDS[command]
    asked = asks_for_help(argv)
    if asked == "short" or (asked and not told.trains):
        print_help(command, argv)
        raise SystemExit(0)
    with told_in_one_line():
        importlib.import_module(f"hf_vae.cli.{told.module}").main(argv)
