"""A model for an engine that serves many users: vLLM, which takes prompts of embeddings."""

from .export import ServedModel, export_vllm
from .servable import check_servable

__all__ = ["ServedModel", "check_servable", "export_vllm"]
