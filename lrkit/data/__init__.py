"""Training data: datasets, how files are read, and how batches are cut."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrkit.data.arrays import Arrays
    from lrkit.data.digits import Digits
    from lrkit.data.hugging_face import HuggingFace
    from lrkit.data.idx import Idx
    from lrkit.data.in_memory import InMemoryData, ModuleLoaders, Splits
    from lrkit.data.mnist1d import Mnist1d
    from lrkit.data.text import Text
    from lrkit.data.torchvision_datasets import Torchvision

__all__ = [
    "Arrays",
    "Digits",
    "HuggingFace",
    "Idx",
    "InMemoryData",
    "Mnist1d",
    "ModuleLoaders",
    "Splits",
    "Text",
    "Torchvision",
]

_MODULES = {
    "Arrays": "arrays",
    "Digits": "digits",
    "HuggingFace": "hugging_face",
    "Idx": "idx",
    "InMemoryData": "in_memory",
    "Mnist1d": "mnist1d",
    "ModuleLoaders": "in_memory",
    "Splits": "in_memory",
    "Text": "text",
    "Torchvision": "torchvision_datasets",
}


def __getattr__(name: str) -> Any:
    """The dataset classes, imported on first use: they import Lightning, and the file readers do not."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lrkit.data.{_MODULES[name]}"), name)
