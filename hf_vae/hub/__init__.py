"""Models on the Hub, and model cards that are written from a run's own record."""

from .attribute_section import write_attributes
from .model_card import make_model_card, write_model_card
from .publishing import Repository, create_repository, upload_model
from .run_record import RunRecord, run_record, write_metrics

__all__ = [
    "Repository",
    "RunRecord",
    "create_repository",
    "make_model_card",
    "run_record",
    "upload_model",
    "write_attributes",
    "write_metrics",
    "write_model_card",
]
