"""An evaluation within a training, as the callback ``EvaluationMode`` does it around a validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim import Optimizer

from lrkit.optim.factory import restore_weights, switch_mode, training_weights


@contextmanager
def evaluating(optimizer: Optimizer) -> Iterator[None]:
    """Within this context, the mode is eval (``switch_mode``). Afterwards mode and weights are bitwise restored."""
    weights = training_weights(optimizer)
    before = switch_mode(optimizer, training=False)
    try:
        yield
    finally:
        switch_mode(optimizer, training=before)
        restore_weights(weights)
