"""Two small trained models that come with the package: something to try before anything is trained."""

from .folders import demo

__all__ = ["demo"]
