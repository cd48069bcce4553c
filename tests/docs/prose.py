"""
Plain English, as far as a machine can see it: the length of sentences, and phrases that the project does not use.

    python tests/docs/prose.py FILE...      without files: all that the rules hold for

Prints each offender with its file and line, and ends with 1 if there is one.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The README and the guides are read by those who are in a hurry.
MEAN_WORDS, MOST_WORDS = 18, 30
# Each with what is meant. They are allowed nowhere: not in documents, cards, help or messages.
FORBIDDEN = {
    r"from nothing": "from scratch",
    r"halves": "the encoder and the decoder",
    r"hangs? on": "depends on",
    r"is none of": "is not one of",
}
_FORBIDDEN = re.compile(rf"\b({'|'.join(FORBIDDEN)})\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.?!:])[\"')*_]*\s+(?=[\"'(*_`\[]*[A-Z0-9`—-])")
_LIST_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")


def guides() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs/guides").glob("*.md"))]


def documents() -> list[Path]:
    """Where a forbidden phrase would be read by a user: documents, cards, recipes, and all texts of the package."""
    patterns = ("*.md", "docs/**/*.md", "model_cards/**/*.md", "hf_vae/**/*.md", "hf_vae/**/*.yaml", "examples/**/*.yaml")
    programs = ("hf_vae/**/*.py", "examples/**/*.py", "benchmarks/**/*.py")
    return sorted(path for pattern in (*patterns, *programs) for path in ROOT.glob(pattern))


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """
    The prose of a Markdown text, each paragraph and item of a list with the number of its first line. Headings, tables, code,
    formulas and pictures are no sentences.
    """
    text = re.sub(r"\A---\n.*?\n---\n", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    start, lines, fenced = 0, [], False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            line = ""
        no_prose = fenced or not line.strip() or re.match(r"#|\||!\[|<|\s{4,}\S|:::|\[!\[", line)
        if (no_prose or _LIST_ITEM.match(line)) and lines:
            yield start, " ".join(lines)
            lines = []
        if not no_prose:
            start = start if lines else number
            lines.append(_LIST_ITEM.sub("", line).strip())


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence with the line on which its paragraph begins."""
    for number, paragraph in paragraphs(text):
        plain = re.sub(r"\]\([^)]*\)", "", re.sub(r"!\[[^\]]*\]\([^)]*\)", "", paragraph)).replace("[", "")
        # What stands in code is one word, whatever it holds.
        plain = re.sub(r"`[^`]*`", "`code`", plain)
        yield from ((number, sentence.strip()) for sentence in _SENTENCE_END.split(plain) if re.search(r"\w", sentence))


def words(sentence: str) -> int:
    return len(re.findall(r"[^\W_][\w'’.,/-]*", sentence))


def mean_words(text: str) -> float:
    counted = [words(sentence) for _, sentence in sentences(text)]
    return sum(counted) / max(1, len(counted))


def long_sentences(text: str) -> list[tuple[int, str]]:
    return [(number, f"{words(each)} words: {each}") for number, each in sentences(text) if words(each) > MOST_WORDS]


def forbidden_phrases(text: str) -> list[tuple[int, str]]:
    # A phrase may be broken at the end of a line.
    found = _FORBIDDEN.finditer(re.sub(r"\n(?=.)", " ", text))
    return [(text[: match.start()].count("\n") + 1, f"write {_meant(match[0])!r} or the like") for match in found]


def _meant(phrase: str) -> str:
    return next(plain for forbidden, plain in FORBIDDEN.items() if re.fullmatch(forbidden, phrase, re.IGNORECASE))


def offenders(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    found = forbidden_phrases(text)
    if path in guides():
        found += long_sentences(text)
        if (mean := mean_words(text)) >= MEAN_WORDS:
            found.append((1, f"{mean:.1f} words a sentence in the mean; fewer than {MEAN_WORDS} are asked for"))
    return [f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{number}: {what}" for number, what in sorted(found)]


if __name__ == "__main__":
    paths = [Path(name).resolve() for name in sys.argv[1:]] or documents()
    found = [each for path in paths for each in offenders(path)]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
