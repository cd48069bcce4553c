"""The command that generates texts for each row of a file; examples/generate.py shows how it is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import AutoModel, AutoProcessor

from ..bulk import GeneratedFile, generate_to_file
from ..bulk.generate import check_path
from ..bulk.sources import Sources, open_rows
from ..checks import check_choice
from ..hub.saved_model import saved_config_of_texts
from ..options.generate import GenerateArguments, SourceArguments
from ..options.saved_model import SavedModelArguments
from ..processing_vae import check_text_length
from .checks import DTYPES, check_draws, check_least, check_model_name, check_writable
from .parsing import parse_plain
from .processes import use_all_cores


def parse_arguments(argv: Sequence[str]) -> tuple[SavedModelArguments, SourceArguments, GenerateArguments]:
    """Dataclasses from a command line that may begin with the model."""
    return cast(Any, parse_plain((SavedModelArguments, SourceArguments, GenerateArguments), argv, "model_name_or_path"))


def check_arguments(model_args: SavedModelArguments, source_args: SourceArguments, generate_args: GenerateArguments) -> None:
    """Everything that can be refused before the model is looked at."""
    check_choice("--dtype", model_args.dtype, DTYPES)
    least = {"max_samples": 1, "num_outputs": 1, "max_new_tokens": 1, "num_beams": 1, "batch_size": 1, "block_size": 1}
    check_least({**vars(source_args), **vars(generate_args)}, least)
    check_draws(vars(generate_args))
    check_writable("output", generate_args.output)
    check_path(generate_args.output, source_args.file)


def main(argv: Sequence[str]) -> GeneratedFile:
    # 1. Arguments, refused before any compute if they cannot work.
    model_args, source_args, generate_args = parse_arguments(argv)
    check_model_name(model_args.model_name_or_path, reads_file=True)
    check_arguments(model_args, source_args, generate_args)
    saved_config_of_texts(model_args.model_name_or_path)
    # Without an accelerator several processes find each other only if they are told that there is none.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    use_all_cores(state)

    # 2. Sources and model. The first source is looked at before weights are loaded.
    processor = AutoProcessor.from_pretrained(model_args.model_name_or_path)
    check_text_length("--max_length", source_args.max_length, processor.encoder_tokenizer)
    with state.main_process_first():
        rows = open_rows(source_args.file, source_args.split, **source_args.file_options)
    Sources(rows, processor, source_args.file, source_args.source_column)
    model = AutoModel.from_pretrained(model_args.model_name_or_path, dtype=model_args.dtype).to(state.device)

    # 3. Texts.
    options = {name: value for name, value in dataclasses.asdict(generate_args).items() if value is not None}
    written = generate_to_file(
        model,
        processor,
        rows,
        options.pop("output"),
        options.pop("num_outputs"),
        name=source_args.file,
        source_column=source_args.source_column,
        max_rows=source_args.max_samples,
        max_length=source_args.max_length,
        **options,
    )
    if state.is_main_process:
        print(written)
    return written
