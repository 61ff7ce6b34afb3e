"""Converts arrays to tensors to train on; an error names the key that the arrays came from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrkit.base.errors import ConfigError

__all__ = [
    "check_target_kind",
    "convert_targets",
    "images_and_labels",
    "refuse_huge_images",
    "stack_items",
    "to_floats",
    "to_pixels_or_floats",
]  # fmt: skip

Array = NDArray[Any]


#: The accepted values of data.targets.
KINDS = ("auto", "classes", "numbers")


def convert_targets(arrays: Sequence[Array], key: str, kind: str = "auto") -> tuple[list[Tensor], int | None]:
    """Targets as tensors, and the number of classes (None: the targets are numbers to regress on).

    Args:
        arrays: the targets of each part.
        key: the key that an error names.
        kind: ``classes``, ``numbers``, or auto: floats are numbers, integers and strings are classes.
    """
    everything = np.concatenate([array.reshape(len(array), -1) for array in arrays])
    if everything.dtype.kind == "O":
        missing = sum(value is None for value in everything.flat)
        if missing:
            raise ConfigError(key, f"must have a target for each sample: {missing} of {everything.size} are missing")
    if everything.dtype.kind in "iub" and kind == "numbers":
        everything = everything.astype(np.float64)
    if everything.dtype.kind == "f" and kind != "classes":
        return [torch.from_numpy(array.astype(np.float32).reshape(len(array), -1)) for array in arrays], None
    if kind == "numbers":
        raise ConfigError("data.targets", "must be classes or auto: the targets are no numbers", kind)
    if everything.dtype.kind not in "iubfUS" or everything.shape[1] != 1:
        must = "must have floats, or one column of classes (integers or strings), as targets"
        raise ConfigError(key, must, [*everything.shape, str(everything.dtype)])
    names = np.unique(everything)
    if len(names) < 2:
        raise ConfigError(key, "must have at least two classes as targets", names.tolist())
    codes = (np.searchsorted(names, array.reshape(-1)) for array in arrays)
    return [torch.from_numpy(array.astype(np.int64)) for array in codes], len(names)


def check_target_kind(kind: str) -> str:
    """``kind``, if it is one of ``KINDS``."""
    if kind not in KINDS:
        raise ConfigError("data.targets", "must be auto, classes or numbers", kind)
    return kind


def to_floats(x: Array, key: str) -> Tensor:
    """Numbers of any type as float32, of shape ``(n, ...)``: one-dimensional input becomes ``(n, 1)``."""
    if x.dtype.kind not in "iufb" or x.ndim == 0:
        raise ConfigError(key, "must have numbers as inputs", x.dtype)
    with np.errstate(over="ignore"):  # numbers that become infinite are refused afterwards
        tensor = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return tensor.unsqueeze(1) if tensor.ndim == 1 else tensor


def to_pixels_or_floats(x: Array, key: str) -> Tensor:
    """Images of bytes with the channels first, as bytes; any other array as float32."""
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        return to_floats(x, key)
    pixels = torch.from_numpy(x)
    return (pixels.unsqueeze(1) if x.ndim == 3 else pixels.permute(0, 3, 1, 2)).contiguous()


def stack_items(values: Iterable[Any], key: str) -> Array:
    """Samples of one shape, stacked in one array."""
    arrays = [np.asarray(value) for value in values]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ConfigError(key, "must have at least one sample, and samples of one shape", sorted(shapes)[:3])
    return np.stack(arrays)


def images_and_labels(dataset: Iterable[tuple[Any, Any]], key: str) -> tuple[Tensor, Array]:
    """All images, and all labels, of a dataset that yields ``(image, label)``."""
    with refuse_huge_images(key):
        images, labels = zip(*((np.asarray(image), label) for image, label in dataset), strict=True)
    return to_pixels_or_floats(stack_items(images, key), key), np.asarray(labels)


@contextmanager
def refuse_huge_images(key: str) -> Iterator[None]:
    """Refuse, within the context, an image of more pixels than Pillow's limit. Pillow only warns up to twice the limit.

    Raises:
        ConfigError: an image exceeds the limit: a file of some kilobytes could need gigabytes of memory.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Image size .* exceeds limit")
        try:
            yield
        except Exception as error:
            if type(error).__name__ not in ("DecompressionBombWarning", "DecompressionBombError"):
                raise
            raise ConfigError(key, f"must have images below Pillow's limit of pixels: {error}") from None
