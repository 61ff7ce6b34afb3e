"""From arrays of numbers to tensors that can be trained on; errors name the key that led to them."""

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
    "images_and_labels",
    "kind_of_targets",
    "opening_images",
    "stack_items",
    "targets_of",
    "to_floats",
    "to_pixels_or_floats",
]  # fmt: skip

Array = NDArray[Any]


#: What targets may be said to be.
KINDS = ("auto", "classes", "numbers")


def targets_of(arrays: Sequence[Array], key: str, kind: str = "auto") -> tuple[list[Tensor], int | None]:
    """Targets as tensors, and the number of classes (None: they are numbers to regress on).

    Args:
        arrays: of each part.
        key: where they come from.
        kind: ``classes``, ``numbers``, or auto: floats are numbers, integers and strings are classes.
    """
    everything = np.concatenate([each.reshape(len(each), -1) for each in arrays])
    if everything.dtype.kind == "O":
        missing = sum(value is None for value in everything.flat)
        if missing:
            raise ConfigError(key, f"must have a target for each sample: {missing} of {everything.size} are missing")
    if everything.dtype.kind in "iub" and kind == "numbers":
        everything = everything.astype(np.float64)
    if everything.dtype.kind == "f" and kind != "classes":
        return [torch.from_numpy(each.astype(np.float32).reshape(len(each), -1)) for each in arrays], None
    if kind == "numbers":
        raise ConfigError("data.targets", "must be classes or auto, for the targets are no numbers", kind)
    if everything.dtype.kind not in "iubfUS" or everything.shape[1] != 1:
        must = "must have as targets floats, or one column of classes (integers or strings)"
        raise ConfigError(key, must, [*everything.shape, str(everything.dtype)])
    names = np.unique(everything)
    if len(names) < 2:
        raise ConfigError(key, "must have at least two classes as targets", names.tolist())
    codes = (np.searchsorted(names, each.reshape(-1)) for each in arrays)
    return [torch.from_numpy(each.astype(np.int64)) for each in codes], len(names)


def kind_of_targets(kind: str) -> str:
    """A kind, checked."""
    if kind not in KINDS:
        raise ConfigError("data.targets", "must be auto, classes or numbers", kind)
    return kind


def to_floats(x: Array, key: str) -> Tensor:
    """Numbers of any kind as float32, a feature in each column: shape ``(n, ...)``, never ``(n,)``."""
    if x.dtype.kind not in "iufb" or x.ndim == 0:
        raise ConfigError(key, "must have numbers as inputs", x.dtype)
    with np.errstate(over="ignore"):  # what becomes infinite is counted, and refused, afterwards
        tensor = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return tensor.unsqueeze(1) if tensor.ndim == 1 else tensor


def to_pixels_or_floats(x: Array, key: str) -> Tensor:
    """Bytes of images stay bytes, with the channels first; anything else becomes floats."""
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        return to_floats(x, key)
    pixels = torch.from_numpy(x)
    return (pixels.unsqueeze(1) if x.ndim == 3 else pixels.permute(0, 3, 1, 2)).contiguous()


def stack_items(values: Iterable[Any], key: str) -> Array:
    """Samples of one shape as one array."""
    arrays = [np.asarray(value) for value in values]
    shapes = {each.shape for each in arrays}
    if len(shapes) != 1:
        raise ConfigError(key, "must have samples, all of one shape", sorted(shapes)[:3])
    return np.stack(arrays)


def images_and_labels(dataset: Iterable[tuple[Any, Any]], key: str) -> tuple[Tensor, Array]:
    """All of a dataset that yields ``(image, label)``."""
    with opening_images(key):
        images, labels = zip(*((np.asarray(image), label) for image, label in dataset), strict=True)
    return to_pixels_or_floats(stack_items(images, key), key), np.asarray(labels)


@contextmanager
def opening_images(key: str) -> Iterator[None]:
    """Within it, an image of more pixels than Pillow takes for honest is refused; up to twice as many it only warns.

    Raises:
        ConfigError: a file of some kilobytes would become an image of gigabytes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Image size .* exceeds limit")
        try:
            yield
        except Exception as error:
            if type(error).__name__ not in ("DecompressionBombWarning", "DecompressionBombError"):
                raise
            raise ConfigError(key, f"must have images of an honest size: {error}") from None
