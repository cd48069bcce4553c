"""What a training leaves in its directory: a model that anyone can load, and a picture of how it got there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from transformers import AutoModel, Trainer

from ..processing_vae import VAEProcessor
from .plots import plot_training
from .sharding import in_pieces


def save_trained(trainer: Trainer, processor: VAEProcessor) -> Any:
    """
    Saves model, processor, state and `training.png` in the run's `output_dir`.

    Returns:
        The model. Adapters are saved by themselves in `adapter/` and merged into the weights; the model is then the merged one.
        Of a model that was trained in pieces, the whole one on every process, as it was saved.
    """
    state = PartialState()
    output_dir = Path(cast(str, trainer.args.output_dir))
    model: Any = trainer.accelerator.unwrap_model(cast(Any, trainer.model))
    if hasattr(model, "merge_and_unload"):
        if state.is_main_process:
            model.save_pretrained(output_dir / "adapter")
        model = model.merge_and_unload()
        model.save_pretrained(output_dir, is_main_process=state.is_main_process)
    else:
        trainer.save_model()
        if in_pieces():
            state.wait_for_everyone()
            model = AutoModel.from_pretrained(output_dir, part_folders=model.part_folders).to(state.device)
    if state.is_main_process:
        processor.save_pretrained(output_dir)
        plot_training(trainer.state.log_history, output_dir / "training.png")
    trainer.save_state()
    return model
