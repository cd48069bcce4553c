"""Models on the Hub, with pages written from what happened."""

from .model_card import RunRecord, make_model_card, write_model_card
from .publishing import create_repository, upload_model

__all__ = ["RunRecord", "create_repository", "make_model_card", "upload_model", "write_model_card"]
