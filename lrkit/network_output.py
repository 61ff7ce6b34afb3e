"""What a network returns and what its targets are, told by their types and shapes: used where it is sure, else refused.

Classes are where torch has them: of ``(batch, classes)`` the last axis, of dense outputs such as pictures
``(batch, classes, ...)`` the second. Sequences may have them last, ``(batch, time, classes)``, as lrkit's own have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lrkit.errors import ConfigError

__all__ = ["check_classes", "class_axis", "cross_entropy", "described", "squared_error", "tensor_of"]

_WANTED = "must return a tensor of logits or values; wrap it in a LightningModule where it returns more"


def tensor_of(output: Any) -> Tensor:
    """The tensor that a network returned: by itself, as ``logits`` or ``out``, or before a loss.

    transformers' ``ModelOutput`` has ``logits``; torchvision's segmentation networks return ``{"out": ...}``; nanoGPT's
    kind returns ``(logits, loss)`` with a loss or None.

    Raises:
        ConfigError: it is not sure which one is meant.

    >>> tensor_of((torch.zeros(2, 3), None)).shape
    torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    found: list[Any] = []
    if isinstance(output, Mapping):
        named = [output[name] for name in ("logits", "out") if name in output]
        found = named[:1] or [value for value in output.values() if isinstance(value, Tensor)]
    elif isinstance(getattr(output, "logits", None), Tensor):
        found = [output.logits]
    elif isinstance(output, list | tuple) and all(_is_loss(part) for part in output[1:]):
        found = [*output[:1]]
    if len(found) != 1 or not isinstance(found[0], Tensor):
        raise ConfigError("model", _WANTED, described(output))
    return found[0]


def class_axis(out: Tensor, y: Tensor, stated: int | None = None) -> int:
    """The axis of the classes: 1 or -1.

    Args:
        out: logits.
        y: class numbers, of one dimension less.
        stated: what the model, the data or the config says.

    Raises:
        ConfigError: the shapes do not fit, or fit both ways and nothing is stated.

    >>> class_axis(torch.zeros(8, 4, 32, 32), torch.zeros(8, 32, 32))
    1
    >>> class_axis(torch.zeros(8, 16, 40), torch.zeros(8, 16))
    -1
    """
    last, second = out.shape[:-1] == y.shape, out.shape[:1] + out.shape[2:] == y.shape
    if stated is not None:
        fits = {1: second, -1: last}.get(stated)
        if fits is None:
            raise ConfigError("data.class_axis", "must be 1 or -1", stated)
        last, second = fits and stated == -1, fits and stated == 1
    if last and second and y.ndim > 1:
        must = "must be said, 1 or -1: the logits have as many classes as another axis is long"
        raise ConfigError("data.class_axis", must, f"logits {described(out)}, targets {described(y)}")
    if not (last or second):
        must = "must return logits of the shape of the targets and an axis of classes, the second or the last"
        raise ConfigError("model", must, f"{described(out)} for targets {described(y)}")
    return -1 if last else 1


def cross_entropy(out: Tensor, y: Tensor, axis: int | None = None) -> tuple[Tensor, int]:
    """The mean cross entropy over all targets in nats, and the axis of the classes.

    Args:
        out: logits.
        y: class numbers; or the probability of each class, in the shape of two-dimensional logits.
        axis: of the classes, where the shapes do not tell.

    Raises:
        ConfigError: see ``class_axis``; or targets that are no classes.
    """
    if y.is_floating_point():
        if out.ndim != 2 or out.shape != y.shape:
            must = "must have whole numbers as classes, or a probability for each class"
            raise ConfigError("data", must, f"targets {described(y)} for logits {described(out)}")
        return F.cross_entropy(out, y), 1
    if y.ndim == out.ndim and y.ndim > 1 and y.shape[-1] == 1:
        y = y.squeeze(-1)
    at = -1 if out.ndim == 2 and y.ndim == 1 and axis is None else class_axis(out, y, axis)
    y = y.long() if y.dtype != torch.int64 else y
    if at == 1:
        return F.cross_entropy(out, y), 1
    return F.cross_entropy(out.flatten(0, -2), y.flatten()), -1


def squared_error(out: Tensor, y: Tensor) -> Tensor:
    """The mean squared error; shapes may differ in axes of length 1, and in nothing else: torch would repeat values.

    Raises:
        ConfigError: they differ.
    """
    if out.shape != y.shape:
        if [n for n in out.shape if n != 1] != [n for n in y.shape if n != 1]:
            raise ConfigError("model", "must return values of the shape of the targets",
                              f"{described(out)} for targets {described(y)}")  # fmt: skip
        out = out.view_as(y)
    return F.mse_loss(out, y.to(out.dtype))


def check_classes(y: Tensor, out: Tensor, axis: int | None = None) -> None:
    """Refuse targets that are no class of the network. It waits for the device: once, at the first batch.

    Args: as for ``cross_entropy``.
    """
    counted = y[y != -100]  # what torch leaves out
    if y.is_floating_point() or not counted.numel():
        return
    classes = out.shape[-1] if out.ndim == 2 else out.shape[class_axis(out, y, axis)]
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= classes:
        must = f"must have an output for each class: there are targets from {low} to {high}"
        raise ConfigError("model", must, f"{classes} outputs")


def described(output: Any) -> str:
    """What something is made of: types and shapes.

    >>> described((torch.zeros(32, 8), {"y": torch.zeros(32, dtype=torch.int64)}))
    '[float32 (32, 8), {y: int64 (32)}]'
    """
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} ({', '.join(map(str, output.shape))})"
    if isinstance(output, Mapping):
        kind = "" if type(output) is dict else type(output).__name__ + " "
        return kind + "{" + ", ".join(f"{name}: {described(part)}" for name, part in output.items()) + "}"
    if isinstance(output, list | tuple):
        return f"[{', '.join(described(part) for part in output[:4])}{', ...' if len(output) > 4 else ''}]"
    return type(output).__name__


def _is_loss(part: Any) -> bool:
    return part is None or (isinstance(part, Tensor) and part.ndim == 0)
