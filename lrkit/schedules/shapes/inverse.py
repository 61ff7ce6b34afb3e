"""Decays by the inverse of time, for runs with or without a known end."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lrkit.schedules.durations import Length
from lrkit.schedules.shapes.schedule import Endless, duration, number

__all__ = ["InverseSqrt", "InverseTime"]


@dataclass(frozen=True)
class InverseTime(Endless):
    """Inverse time decay, the classic 1/t rate of stochastic approximation.

        m = start / (1 + gamma * s / every)

    Args:
        gamma: decay rate per ``every``, > 0.
        every: the unit of time of ``gamma``.
        start: first value.

    Reference: Robbins and Monro 1951; as ``keras.optimizers.schedules.InverseTimeDecay``.

    >>> InverseTime(gamma=1.0, every=10)(10, 100)
    0.5
    """

    gamma: float = number(1.0, over=0)
    every: Length = duration("10%")
    start: float = number(1.0, low=0)

    def value(self, s: int, n: int) -> float:
        return self.start / (1.0 + self.gamma * s / int(self.every))


@dataclass(frozen=True)
class InverseSqrt(Endless):
    """Inverse square root decay, or another inverse power; after a warmup it is Noam's schedule.

        m = start * (timescale / (timescale + s)) ** power

    With a linear warmup from 0 of ``timescale`` steps this is the Transformer's
    ``min(t ** -0.5, t * warmup ** -1.5)``, scaled so that its peak is the base rate. With another ``power``, such a
    warmup, and a linear cooldown it is the Power scheduler. The default of scikit-learn's ``SGDRegressor`` is
    ``timescale=1, power=0.25``.

    Args:
        timescale: a duration, > 0: with ``power=0.5`` the multiplier is 1/2 after three of them.
        power: exponent, > 0.

    Reference: Vaswani et al. 2017, arXiv:1706.03762, eq. 3; Shen et al. 2024, Power scheduler, arXiv:2408.13359.

    >>> InverseSqrt(timescale=100)(300, 1000), InverseSqrt(timescale=100, power=2.0)(100, 1000)
    (0.5, 0.25)
    """

    timescale: Length = duration("5%")
    power: float = number(0.5, over=0)
    start: float = number(1.0, low=0)

    def value(self, s: int, n: int) -> float:
        left = int(self.timescale) / (int(self.timescale) + s)
        return self.start * (math.sqrt(left) if self.power == 0.5 else left**self.power)
