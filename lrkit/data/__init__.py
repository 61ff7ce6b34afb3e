"""Training data: datasets, readers of files, and the loaders that make batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrkit.data.arrays import Arrays as Arrays
    from lrkit.data.digits import Digits as Digits
    from lrkit.data.hugging_face import HuggingFace as HuggingFace
    from lrkit.data.in_memory import InMemoryData as InMemoryData
    from lrkit.data.in_memory import ModuleLoaders as ModuleLoaders
    from lrkit.data.in_memory import Splits as Splits
    from lrkit.data.mnist1d import Mnist1d as Mnist1d
    from lrkit.data.mnist_idx_files import Idx as Idx
    from lrkit.data.text import Text as Text
    from lrkit.data.torch_datasets import Datasets as Datasets
    from lrkit.data.torchvision_datasets import Torchvision as Torchvision

#: The module of each class; the block above tells the same to type checkers and editors.
_MODULES = {
    "Arrays": "arrays",
    "Datasets": "torch_datasets",
    "Digits": "digits",
    "HuggingFace": "hugging_face",
    "Idx": "mnist_idx_files",
    "InMemoryData": "in_memory",
    "Mnist1d": "mnist1d",
    "ModuleLoaders": "in_memory",
    "Splits": "in_memory",
    "Text": "text",
    "Torchvision": "torchvision_datasets",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """The dataset classes, imported on first use: they import Lightning, and the file readers do not."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lrkit.data.{_MODULES[name]}"), name)
