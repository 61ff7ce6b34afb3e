"""A running average of a module's weights: exponential (EMA) or the plain mean (SWA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage", "average_factor"]

Kind = Literal["ema", "mean"]


def average_factor(kind: Kind, decay: float, warmup: bool, updates: int) -> float:
    """The factor of the old average in an update, after ``updates`` updates.

        mean:   k / (k + 1)
        ema:    decay, and with ``warmup`` at most (1 + k) / (10 + k)

    The second bound lets a young average forget the first weights (as in TensorFlow's ``ExponentialMovingAverage``).

    >>> average_factor("mean", 0.999, True, 3), average_factor("ema", 0.999, True, 0)
    (0.75, 0.1)
    >>> average_factor("ema", 0.999, False, 0)
    0.999
    """
    if kind == "mean":
        return updates / (updates + 1)
    return min(decay, (1 + updates) / (10 + updates)) if warmup else decay


class WeightAverage:
    """The averages of all parameters and of the buffers that a module saves, by name.

        average = d * average + (1 - d) * weights        d: see ``average_factor``

    Averages of 16-bit weights are float32: smaller changes would be lost. Whole numbers are copied.

    Args:
        module: the averages begin at its weights.
        kind: ``ema`` or ``mean``. decay, warmup: of the EMA.

    >>> from torch import nn
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 1.0)
    >>> average = WeightAverage(layer, "ema", decay=0.75, warmup=False)
    >>> _ = nn.init.constant_(layer.weight, 5.0)
    >>> average.update(layer)
    >>> with average.in_place_of(layer):
    ...     layer.weight.item()
    2.0
    >>> layer.weight.item()
    5.0
    """

    def __init__(self, module: nn.Module, kind: Kind = "ema", decay: float = 0.999, warmup: bool = True) -> None:
        self.kind, self.decay, self.warmup = kind, decay, warmup
        self.updates = 0
        self.values = {name: _widen_tensor(tensor).clone() for name, tensor in named_weights(module)}

    def restart(self, module: nn.Module) -> None:
        """Begin again at the module's weights."""
        self.updates = 0
        for name, tensor in named_weights(module):
            self.values[name].copy_(tensor.detach())

    def update(self, module: nn.Module) -> None:
        """Take the module's weights into the average."""
        new = 1.0 - average_factor(self.kind, self.decay, self.warmup, self.updates)
        self.updates += 1
        averages, weights = [], []
        for name, tensor in named_weights(module):
            average = self.values[name]
            if tensor.is_floating_point() or tensor.is_complex():
                averages.append(average)
                weights.append(_widen_tensor(tensor))
            else:
                average.copy_(tensor)
        if averages:
            torch._foreach_lerp_(averages, weights, new)

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """Within the context the module has the averages; afterwards its own weights, to the bit."""
        own = [(tensor, tensor.data) for _, tensor in named_weights(module)]
        try:
            for name, tensor in named_weights(module):
                tensor.data = self.values[name].to(tensor.dtype)
            yield
        finally:
            for tensor, data in own:
                tensor.data = data

    def load(self, values: Mapping[str, Tensor], updates: int) -> None:
        """Continue from the averages of a checkpoint."""
        self.updates = updates
        for name, value in values.items():
            if name in self.values:
                self.values[name].copy_(value)


def named_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers that a module saves, each once."""
    saved = set(module.state_dict(keep_vars=True))
    yield from module.named_parameters()
    yield from ((name, buffer) for name, buffer in module.named_buffers() if name in saved)


def _widen_tensor(tensor: Tensor) -> Tensor:
    """The tensor without its graph, 16-bit values as float32."""
    value = tensor.detach()
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
