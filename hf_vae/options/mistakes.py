"""A user's mistakes: what was probably meant, and one line in the place of a traceback."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

# Set, it brings the traceback back.
TRACEBACK = "HF_VAE_TRACEBACK"


def with_guess(name: str, known: Iterable[str]) -> str:
    """`name`, and the one of the `known` names that it may be meant for."""
    known = list(known)
    meant = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(name.lstrip("-").replace("-", "_"), known, n=1)
    return f"{name} (did you mean {meant[0]}?)" if meant else name


def refuse_unknown(words: Iterable[str], known: Iterable[str], hint: str = "") -> None:
    """
    Raises a `ValueError` if there are `words` of a command line that no argument has taken.

    Args:
        words (`list[str]`): values of unknown arguments among them.
        known (`list[str]`): names of arguments.
        hint (`str`): what else may be wrong.
    """
    words, options = list(words), [f"--{name}" for name in known]
    if words:
        told = " ".join(with_guess(word, options) if word.startswith("-") else word for word in words)
        raise ValueError(f"The command line has no such argument(s): {told}{hint}.")


def program() -> str:
    """The command as the user called it."""
    name = sys.argv[0]
    return Path(name).name if name.endswith(".py") else name


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """
    A mistake that the package refuses in words, or a file that is not there, ends the program with that line and status 2. Any
    other error keeps its traceback, and so does everything with `HF_VAE_TRACEBACK` in the environment.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{program()}: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        message = None if os.environ.get(TRACEBACK) else _message(error)
        if message is None:
            raise
        print(f"\n{program()}: {message}", file=sys.stderr)
        raise SystemExit(2) from None


def _message(error: BaseException | None) -> str | None:
    """What to tell the user of an `error`; `None` if it may be a bug."""
    while error is not None:
        if isinstance(error, OSError) or (isinstance(error, (ValueError, FloatingPointError, ImportError)) and _is_ours(error)):
            return str(error)
        # A configuration's checks are ours, and the dataclass that calls them wraps what they raise.
        error = error.__cause__ if type(error).__module__.startswith("huggingface_hub") else None
    return None


def _is_ours(error: BaseException) -> bool:
    """Whether the package itself raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = Path(cast(Any, find_spec("hf_vae")).origin).parent
    return bool(frames) and Path(frames[-1].filename).is_relative_to(folder)
