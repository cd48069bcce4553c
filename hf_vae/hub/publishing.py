"""Publishes a trained model's directory on the Hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi
from transformers import TrainingArguments

from .privacy import KEPT_BACK, check_upload


@dataclass(frozen=True)
class Repository:
    """
    A repository on the Hub, and the right to write to it.

    Args:
        name (`str`): its full name, `owner/name`.
        token (`str`, *optional*): the token to write with; by default huggingface_hub uses the machine's own.
    """

    name: str
    token: str | None = field(default=None, repr=False)


def create_repository(training_args: TrainingArguments) -> Repository:
    """The repository of the run's `hub_model_id`, `hub_private_repo` and `hub_token`; it is made if it does not exist."""
    api = HfApi(token=training_args.hub_token)
    name = training_args.hub_model_id or Path(cast(str, training_args.output_dir)).resolve().name
    full_name = api.create_repo(name, private=training_args.hub_private_repo, exist_ok=True).repo_id
    return Repository(full_name, training_args.hub_token)


def upload_model(repository: Repository, directory: str | Path) -> None:
    """
    Uploads a model's directory in one commit, without checkpoints, the model without z, logs and the Trainer's state.

    Raises:
        ValueError: a file is a pickle, or it holds a token or a path of this machine (see [`check_upload`]).
    """
    check_upload(directory, repository.token)
    api = HfApi(token=repository.token)
    api.upload_folder(repo_id=repository.name, folder_path=directory, ignore_patterns=KEPT_BACK)
