"""How much a single loss differs from the curve that it is a point of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

__all__ = ["loss_noise"]


def loss_noise(losses: Sequence[float]) -> float:
    """The standard deviation of a single loss around the curve, from the differences of neighbours.

    The median of their size, so that a cliff does not count: ``1.4826 * median |d| / sqrt(2)``.
    """
    steps = [abs(b - a) for a, b in pairwise(losses)]
    return 1.4826 * median(steps) / math.sqrt(2.0) if steps else 0.0
