"""The noise of a loss: the deviation of single values from their curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

__all__ = ["loss_noise"]


def loss_noise(losses: Sequence[float]) -> float:
    """The standard deviation of a single loss around the curve, from the differences ``d`` of neighbours.

    It is ``1.4826 * median |d| / sqrt(2)``: the median, so that a single sudden change has no influence.
    """
    steps = [abs(b - a) for a, b in pairwise(losses)]
    return 1.4826 * median(steps) / math.sqrt(2.0) if steps else 0.0
