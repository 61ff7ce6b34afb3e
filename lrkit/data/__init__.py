"""Training data: datasets, how files are read, and how batches are cut."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrkit.data.datasets import (
        Arrays,
        Digits,
        HuggingFace,
        Idx,
        InMemoryData,
        Mnist1d,
        Splits,
        Text,
        Torchvision,
    )

__all__ = ["Arrays", "Digits", "HuggingFace", "Idx", "InMemoryData", "Mnist1d", "Splits", "Text", "Torchvision"]


def __getattr__(name: str) -> Any:
    """The datasets, when they are asked for: they need Lightning, and how files are read does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lrkit.data import datasets

    return getattr(datasets, name)
