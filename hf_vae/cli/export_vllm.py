"""The command that writes a model for vLLM; examples/serve_vllm shows how it is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoProcessor

from ..checks import check_choice
from ..hub.saved_model import saved_config
from ..options.export_vllm import ExportArguments
from ..saved_files import has_file, read_json
from ..serving import ServedModel, check_servable, export_vllm
from ..serving.export_directory import PROMPT_FILE, check_export_directory
from .checks import DTYPES, check_model_name
from .parsing import parse_plain

# What peft saves of an adapter, beside the name of what it adapts.
_ADAPTER = "adapter_config.json"


def parse_arguments(argv: Sequence[str]) -> ExportArguments:
    """The arguments of a command line that may begin with the model and the folder."""
    argv = list(argv)
    if len(argv) > 1 and not argv[0].startswith("-") and not argv[1].startswith("-"):
        argv.insert(1, "--directory")
    [arguments] = parse_plain((ExportArguments,), argv, "model_name_or_path")
    return arguments


def base_of(name: str) -> str:
    """The model itself, or the one that `name`, an adapter, adapts."""
    check_model_name(name)
    path = Path(name)
    if path.is_dir() and not any((path / file).is_file() for file in ("config.json", _ADAPTER)):
        raise ValueError(f"{name} holds no model: it has no config.json. Name the folder that a training has written.")
    if has_file(name, "config.json") or not has_file(name, _ADAPTER):
        return name
    base = str(read_json(name, _ADAPTER)["base_model_name_or_path"])
    check_model_name(base)
    return base


def main(argv: Sequence[str]) -> ServedModel:
    arguments = parse_arguments(argv)
    check_choice("--dtype", arguments.dtype, DTYPES)
    name, directory = arguments.model_name_or_path, Path(arguments.directory)
    base = base_of(name)
    check_servable(saved_config(base))
    check_export_directory(directory, arguments.overwrite)
    processor = AutoProcessor.from_pretrained(name if has_file(name, "processor_config.json") else base)
    model: Any = AutoModel.from_pretrained(base, dtype=arguments.dtype).eval()
    if base != name:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, name).merge_and_unload()
    served = export_vllm(model, processor, directory, arguments.overwrite)
    print(f"Saved to {directory}: the language model (lm), and what makes its prompts ({PROMPT_FILE}).")
    if served.prior["kind"] == "given":
        print(f"A client must be given z: {served.prior['why']}.")
    print(f"Serve it with the Python of vLLM's environment:\n\n    {served.command}\n")
    print("On a CPU put VLLM_CPU_KVCACHE_SPACE=1 in the environment, and --enforce-eager behind the command.")
    return served
