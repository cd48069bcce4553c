"""Pages for the Hub, written from what happened."""

from .model_card import RunRecord, make_model_card, write_model_card

__all__ = ["RunRecord", "make_model_card", "write_model_card"]
