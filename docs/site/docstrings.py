"""
Reads docstrings in transformers' style, a dialect of Google's: brings them to the form that griffe parses, and makes links of
[`ClassName`] and [`~ClassName.method`].
"""

import re
from pathlib import Path

from griffe import Class, Extension, Module, Object

API = Path(__file__).resolve().parents[1] / "api"
# What the pages of the reference show, by its last name: [`VAEModel`] is written without the module it is in.
DOCUMENTED = {
    name.rpartition(".")[2]: name
    for page in sorted(API.glob("*.md"))
    for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
}
_REFERENCE = re.compile(r"\[`~?([\w.]+)`\](?![\[(])")
_ARGUMENTS = re.compile(r"^(Args|Attributes):\n((?: +.*\n?|\n)+)", re.MULTILINE)
# `names (type): text`; the type may hold parentheses, and may go on in the next line.
_HEADER = re.compile(r"^(?P<names>\w+(?:, \w+)*) \((?P<type>(?:[^()]|\([^()]*\))*)\)[:.]?\s*", re.DOTALL)


def linked(text: str, package: Module) -> str:
    """References as links to what the pages show, and as code where they show nothing of that name."""

    def link(match: re.Match) -> str:
        parts = match[1].split(".")
        start = next((index for index, part in enumerate(parts) if part in DOCUMENTED), None)
        if start is None:
            return f"`{match[1]}`"
        target, method = DOCUMENTED[parts[start]], parts[start + 1 :]
        if method and method[0] in (owner := package[target.removeprefix("hf_vae.")]).members and owner[method[0]].docstring:
            target = f"{target}.{method[0]}"
        return f"[`{'.'.join(parts[start:])}`][{target}]"

    return _REFERENCE.sub(link, text)


def _argument(item: str, defaults: set[str]) -> str:
    """One argument in Google's form: its header in one line, its type in plain text."""
    header = _HEADER.match(item)
    if header is None:
        return item
    kind = " ".join(header["type"].split())
    kind = re.sub(r"\[`~?([\w.]+)`\]", r"\1", kind).replace("`", "").replace("*optional*", "optional")
    if header["names"] in defaults:
        # The signature shows it.
        kind = re.sub(r", (optional|defaults to .*)", "", kind)
    text = item[header.end() :].rstrip("\n")
    return f"{header['names']} ({kind}): {text}" + "\n" * item.count("\n", len(item.rstrip("\n")))


def as_google(docstring: str, defaults: set[str]) -> str:
    """`docstring` with its arguments as griffe reads them; `defaults` are those whose default the signature shows."""

    def rewritten(match: re.Match) -> str:
        items = re.split(r"^    (?=\S)", match[2], flags=re.MULTILINE)[1:]
        return f"{match[1]}:\n" + "".join("    " + _argument(item, defaults) for item in items)

    return _ARGUMENTS.sub(rewritten, docstring)


def _defaults(item: Object) -> set[str]:
    if not (item.is_function or isinstance(item, Class)):
        return set()
    return {parameter.name for parameter in item.parameters if parameter.default is not None}


def _documented_objects(item: Object):
    yield item
    for member in item.members.values():
        if not member.is_alias:
            yield from _documented_objects(member)


class TransformersDocstrings(Extension):
    """For griffe, by mkdocs.yml."""

    def on_package(self, *, pkg, **_) -> None:
        for item in _documented_objects(pkg):
            if item.docstring is not None:
                item.docstring.value = linked(as_google(item.docstring.value, _defaults(item)), pkg)
