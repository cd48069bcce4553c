"""The arguments of the commands that train, and how they are read from a recipe and a command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from typing import Any, cast

from transformers import HfArgumentParser, TrainingArguments

from ..options.help import asks_for_help, print_help
from ..options.mistakes import refuse_unknown
from ..options.recipes import default_recipe, find_recipe, is_recipe, kept_beside
from ..training import encoder_cache, learning_rates, stages  # noqa: F401 (what they refuse is asked of all techniques)
from ..training.techniques import TECHNIQUES
from .recipe import read_recipe

# In front of argparse's own errors, where all arguments would bury them.
_USAGE = "%(prog)s [FILE OF ARGUMENTS] [--option value ...]"
# Nats per sentence, whatever the batches; the Trainer by itself would choose by a mean over them.
BEST_BY = "elbo"


def with_techniques(arguments: type) -> type:
    """The model's `arguments` with those of the techniques that were registered besides, from outside the package."""
    more = tuple(technique.arguments for technique in TECHNIQUES if not issubclass(arguments, technique.arguments))
    if not more:
        return arguments
    # The model's come first, and have what the others lack: a `__module__`, a docstring and their properties.
    return make_dataclass(arguments.__name__, [], bases=(arguments, *more), namespace={"__doc__": arguments.__doc__})


def read_defaults(task: str, said: Mapping[str, Any], parser: HfArgumentParser, recipe: str | None = None) -> dict[str, Any]:
    """
    The values of the file of arguments called `recipe`, or of the [`default_recipe`], less those that cannot be meant beside what
    the command line has `said`.

    Raises:
        ValueError: as [`read_recipe`]; or the command line says how many epochs and a file of the user's own how many steps.
    """
    kept = kept_beside(read_recipe(find_recipe(recipe or default_recipe(task, said)), parser), said, recipe)
    if "num_train_epochs" in said and "max_steps" not in said and kept.get("max_steps", -1) > 0:
        raise ValueError(
            f"{recipe} has `max_steps: {kept['max_steps']}`, and beside that the Trainer ignores `--num_train_epochs`: add "
            "`--max_steps -1`, or leave `--num_train_epochs` out."
        )
    return kept


def arguments_said(classes: Sequence[type], argv: Sequence[str]) -> dict[str, Any]:
    """The arguments that the command line names, in whatever way argparse understands, with their values."""
    parser = HfArgumentParser(cast(Any, classes), usage=_USAGE, add_help=False)
    parser.set_defaults(**{action.dest: None for action in parser._actions})
    said, _ = parser.parse_known_args(list(argv))
    return {name: value for name, value in vars(said).items() if value is not None}


def print_training_help(parser: HfArgumentParser) -> None:
    """Prints what `TrainingArguments` can be told, with the defaults that the `parser` of the whole command line has for it."""
    training = HfArgumentParser(cast(Any, TrainingArguments), usage=argparse.SUPPRESS, add_help=False)
    training.set_defaults(**{action.dest: parser.get_default(action.dest) for action in training._actions})
    print("\nAll arguments of transformers' TrainingArguments:\n\n" + training.format_help())


def parse_arguments(argument_classes: Sequence[type], argv: Sequence[str], task: str, output_dir: str) -> tuple[Any, ...]:
    """
    Dataclasses, `TrainingArguments` last, from a command line that may begin with a YAML or JSON file of arguments; what follows
    the file overrides it. Without a file, the package's recipe for such a run of the `task` is the file ([`default_recipe`]). The
    first of the `argument_classes` is the model's, which gets the arguments of all registered techniques.

    Raises:
        ValueError: the file holds no arguments, or one that does not exist or has a value that cannot be meant.
    """
    model_class, *others = argument_classes
    classes = (with_techniques(model_class), *others, TrainingArguments)
    parser = HfArgumentParser(cast(Any, classes), usage=_USAGE, add_help=False)
    asked = asks_for_help(argv)
    if asked == "short":
        print_help(f"train {task}", argv, classes[:-1])
        raise SystemExit(0)
    recipe: str | None = None
    if argv and is_recipe(argv[0]):
        recipe, *argv = argv
    # The first step is logged so that a run shorter than `logging_steps` has its plot too.
    parser.set_defaults(output_dir=output_dir, logging_first_step=True, metric_for_best_model=BEST_BY)
    parser.set_defaults(**read_defaults(task, arguments_said(classes, argv), parser, recipe))
    if asked:
        print_help(f"train {task}", argv if recipe is None else [recipe, *argv], classes[:-1])
        print_training_help(parser)
        raise SystemExit(0)
    *parsed, training_args, unknown = parser.parse_args_into_dataclasses(args=list(argv), return_remaining_strings=True)
    stray = any(not word.startswith("-") for word in unknown[:1])
    hint = "; a file of arguments comes first, and is YAML or JSON" if stray else ""
    refuse_unknown(unknown, [action.dest for action in parser._actions], hint)
    looks_for_best = training_args.load_best_model_at_end or training_args.save_strategy == "best"
    needs_metric = looks_for_best or training_args.lr_scheduler_type == "reduce_lr_on_plateau"
    if training_args.metric_for_best_model == BEST_BY and not needs_metric:
        # The Trainer would keep a best checkpoint besides those that it is told to keep.
        training_args.metric_for_best_model = training_args.greater_is_better = None
    return (*parsed, training_args)
