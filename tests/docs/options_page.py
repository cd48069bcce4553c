"""`docs/reference/options.md`, written from the dataclasses that the commands read their arguments into."""

import dataclasses
import importlib
import re
from collections.abc import Iterable

from helpers import ROOT
from hf_vae.cli.task import Task
from hf_vae.options.commands import COMMANDS

PAGE = ROOT / "docs" / "reference" / "options.md"
TASKS = ("vae", "paraphrase", "cvae", "dialog")

TEMPLATE = """\
# All options

Every option of the commands that is the project's own, under its name. Written by `WRITE_OPTIONS=1 python -m pytest
tests/docs/test_options_page.py`, not by hand. [Commands](commands.md) says how they are called, and [the
glossary](../guides/glossary.md) explains the words.

`hf-vae train` and the scripts also take every argument of transformers' `TrainingArguments`, such as `--learning_rate`,
`--num_train_epochs`, `--bf16` or `--push_to_hub`.

*By itself* is the value that an option has if neither the command line nor the recipe names it. [The default
recipes](commands.md#a-file-of-arguments) set many of them. `--help` behind a command line shows what it would really have.

{sections}
"""
HEADINGS = {
    "train": "## hf-vae train",
    "evaluate": "## hf-vae evaluate",
    "generate": "## hf-vae generate",
    "chat": "## hf-vae chat",
    "explore": "## hf-vae explore",
    "export-vllm": "## hf-vae export-vllm",
}


def _argument_classes(module) -> list[type]:
    return [value for name, value in vars(module).items() if name.endswith("Arguments") and dataclasses.is_dataclass(value)]


def options(classes: Iterable[type]) -> dict[str, dataclasses.Field]:
    """By name, the first of several that are called the same."""
    found: dict[str, dataclasses.Field] = {}
    for each in classes:
        for option in dataclasses.fields(each):
            if option.init and "help" in option.metadata:
                found.setdefault(option.name, option)
    return found


def task_options() -> dict[str, dict[str, dataclasses.Field]]:
    """Those of each task that can be trained."""
    found = {}
    for task in TASKS:
        module = importlib.import_module(f"hf_vae.cli.tasks.{task}")
        [own] = [
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, Task) and each.__module__ == module.__name__
        ]
        found[task] = options(own.arguments)
    return found


def all_options() -> dict[str, dict[str, dataclasses.Field]]:
    """By command: those of `train` for any task, and those of each of the others."""
    train: dict[str, dataclasses.Field] = {}
    for own in task_options().values():
        for name, option in own.items():
            train.setdefault(name, option)
    modules = {name: COMMANDS[name].module for name in HEADINGS if name != "train"}
    found = {name: options(_argument_classes(importlib.import_module(f"hf_vae.cli.{each}"))) for name, each in modules.items()}
    return {"train": train, **found}


def _default(option: dataclasses.Field) -> str:
    value = option.default
    if option.default_factory is not dataclasses.MISSING:
        value = option.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{' '.join(map(str, value)) if isinstance(value, list) else value}`" if value != [] else ""


def _entry(name: str, option: dataclasses.Field, tasks: list[str]) -> str:
    """A heading of its own, so that the site's search finds the option by its name and a page can point to it."""
    facts = []
    if default := _default(option):
        facts.append(default if default == "must be given" else f"by itself {default}")
    if tasks and len(tasks) < len(TASKS):
        facts.append(f"tasks: {', '.join(tasks)}")
    # What Markdown would read as its own.
    help_text = re.sub(r"([*_|<\[])", r"\\\1", option.metadata["help"].replace("%%", "%").replace("\n", "\\n"))
    told = f" *({'; '.join(facts)})*" if facts else ""
    return f"#### `--{name}`\n\n{help_text}{told}"


def page() -> str:
    by_task = task_options()
    sections = []
    for command, found in all_options().items():
        entries = [HEADINGS[command]]
        for name, option in sorted(found.items()):
            tasks = [task for task in TASKS if name in by_task[task]] if command == "train" else []
            entries.append(_entry(name, option, tasks))
        sections.append("\n\n".join(entries))
    return TEMPLATE.format(sections="\n\n".join(sections))
