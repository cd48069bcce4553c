"""A trained model's directory on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from huggingface_hub import HfApi
from transformers import TrainingArguments

# What a training leaves behind that is not part of the model.
KEPT_BACK = ["checkpoint-*", "runs/*", "stages/*"]


def create_repository(training_args: TrainingArguments) -> str:
    """The full name of the repository that the run's `hub_model_id`, `hub_private_repo` and `hub_token` describe, made if new."""
    api = HfApi(token=training_args.hub_token)
    name = training_args.hub_model_id or Path(cast(str, training_args.output_dir)).name
    return api.create_repo(name, private=training_args.hub_private_repo, exist_ok=True).repo_id


def upload_model(repository: str, training_args: TrainingArguments) -> None:
    """Uploads the run's `output_dir` in one commit, without checkpoints and logs."""
    api = HfApi(token=training_args.hub_token)
    api.upload_folder(repo_id=repository, folder_path=cast(str, training_args.output_dir), ignore_patterns=KEPT_BACK)
