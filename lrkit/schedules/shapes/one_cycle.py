"""One cycle of the rate, and a cycle of momentum in the opposite direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lrkit.base.errors import ConfigError
from lrkit.base.validation import FLAG, one_of
from lrkit.schedules.durations import Length
from lrkit.schedules.shapes.schedule import Schedule, blend, check_momentum, duration, number

__all__ = ["OneCycle"]


class _Cycle(Schedule):
    """The common part of the rate and its momentum: the steps at which they turn, and the values between them."""

    up: Length
    anneal: Literal["cosine", "linear"]
    three_phase: bool

    def _find_turns(self, n: int) -> tuple[int, int]:
        """Return the steps of the peak and of the second turn, which is the peak again with two phases."""
        up = int(self.up)
        down = 2 * up if self.three_phase else up
        if down >= n:
            raise ConfigError("up", f"must leave steps for the way down: the phase has {n} steps", up)
        return up, down

    def _blend_values(self, a: float, b: float, v: float) -> float:
        return blend(a, b, v if self.anneal == "linear" else (1.0 - math.cos(math.pi * v)) / 2.0)

    def turns(self, n: int) -> list[int]:
        return sorted(set(self._find_turns(n)))


@dataclass(frozen=True)
class OneCycle(_Cycle):
    """One cycle: up to the peak, down again, and far below the start by the end; momentum moves the other way.

        start -> peak during ``up``, then peak -> end              (three_phase: false, as fastai has it)
        start -> peak -> start, ``up`` each, then start -> end     (three_phase: true, as the paper has it)

    Args:
        start: first multiplier (torch's ``1 / div_factor``).
        end: last multiplier (torch's ``1 / (div_factor * final_div_factor)``).
        up: duration of the rise to the peak.
        anneal: ``cosine`` or ``linear``.
        momentum_start, momentum_peak: momentum (``betas[0]`` of the Adam family) at both ends, and at the peak of
            the rate, as plain values; ``None``: the optimizer's own.

    Reference: Smith and Topin 2018, arXiv:1708.07120. ``OneCycleLR`` puts its last value on step ``n - 1``, as
    ``OneCycle(length=n - 1, up=share * n - 1)`` does here.

    >>> OneCycle(up=30)(30, 100)
    1.0
    """

    start: float = number(0.04, low=0)
    peak: float = number(1.0, low=0)
    end: float = number(4e-6, low=0)
    up: Length = duration("30%")
    anneal: Literal["cosine", "linear"] = "cosine"
    three_phase: bool = False
    momentum_start: float | None = number(None, low=0, high=1)
    momentum_peak: float | None = number(None, low=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("cosine", "linear").check("anneal", self.anneal)
        FLAG.check("three_phase", self.three_phase)
        check_momentum(self.momentum_start, self.momentum_peak)
        if not self.start <= self.peak or not self.end <= self.peak:
            raise ConfigError("peak", f"must not be below start ({self.start}) or end ({self.end})", self.peak)

    def value(self, s: int, n: int) -> float:
        up, down = self._find_turns(n)
        if s <= up:
            return self._blend_values(self.start, self.peak, s / up)
        if s <= down:
            return self._blend_values(self.peak, self.start, (s - up) / (down - up))
        return self._blend_values(self.start if down > up else self.peak, self.end, (s - down) / (n - down))

    def momentum(self, base: float) -> Schedule | None:
        if self.momentum_start is None or self.momentum_peak is None:
            return None
        return _OneCycleMomentum(
            length=self.length, up=self.up, high=self.momentum_start, low=self.momentum_peak,
            anneal=self.anneal, three_phase=self.three_phase, skip=self.skip, update_every=self.update_every,
        )  # fmt: skip


@dataclass(frozen=True)
class _OneCycleMomentum(_Cycle):
    """Momentum beside ``OneCycle``: from ``high`` to ``low`` while the rate rises, back to ``high``, then constant."""

    high: float = number(0.95, low=0, high=1)
    low: float = number(0.85, low=0, high=1)
    up: Length = duration("30%")
    anneal: Literal["cosine", "linear"] = "cosine"
    three_phase: bool = False

    def value(self, s: int, n: int) -> float:
        up, down = self._find_turns(n)
        if s <= up:
            return self._blend_values(self.high, self.low, s / up)
        back = down if down > up else n
        return self._blend_values(self.low, self.high, (s - up) / (back - up)) if s <= back else self.high
