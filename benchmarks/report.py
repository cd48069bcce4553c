"""The results as JSON and as a Markdown table, with the machine and the versions that they depend on."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from .comparison import Row
from .options import Options

PACKAGES = ("torch", "transformers", "tokenizers", "hf_vae")


def machine(options: Options) -> str:
    """In words: processor, its cores, what of it was used."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = f"{len(names)} cores of {names[0]}" if names else name
    if options.device == "cuda":
        name = f"{torch.cuda.get_device_name()}, {name}"
    return f"{name}, {platform.system()}; {options.threads} threads, {options.dtype}, z by {' and '.join(options.latent_injection)}"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def write_json(rows: Sequence[Row], file: Path) -> None:
    file.write_text(json.dumps([row.record() for row in rows], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def figure(value: float | None) -> str:
    """With three digits that count."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""
    lines = ["".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def markdown(rows: Sequence[Row], options: Options, command: str) -> str:
    """The table, and below it what it was made with."""
    head = ("case", "ours", "against", "unit", "ratio", "spread", "target", "")
    lines = []
    for row in rows:
        target = "" if row.target is None else f"{'≤' if row.better == 'lower' else '≥'} {row.target:g}"
        reached = "" if options.quick else {True: "reached", False: "**missed**", None: ""}[row.reached]
        against = f"{figure(row.theirs)} {row.against}".strip()
        ratio = "–" if row.ratio is None else f"{row.ratio:.3f}"
        judged = f"{reached} {row.note}".strip()
        lines.append((row.case, figure(row.ours), against, row.unit, ratio, figure(row.spread), target, judged))
    pairs = max((row.repeats for row in rows), default=0)
    made = f"`{command}`: {machine(options)}; {versions()}; medians of up to {pairs} interleaved pairs, seed {options.seed}."
    if options.quick:
        made += " Quick: too few and too small to mean anything, and not judged."
    return "\n".join([markdown_table(head, lines), "", made, ""])


def write_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """
    Puts `text` between the two marks in the page.

    Raises:
        ValueError: the page does not have them, one after the other, once.
    """
    first, last = map(re.escape, marks)
    whole, found = re.subn(
        f"{first}.*?{last}", lambda _: f"{marks[0]}\n{text}\n{marks[1]}", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"{page} has the marks {' and '.join(marks)} {found} times; it needs them once.")
    page.write_text(whole, encoding="utf-8")
