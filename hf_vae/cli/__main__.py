"""
The console script `hf-vae`, which `python -m hf_vae.cli` is too.

    hf-vae train vae|cvae|dialog|paraphrase [FILE OF ARGUMENTS] [ARGUMENTS]
    hf-vae evaluate MODEL --file FILE [ARGUMENTS]
    hf-vae chat MODEL [ARGUMENTS]

`--help` behind any of them lists its arguments. On several processes: `accelerate launch -m hf_vae.cli train paraphrase …`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

_TASKS = {f"train {name}": f"tasks.{name}" for name in ("vae", "cvae", "dialog", "paraphrase")}
# The module of each command, imported when it is called.
COMMANDS = {**_TASKS, "evaluate": "evaluate", "chat": "chat"}


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
        raise SystemExit(f"hf-vae: {f'there is no command {command!r}' if command else 'a command is missing'}; choose one of "
                         f"{', '.join(COMMANDS)}. `hf-vae --help` shows how they are called.")  # fmt: skip
    # What argparse names in a usage or an error.
    sys.argv[0] = f"hf-vae {command}"
    importlib.import_module(f".{COMMANDS[command]}", __package__).main(argv[words:])


if __name__ == "__main__":
    main()
