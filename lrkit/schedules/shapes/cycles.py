"""Rates in cycles: warm restarts, and cycles with their momentum."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

from lrkit.base.errors import ConfigError
from lrkit.base.validation import one_of
from lrkit.schedules.durations import Length
from lrkit.schedules.expression import Expression, formula_text, parse_expression
from lrkit.schedules.shapes.decay_shape import Shaped
from lrkit.schedules.shapes.schedule import Endless, Schedule, blend, check_momentum, counted, duration, number

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Cyclic", "Restarts"]

_CHECKED_STEPS = 20_000  # steps for which a formula is checked before a run of unknown length


@dataclass(frozen=True)
class Restarts(Shaped):
    """Cosine decay with warm restarts (SGDR). Cycle ``k = 0, 1, ...`` falls from its peak to ``end``.

        period_k = period * growth ** k
        peak_k   = end + (start - end) * decay ** k        decay_of: height
        peak_k   = max(end, start * decay ** k)            decay_of: peak
        m        = end + (peak_k - end) * (1 + cos(pi * v)) / 2,     v = progress through cycle k

    With ``warmup`` each cycle, also the first, begins at ``end``, rises in a straight line to its peak, and falls in
    the rest of its period. (The group ``warmup`` is another thing: it acts once, before the schedule.)

    A cycle begins at a whole step: cycle ``k`` at ``period * (growth ** k - 1) / (growth - 1)``, rounded to the nearest
    step, halves up. If ``growth`` is not a whole number, timm and Keras restart between two steps: their values differ
    from lrkit's by up to half a step.

    Args:
        period: length of the first cycle; or set ``cycles`` instead.
        cycles: the number of whole cycles in the phase.
        growth: factor from one period to the next, >= 1 (``T_mult``).
        decay: factor from one cycle to the next, in (0, 1], of the peak's height over ``end``, or of the peak itself.
        decay_of: ``height`` (over ``end``, as in Keras) or ``peak`` (as in timm).
        shape: ``cosine``, or another shape of a decay (see ``Wsd``).
        warmup: duration of the rise in each cycle; ``None``: a jump to the peak.

    Reference: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5. Equals ``CosineAnnealingWarmRestarts``.

    >>> [Restarts(period=10, growth=2)(s, 70) for s in (0, 5, 10, 20, 30)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    >>> [Restarts(period=10, decay=0.5, decay_of=of, end=0.1)(10, 20) for of in ("height", "peak")]
    [0.55, 0.5]
    >>> [Restarts(period=10, warmup=2)(s, 20) for s in (0, 1, 2, 6, 10, 12)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 1.0]
    """

    period: Length | None = duration(None)
    cycles: int | None = None
    growth: float = number(1.0, low=1)
    decay: float = number(1.0, over=0, high=1)
    decay_of: Literal["height", "peak"] = "height"
    shape: str | Schedule = "cosine"
    warmup: Length | None = duration(None)
    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.period is None) == (self.cycles is None):
            given = {"period": self.period, "cycles": self.cycles}
            raise ConfigError("period", "or `cycles` must be set, and the other one null", given)
        if self.cycles is not None and (isinstance(self.cycles, bool) or not isinstance(self.cycles, int)):
            raise ConfigError("cycles", "must be a whole number >= 1", self.cycles)
        if self.cycles is not None and self.cycles < 1:
            raise ConfigError("cycles", "must be a whole number >= 1", self.cycles)
        one_of("height", "peak").check("decay_of", self.decay_of)
        if self.decay_of == "peak" and self.start < self.end:
            raise ConfigError("decay_of", "must be height where `start` is below `end`", self.decay_of)

    @property
    def bounded(self) -> bool:
        return self.period is None

    def _find_cycle(self, s: int, n: int) -> tuple[int, int, int]:
        """Return the cycle of step ``s``: its number, its first step and the first step of the next cycle."""
        if self.period is not None and self.growth == 1.0:
            k, period = s // int(self.period), int(self.period)
            return k, k * period, (k + 1) * period
        # Exact for cycles of one length; for growing cycles a start of the search.
        k = self._find_earlier_cycle(s, n) if self.growth != 1.0 else max(0, min(s, n) * int(self.cycles or 0) // n - 1)
        first = self._find_first_step(k, n)
        while (following := self._find_first_step(k + 1, n)) <= s:
            if following <= first:
                raise ConfigError("cycles", f"must leave each cycle at least one of the {n} steps", self.cycles)
            k, first = k + 1, following
        return k, first, following

    def _find_earlier_cycle(self, s: int, n: int) -> int:
        """Return a growing cycle that begins shortly before step ``s``."""
        if self.period is not None:
            periods = s / int(self.period)
        else:
            assert self.cycles is not None
            periods = min(s, n) / n * self._count_periods(self.cycles)
        return max(0, int(math.log1p(periods * (self.growth - 1.0)) / math.log(self.growth)) - 2)

    def _count_periods(self, k: int) -> float:
        """Return the length of ``k`` cycles, in first periods."""
        try:
            return float(k) if self.growth == 1.0 else (self.growth**k - 1.0) / (self.growth - 1.0)
        except OverflowError:
            return 2.0**1000  # longer than any run

    def _find_first_step(self, k: int, n: int) -> int:
        """Return the first step of cycle ``k``."""
        periods = self._count_periods(k)
        if self.period is not None:
            return math.floor(int(self.period) * periods + 0.5)
        assert self.cycles is not None
        every = self._count_periods(self.cycles)
        return math.floor(n * periods / every + 0.5) if k < self.cycles else n + (k - self.cycles) * n

    def value(self, s: int, n: int) -> float:
        k, first, following = self._find_cycle(s, n)
        return self._evaluate_cycle(k, s - first, following - first)

    def end_value(self, n: int) -> float:
        k, first, following = self._find_cycle(n - 1, n)
        if following == n:
            return self._build_decay(k).final(following - first - self._count_rise(following - first))
        return self._evaluate_cycle(k, n - first, following - first)

    def _count_rise(self, length: int) -> int:
        """Return the steps of the rise in a cycle of ``length`` steps."""
        rise = 0 if self.warmup is None else int(self.warmup)
        if rise >= length:
            raise ConfigError("warmup", f"must be shorter than a cycle, and one has {length} steps", rise)
        return rise

    def _evaluate_cycle(self, k: int, s: int, length: int) -> float:
        """Return the value at step ``s`` of cycle ``k``, which has ``length`` steps."""
        rise, falling = self._count_rise(length), self._build_decay(k)
        return blend(self.end, falling(0, length - rise), s / rise) if s < rise else falling(s - rise, length - rise)

    @cached_property
    def _first_decay(self) -> Schedule:
        return self.decay_between(self.start, self.end)

    def _build_decay(self, k: int) -> Schedule:
        """Return the decay of cycle ``k``, from its peak to ``end``."""
        if k == 0 or self.decay == 1.0:
            return self._first_decay
        left = self.decay**k
        peak = blend(self.end, self.start, left) if self.decay_of == "height" else max(self.end, self.start * left)
        return self.decay_between(peak, self.end)

    def turns(self, n: int) -> list[int]:
        if self.growth == 1.0:
            cycles = self.cycles if self.period is None else (n - 1) // int(self.period)
            counted("cycles" if self.period is None else "period", min(cycles or 0, n))
        edges: set[int] = set()
        first = 0
        while first < n:
            following = self._find_cycle(first, n)[2]
            edges |= {first, first + self._count_rise(following - first)}
            first = following
        return sorted(e for e in edges if 0 < e < n)


@dataclass(frozen=True)
class _Cycles(Endless):
    """Up and down in straight lines between ``start`` and ``peak``: the rate of ``Cyclic``, or its momentum."""

    start: float = number(0.1, low=0)
    peak: float = number(1.0, low=0)
    up: Length = duration("10%")
    down: Length | None = duration(None)
    mode: Literal["triangular", "triangular2", "exp_range", "exp_cycle", "formula"] = "triangular"
    gamma: float = number(0.9, over=0, high=1)
    every: Length = duration("1%")
    formula: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("triangular", "triangular2", "exp_range", "exp_cycle", "formula").check("mode", self.mode)
        self._check_formula()

    def _check_formula(self) -> None:
        if (self.formula is None) == (self.mode == "formula"):
            must = "must be set" if self.formula is None else "has no effect"
            raise ConfigError("formula", f"{must} with mode={self.mode}", self.formula)
        if self.formula is not None:
            object.__setattr__(self, "formula", formula_text("formula", self.formula))
            self._compute_height(0, 0)

    @cached_property
    def _expression(self) -> Expression:
        try:
            return parse_expression(self.formula or "1", ("cycle",))
        except ConfigError as error:
            raise error.under("formula") from None

    def resolved(self, horizon: Horizon) -> Self:
        # `every` has an effect only with exp_range: in other modes, an unknown length of the run is no error.
        asked = self if self.mode == "exp_range" else dataclasses.replace(self, every=1)
        made = super(_Cycles, asked).resolved(horizon)
        if horizon.steps is None:
            made.turns(_CHECKED_STEPS)
        return made

    def value(self, s: int, n: int) -> float:
        up, down = int(self.up), int(self.up if self.down is None else self.down)
        cycle, v = divmod(s, up + down)
        height = v / up if v <= up else (up + down - v) / down
        return blend(self.start, self.peak, height * self._compute_height(cycle, s))

    def _compute_height(self, cycle: int, s: int) -> float:
        """Return the factor of the height at step ``s``, in cycle 0, 1, ..."""
        if self.mode == "triangular2":
            return float(0.5**cycle)
        if self.mode == "exp_cycle":
            return float(self.gamma**cycle)
        if self.mode == "formula":
            return self._scale_by_formula(cycle + 1)
        return float(self.gamma ** (s / int(self.every))) if self.mode == "exp_range" else 1.0

    def _scale_by_formula(self, cycle: int) -> float:
        try:
            scale = self._expression.value((float(cycle),))
        except ConfigError as error:
            raise ConfigError("formula", f"{error.must} in cycle {cycle}", self.formula) from None
        if scale > 1.0:
            raise ConfigError("formula", f"must be in [0, 1], and is {scale!r} in cycle {cycle}", self.formula)
        return scale

    def turns(self, n: int) -> list[int]:
        up, down = int(self.up), int(self.up if self.down is None else self.down)
        counted("up", 2 * n // (up + down))
        if self.mode == "formula":
            for first in range(0, n, up + down):
                self._compute_height(first // (up + down), first)  # refuses a formula without a value in this cycle
        return sorted(e for first in range(0, n, up + down) for e in (first, first + up) if 0 < e < n)


@dataclass(frozen=True)
class Cyclic(_Cycles):
    """Cyclic rates: up and down in straight lines between ``start`` and ``peak``; momentum may move the other way.

        m = start + (peak - start) * height(v) * scale

    ``height`` rises from 0 to 1 during ``up`` and falls back during ``down``. In cycle ``k = 0, 1, ...``, ``scale`` is

        1                        mode: triangular
        0.5 ** k                 mode: triangular2
        gamma ** k               mode: exp_cycle
        gamma ** (s / every)     mode: exp_range
        formula(cycle)           mode: formula, with cycle = k + 1

    Args:
        start: lowest multiplier. peak: highest.
        up: duration of the rise. down: duration of the fall; ``None``: the same as ``up``.
        gamma: only for ``exp_cycle`` and ``exp_range``. every: only for ``exp_range``.
        formula: only for ``formula``: an expression of ``cycle`` (see ``Formula``) with values in [0, 1].
        momentum_start, momentum_peak: momentum (``betas[0]`` of the Adam family) at the lowest rate, and at a peak of
            full height, as plain values; ``None``: the optimizer's own.

    Reference: Smith 2017, arXiv:1506.01186, section 3. Equals ``torch.optim.lr_scheduler.CyclicLR``, with
    ``momentum_start=0.9, momentum_peak=0.8`` also its momentum. TensorFlow Addons counts cycles
    from 1: its ``ExponentialCyclicalLearningRate`` is ``exp_cycle`` with ``peak = start + gamma * (maximum - start)``.

    >>> [Cyclic(start=0.0, up=10)(s, 100) for s in (0, 5, 10, 15, 20)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> [round(Cyclic(start=0.0, up=10, mode="exp_cycle", gamma=0.8)(s, 100), 9) for s in (10, 30, 50)]
    [1.0, 0.8, 0.64]
    >>> each = Cyclic(start=0.0, up=10, mode="formula", formula="1 / cycle")
    >>> [each(s, 60) for s in (10, 30, 50)]
    [1.0, 0.5, 0.3333333333333333]
    """

    momentum_start: float | None = number(None, low=0, high=1)
    momentum_peak: float | None = number(None, low=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_momentum(self.momentum_start, self.momentum_peak)
        if self.start > self.peak:
            raise ConfigError("start", f"must not be above schedule.peak ({self.peak})", self.start)

    def momentum(self, base: float) -> Schedule | None:
        if self.momentum_start is None or self.momentum_peak is None:
            return None
        return _CycledMomentum(
            length=self.length, start=self.momentum_start, peak=self.momentum_peak, up=self.up, down=self.down,
            mode=self.mode, gamma=self.gamma, every=self.every, formula=self.formula,
            skip=self.skip, update_every=self.update_every,
        )  # fmt: skip


@dataclass(frozen=True)
class _CycledMomentum(_Cycles):
    """Momentum beside ``Cyclic``: from ``start`` to ``peak``, which is the lower one, while the rate rises."""
