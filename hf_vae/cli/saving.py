"""What a training leaves in its directory: a model that anyone can load, and a picture of how it got there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from transformers import AutoModel, Trainer

from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from ..training.files import remove
from ..training.resuming import full_disk_named
from ..training.sharding import in_pieces
from .plots import plot_training
from .report import draw_pictures

# A model is written into the first folder, which then gets the second name; what is left of it to move has the third.
_WRITTEN, _WHOLE, _MOVING = ".model.written", ".model.whole", ".model.moving"
# The folder of the same model without z, beside which it was measured.
BASELINE = "baseline"
# Without it nothing loads a folder.
_CONFIG = "config.json"
# What tells of the model before, and what of its files would be read together with the new one's.
_OLD_CARD = (
    "README.md", "metrics.json", "training.png", "latent.png", "interpolation.png", "trainer_state.json", "training_args.bin",
)  # fmt: skip
_OLD_FILES = (
    "model*.safetensors", "model.safetensors.index.json", "pytorch_model*", "generation_config.json", "processor_config.json",
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model", "chat_template.*",
    "additional_chat_templates", "encoder_tokenizer", "adapter",
)  # fmt: skip
# The modules of this package, which `save_pretrained` copies for `trust_remote_code`. A new model's stand in the old one's place.
_CODE = tuple(path.name for path in Path(__file__).parents[1].glob("*.py"))


@contextmanager
def replaced_model(directory: str | Path) -> Iterator[Path]:
    """
    A folder to write a whole model into, which then takes the place of the one in `directory`, if there is one. Whoever is stopped
    while it is written leaves the old model; in the instant of the exchange, a folder that does not load until
    [`finish_saving`]. Of the old model nothing stays: no card, no metrics, no pictures, and not the model without z that it was
    measured beside. Checkpoints and other files are left alone. All processes call it; the main one makes the exchange.
    """
    directory = Path(directory)
    state = PartialState()
    written = directory / _WRITTEN
    try:
        with full_disk_named(directory):
            if state.is_main_process:
                finish_saving(directory)
                written.mkdir(parents=True)
            state.wait_for_everyone()
            yield written
        state.wait_for_everyone()
        if state.is_main_process:
            # safetensors keeps its files from others.
            mode = (written / _CONFIG).stat().st_mode
            for path in written.rglob("*.safetensors"):
                path.chmod(mode)
            written.rename(directory / _WHOLE)
            finish_saving(directory)
    finally:
        if state.is_main_process:
            shutil.rmtree(written, ignore_errors=True)
    state.wait_for_everyone()


def finish_saving(directory: str | Path) -> None:
    """Ends the exchange of models that was broken off in `directory`, and removes a model that was not written to its end."""
    directory = Path(directory)
    shutil.rmtree(directory / _WRITTEN, ignore_errors=True)
    whole, moving = directory / _WHOLE, directory / _MOVING
    if whole.is_dir():
        _remove_baseline(directory / BASELINE)
        # From here on the folder does not load, until its configuration comes back as the last of all.
        _remove_all(directory, (*_OLD_CARD, _CONFIG, *_OLD_FILES))
        whole.rename(moving)
    if moving.is_dir():
        for path in sorted(moving.iterdir(), key=lambda path: path.name == _CONFIG):
            remove(directory / path.name)
            path.rename(directory / path.name)
        moving.rmdir()


def _remove_baseline(folder: Path) -> None:
    """Removes the old model without z, whole or not. A folder of the user's that holds no model is left alone."""
    marks = (_WRITTEN, _WHOLE, _MOVING, _CONFIG)
    if any((folder / name).exists() for name in marks):
        # What tells of a model goes last: whoever is stopped goes on from there.
        _remove_all(folder, (*_OLD_CARD, *_OLD_FILES, *_CODE, *marks))
        if not any(folder.iterdir()):
            remove(folder)


def _remove_all(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            remove(path)


def save_trained(trainer: Trainer, processor: VAEProcessor, logs: Mapping[str, list[dict[str, Any]]]) -> Any:
    """
    Saves model, processor, state and `training.png` in the run's `output_dir`, in the place of what is saved there.

    Args:
        trainer (`Trainer`): of the training with z.
        processor ([`VAEProcessor`]): the model's.
        logs (`dict[str, list[dict]]`): what each stage has logged, by what it trained.

    Returns:
        The model. Adapters are saved by themselves in `adapter/` and merged into the weights; the model is then the merged one.
        Of a model that was trained in pieces, the whole one on every process, as it was saved.

    Raises:
        OSError: the disk is full.
    """
    state = PartialState()
    output_dir = Path(cast(str, trainer.args.output_dir))
    model: Any = trainer.accelerator.unwrap_model(cast(Any, trainer.model))
    with replaced_model(output_dir) as written:
        if hasattr(model, "merge_and_unload"):
            if state.is_main_process:
                model.save_pretrained(written / "adapter")
            model = model.merge_and_unload()
            model.save_pretrained(written, is_main_process=state.is_main_process)
        else:
            trainer.save_model(str(written))
        if state.is_main_process:
            processor.save_pretrained(written)
            trainer.state.save_to_json(str(written / "trainer_state.json"))
    if in_pieces():
        model = AutoModel.from_pretrained(output_dir, part_folders=model.part_folders).to(state.device)
    if state.is_main_process:
        draw_pictures(output_dir, {"training.png": partial(plot_training, logs)})
    return model


def save_baseline(model: VAEModel, processor: VAEProcessor, output_dir: str | Path) -> None:
    """
    Saves a model that was trained with z = 0 in `baseline/` of the run's directory. It generates with z = 0 wherever it is loaded:
    its prior has its mean there, and its default temperature of z is 0.
    """
    if model.prior_network is not None:
        # Nothing of it was trained.
        for parameter in model.prior_network.parameters():
            torch.nn.init.zeros_(parameter)
    if hasattr(model, "bow_head"):
        # A model without the loss that it serves is loaded without it.
        del model.bow_head
    model.generation_config.update(latent_temperature=0.0, allow_custom_entries=True)
    with replaced_model(Path(output_dir) / BASELINE) as written:
        is_main = PartialState().is_main_process
        model.save_pretrained(written, is_main_process=is_main)
        if is_main:
            processor.save_pretrained(written)
