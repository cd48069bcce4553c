"""
The output that a page shows below a Python block, in a fenced `text` block, is what the code prints: its words to the letter, its
numbers up to what another processor rounds. The blocks of a page are run in their order, in one namespace.
"""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest

# A Python block, with the output that follows it, if one does.
_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n*```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def agree(printed: str, shown: str) -> bool:
    """Whether two outputs have the same words, and numbers within two in a hundred of each other."""
    numbers = [[float(each) for each in _NUMBER.findall(text)] for text in (printed, shown)]
    same_words = _NUMBER.sub("#", printed) == _NUMBER.sub("#", shown)
    return same_words and numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02)


def has_outputs(page: Path) -> bool:
    return any(block["output"] is not None for block in _BLOCK.finditer(page.read_text(encoding="utf-8")))


def check_outputs(page: Path) -> None:
    """
    Runs the page's blocks, up to the last one that shows an output, and compares what they print. With `WRITE_OUTPUTS` in the
    environment the page is rewritten instead.
    """
    text = page.read_text(encoding="utf-8")
    blocks = list(_BLOCK.finditer(text))
    last = max((number for number, block in enumerate(blocks) if block["output"] is not None), default=-1)
    namespace: dict = {"__name__": "pasted"}
    written, end = [], 0
    for block in blocks[: last + 1]:
        printed = io.StringIO()
        # Behind as many empty lines, so that an error names the page's own.
        code = "\n" * text[: block.start("code")].count("\n") + block["code"]
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), namespace)
        if block["output"] is not None:
            output = printed.getvalue()
            if not os.environ.get("WRITE_OUTPUTS"):
                assert agree(output, block["output"]), f"{page} shows another output; WRITE_OUTPUTS=1 rewrites it."
            written += [text[end : block.start("output")], output]
            end = block.end("output")
    if os.environ.get("WRITE_OUTPUTS"):
        page.write_text("".join([*written, text[end:]]), encoding="utf-8")
