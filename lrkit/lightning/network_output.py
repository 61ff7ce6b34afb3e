"""Finds the output tensor of a network, and its class axis, from the returned value and the targets.

Networks return tensors, tuples, dictionaries or ``ModelOutput``. The classes are the last axis of the logits of a text,
and axis 1 of those of an image in torch. Names and shapes decide; if they allow no interpretation, or two, the output
is refused: a loss over the wrong axis, or of shapes that broadcast, would train without an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrkit.base.errors import ConfigError

__all__ = ["IGNORED", "NetworkOutput", "OutputReading", "describe_value", "possible_class_axes", "tensor_of"]

#: The target that torch's cross entropy ignores by default.
IGNORED = -100

_NAMES = ("logits", "out")  # transformers' ModelOutput and torchvision's namedtuples; torchvision's segmentation


class OutputReading(NamedTuple):
    """An output and its targets, in the form for the loss; ``axis``, 1 or -1, is the class axis."""

    out: Tensor
    y: Tensor
    axis: int


class NetworkOutput:
    """Reads the outputs of one network. A batch with the shapes of the previous one costs two comparisons.

    Args:
        loss: ``cross_entropy`` or ``mse``.
        class_axis: 1 or -1; None: decided by the shapes of the first batch, for all batches.
        usual_axis: the class axis if the shapes allow both, by a convention of the data; None: both are refused.
        classes: number of classes of the data; None: unknown.
        declared: whether the loss was set by the user or the data; if not, targets of floats are refused.
        takes: the argument by which the network would compute its own loss; None if it has none.
    """

    def __init__(
        self,
        loss: str,
        class_axis: int | None = None,
        classes: int | None = None,
        declared: bool = True,
        usual_axis: int | None = None,
        takes: str | None = None,
    ) -> None:
        if class_axis not in (None, 1, -1) or isinstance(class_axis, bool):
            raise ConfigError("data.class_axis", "must be 1 (as torch has it), -1 (the last) or null", class_axis)
        self.loss, self.axis, self.classes, self.declared, self.takes = loss, class_axis, classes, declared, takes
        self.usual = usual_axis
        self._last_shapes: tuple[torch.Size, torch.Size, torch.dtype] | None = None
        self._is_plain = False  # whether output and targets need no change
        self._checked_modes: set[bool] = set()  # the values of ``training`` of the batches checked so far

    def read(self, returned: Any, y: Any, training: bool) -> OutputReading:
        """The output and its targets.

        Raises:
            ConfigError: the output or the targets cannot be used; the message has their types and shapes.
        """
        out = returned if isinstance(returned, Tensor) else tensor_of(returned)
        if not isinstance(y, Tensor):
            raise ConfigError(
                "data", "must give targets as one tensor if the model is no LightningModule", describe_value(y)
            )
        if (out.shape, y.shape, y.dtype) != self._last_shapes or training not in self._checked_modes:
            self._check_batch(out, y, training)
            self._last_shapes = out.shape, y.shape, y.dtype
            self._checked_modes.add(training)
            self._is_plain = self.loss == "cross_entropy" and out.ndim == 2 and y.ndim == 1 and y.dtype == torch.int64
        return OutputReading(out, y, -1) if self._is_plain else self._convert_targets(out, y)

    def _convert_targets(self, out: Tensor, y: Tensor) -> OutputReading:
        if self.loss == "mse":
            y = y if y.is_floating_point() else y.to(torch.get_default_dtype())
            return OutputReading(out if out.shape == y.shape else out.view_as(y), y, -1)
        if y.is_floating_point():
            return OutputReading(out, y, self._axis_of(out))
        axis = self._axis_of(out)
        if y.ndim == out.ndim and axis == 1 and out.ndim > 2:  # one channel of classes, as masks have
            y = y.squeeze(1)
        return OutputReading(out, y.long(), axis)

    def _axis_of(self, out: Tensor) -> int:
        return -1 if out.ndim == 2 else self.axis or -1

    def _check_batch(self, out: Tensor, y: Tensor, training: bool) -> None:
        if not out.is_floating_point() or out.ndim == 0:
            must = "must return floats for each sample: logits of classes, or numbers; not a loss or class indices"
            raise ConfigError("model", must, describe_value(out))
        if y.is_complex():
            raise ConfigError("data", "must give targets that are real numbers", describe_value(y))
        if self.loss == "mse":
            if _stripped_shape(out) != _stripped_shape(y):
                must = f"must return as many numbers as targets, {describe_value(y)}{self._make_hint()}"
                raise ConfigError("model", must, describe_value(out))
            return
        if y.is_floating_point():
            self._check_probabilities(out, y, training)
            return
        fitting = possible_class_axes(tuple(out.shape), tuple(y.shape))
        if self.axis is not None and out.ndim > 2:
            fitting = [axis for axis in fitting if axis == self.axis]
        if len(fitting) == 2 and self.usual is not None:
            fitting = [self.usual]
        if len(fitting) == 2:
            must = (
                f"must be set to 1 (as torch has it) or -1 (the last): of the output, {describe_value(out)} for targets"
                f" {describe_value(y)}, both axes are possible"
            )
            raise ConfigError("data.class_axis", must)
        if not fitting:
            self._refuse_shape(out, y)
        axis = fitting[0]
        count = out.shape[axis]
        if count < 2:
            must = "must return an output for each class, at least two: cross entropy over one output is always 0"
            raise ConfigError("model", must, describe_value(out))
        if out.ndim > 2:
            self.axis = axis
        if training not in self._checked_modes:
            self._check_range(y, count)

    def _check_range(self, y: Tensor, count: int) -> None:
        if self.classes is not None and count < self.classes:
            raise ConfigError("model", f"must return {self.classes} outputs, one for each class of the data", count)
        labels = y.long()
        labels = labels[labels != IGNORED]
        if labels.numel() == 0:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= count:
            more = f"; the loss ignores targets of {IGNORED}" if low < 0 or high == 255 else ""
            must = f"must give classes from 0 to {count - 1} for {count} outputs of the network{more}"
            raise ConfigError("data", must, f"{low} to {high}")

    def _check_probabilities(self, out: Tensor, y: Tensor, training: bool) -> None:
        if not self.declared:
            must = (
                f"must be set for targets of {describe_value(y)}: numbers (mean squared error), or classes (cross"
                " entropy with the probability of each)"
            )
            raise ConfigError("data.targets", must)
        if y.shape != out.shape:
            must = (
                "must give classes as whole numbers (int64), or a probability for each output of the network,"
                f" {describe_value(out)}; with data.targets=numbers they are numbers"
            )
            raise ConfigError("data", must, describe_value(y))
        if training not in self._checked_modes and not _has_sums_of_one(y, self._axis_of(out)):
            must = (
                "must give as targets probabilities that sum to 1 over the classes; several classes of one sample need"
                " a LightningModule with its own loss"
            )
            raise ConfigError("data", must, describe_value(y))

    def _refuse_shape(self, out: Tensor, y: Tensor) -> None:
        if y.shape == out.shape:
            must = (
                f"must give a class for each sample, not a number for each of {out.shape[-1]} outputs: y.argmax(1)"
                " converts one-hot targets"
            )
            raise ConfigError("data", must, describe_value(y))
        first, *rest = map(str, _stripped_shape(y) or y.shape)
        axis_by_shape = {
            f"({', '.join([first, *rest, 'classes'])})": -1,
            f"({', '.join([first, 'classes', *rest])})": 1,
        }
        accepted = " or ".join(shape for shape, axis in axis_by_shape.items() if self.axis in (None, axis) or not rest)
        must = f"must return logits of shape {accepted} for targets {describe_value(y)}{self._make_hint()}"
        raise ConfigError("model", must, describe_value(out))

    def _make_hint(self) -> str:
        if self.takes is None:
            return ""
        return f"; a network that computes its own loss by forward({self.takes}=...) needs a LightningModule around it"


def possible_class_axes(out: tuple[int, ...], y: tuple[int, ...]) -> list[int]:
    """The axes of an output that may be the class axis, by its shape and the shape of the targets: 1, -1, both or none.

    >>> shapes = [((8, 10), (8,)), ((8, 64, 83), (8, 64)), ((8, 5, 32, 32), (8, 32, 32))]
    >>> [possible_class_axes(output, targets) for output, targets in shapes]
    [[-1], [-1], [1]]
    >>> possible_class_axes((8, 32, 32, 32), (8, 32, 32)), possible_class_axes((8, 10), (9,))
    ([1, -1], [])
    """
    fitting = []
    for axis in (1, -1):
        if len(out) < 2 or (axis == 1 and len(out) == 2):  # of two axes, 1 is the last
            continue
        at = axis % len(out)
        without = out[:at] + out[at + 1 :]
        if y in (without, (*out[:at], 1, *out[at + 1 :])):
            fitting.append(axis)
    return fitting


def tensor_of(returned: Any) -> Tensor:
    """The output tensor in the value that a network returned.

    It is named ``logits`` or ``out``, or it is the only tensor. A network that also returns a loss, or outputs of
    auxiliary classifiers, is refused, because they would not be trained.

    Raises:
        ConfigError: the value has no such tensor, or a part that would not be trained.

    >>> tensor_of((torch.zeros(2, 3), None)).shape
    torch.Size([2, 3])
    """
    if isinstance(returned, Tensor):
        return returned
    parts = {name: part for name, part in _named_parts(returned).items() if part is not None}
    chosen = next((name for name in _NAMES if isinstance(parts.get(name), Tensor)), None)
    if chosen is None:
        large = [name for name, part in parts.items() if not _is_number(part)]
        chosen = large[0] if len(large) == 1 and isinstance(parts[large[0]], Tensor) else None
    if chosen is None:
        must = (
            "must return one tensor (alone, as the only one of a tuple, or as logits or out of a dictionary), or be"
            " a LightningModule with its own loss"
        )
        raise ConfigError("model", must, describe_value(returned))
    untrained = [name for name, part in parts.items() if name != chosen and _is_for_training(name, part)]
    if untrained:
        must = (
            f"must return no part to train on besides {chosen}: the loss would not contain {' and '.join(untrained)};"
            " build the model without, or use a LightningModule with its own loss"
        )
        raise ConfigError("model", must, describe_value(returned))
    output: Tensor = parts[chosen]
    return output


def _named_parts(returned: Any) -> dict[str, Any]:
    """The parts of a returned value by name; those of a list or tuple are named by their index."""
    if isinstance(returned, Mapping):
        return {str(name): part for name, part in returned.items()}
    if isinstance(returned, tuple) and hasattr(returned, "_asdict"):
        named: dict[str, Any] = returned._asdict()
        return named
    if isinstance(returned, list | tuple):
        return {f"output {i}": part for i, part in enumerate(returned)}
    return {name: part for name, part in getattr(returned, "__dict__", {}).items() if not name.startswith("_")}


def _is_number(part: Any) -> bool:
    return isinstance(part, bool | int | float) or (isinstance(part, Tensor) and part.ndim == 0)


def _is_for_training(name: str, part: Any) -> bool:
    """Whether a part is made to be trained on: a loss, or the output of an auxiliary classifier."""
    return isinstance(part, Tensor) and part.requires_grad and (part.numel() == 1 or name.startswith("aux"))


def _stripped_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor without axes of length 1 at its end."""
    shape = tuple(tensor.shape)
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _has_sums_of_one(y: Tensor, axis: int) -> bool:
    return bool((y >= 0).all()) and bool(((y.float().sum(axis) - 1).abs() < 1e-2).all())


def describe_value(batch: Any) -> str:
    """The types and shapes of a batch or an output, as text.

    >>> describe_value((torch.zeros(32, 8), {"y": torch.zeros(32, dtype=torch.int64)}))
    '[float32 (32, 8), {y: int64 (32)}]'
    """
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} ({', '.join(map(str, batch.shape))})"
    if isinstance(batch, Mapping):
        name = "" if type(batch) is dict else type(batch).__name__
        return f"{name}{{" + ", ".join(f"{name}: {describe_value(part)}" for name, part in batch.items()) + "}"
    if isinstance(batch, list | tuple):
        return f"[{', '.join(describe_value(part) for part in batch[:4])}{', ...' if len(batch) > 4 else ''}]"
    return type(batch).__name__
