"""Decays from a first value, most of them to a last one."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lrkit.base.errors import ConfigError
from lrkit.schedules.durations import Length
from lrkit.schedules.shapes.schedule import Schedule, blend, duration, number

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Cosine", "Exponential", "Linear", "Polynomial", "Rex", "Sqrt"]


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line.

        m = start * (1 - u) + end * u

    Reference: Defazio et al. 2023, arXiv:2310.07831 (linear decay to zero). Equals ``LinearLR``.

    >>> Linear()(25, 100)
    0.75
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)

    def value(self, s: int, n: int) -> float:
        return blend(self.start, self.end, s / n)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """Polynomial decay.

        m = end + (start - end) * (1 - u) ** power

    Args:
        power: 1 is a straight line, 2 bends towards the end early, 0.5 late; > 0.

    Equals ``PolynomialLR`` for ``end = 0``.

    >>> Polynomial(power=2.0)(50, 100)
    0.25
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)
    power: float = number(2.0, over=0)

    def value(self, s: int, n: int) -> float:
        return blend(self.end, self.start, (1.0 - s / n) ** self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine.

        m = end + (start - end) * (1 + cos(pi * u)) / 2

    Reference: Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983, eq. 5 without restarts. Equals
    ``CosineAnnealingLR`` up to its ``T_max``; afterwards it stays at ``end`` where torch's rises again.

    >>> Cosine()(50, 100)
    0.5
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)

    def value(self, s: int, n: int) -> float:
        return blend(self.end, self.start, (1.0 + math.cos(math.pi * s / n)) / 2.0)


@dataclass(frozen=True)
class Sqrt(Schedule):
    """One minus the square root: falls fast at first, the cooldown that Hägele et al. found best.

        m = end + (start - end) * (1 - sqrt(u))

    Reference: Hägele et al. 2024, arXiv:2405.18392, section 3.

    >>> Sqrt()(25, 100)
    0.5
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)

    def value(self, s: int, n: int) -> float:
        return blend(self.start, self.end, math.sqrt(s / n))


@dataclass(frozen=True)
class Rex(Schedule):
    """Reflected exponential: stays high for long, then falls steeply.

        m = end + (start - end) * (1 - u) / (1 - u / 2)

    Reference: Chen, Wolfe and Kyrillidis 2022, REX, arXiv:2107.04197, section 3.

    >>> round(Rex()(50, 100), 4)
    0.6667
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)

    def value(self, s: int, n: int) -> float:
        u = s / n
        return blend(self.end, self.start, (1.0 - u) / (1.0 - u / 2.0))


@dataclass(frozen=True)
class Exponential(Schedule):
    """Exponential decay, smoothly at each step, said in one of two ways.

        m = start * gamma ** (s / every)           gamma: the factor per ``every``
        m = start * (end / start) ** u             end: where it arrives

    For a decay in stairs use ``Step``. The second form is also a warmup.

    Args:
        gamma: factor per ``every``, > 0; above 1 the rate grows.
        every: the time that one factor of ``gamma`` takes.
        end: value at the end of the phase, > 0; set either ``gamma`` or ``end``.
        start: first value, > 0.

    With ``every=1`` this equals ``torch.optim.lr_scheduler.ExponentialLR``.

    >>> Exponential(gamma=0.5, every=10)(20, 100)
    0.25
    >>> Exponential(gamma=None, end=0.01)(50, 100)
    0.1
    """

    gamma: float | None = number(None, over=0)
    every: Length = duration("1ep")
    end: float | None = number(None, over=0)
    start: float = number(1.0, over=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.gamma is None) == (self.end is None):
            given = {"gamma": self.gamma, "end": self.end}
            raise ConfigError("gamma", "or `end` must be set, and the other one null", given)

    @property
    def bounded(self) -> bool:
        return self.end is not None

    def resolved(self, horizon: Horizon) -> Self:
        # `every` belongs to gamma: without it an unknown epoch length must not be asked for.
        asked = self if self.end is None else dataclasses.replace(self, every=1)
        return super(Exponential, asked).resolved(horizon)

    def value(self, s: int, n: int) -> float:
        if self.end is None:
            assert self.gamma is not None
            return float(self.start * self.gamma ** (s / int(self.every)))
        if s <= 0 or s >= n:
            return self.start if s <= 0 else self.end
        mixed = float(self.start * (self.end / self.start) ** (s / n))
        return min(max(mixed, min(self.start, self.end)), max(self.start, self.end))  # as in ``blend``
