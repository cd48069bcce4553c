"""Texts from outside, escaped so that Markdown shows them unchanged."""

import html
import re
from typing import Any

# A line of a corpus may be a whole book.
LONGEST = 500


def as_text(value: Any) -> str:
    """
    `value` on one line of at most `LONGEST` characters, escaped so that it makes no HTML, picture, link, or row or cell of a table.
    """
    line = " ".join(str(value).split())
    line = line if len(line) <= LONGEST else line[: LONGEST - 2] + " …"
    # Only what CommonMark and GitHub's tables, strikethrough, autolinks and formulas read, so that the source stays legible.
    line = re.sub(r"([\\`*\[\]{}|~$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=\bwww)\.|^[-+=#]|(?<=^\d)[.)]|(?<=^\d\d)[.)])", r"\\\1", line)
    return html.escape(line, quote=False) or "(empty)"


def code_block(text: str) -> str:
    """`text` in a code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
