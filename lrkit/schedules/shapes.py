"""Schedules: the shapes that a learning rate follows, as multipliers of its base value.

A schedule is a frozen description. It knows no optimizer, holds no state and needs no torch: called with a step
``s`` of its phase and the length ``n`` of that phase it returns the multiplier at that step,

    m = schedule(s, n),        u = s / n   the progress through the phase,

so the first step of a phase (``u = 0``) has the first value exactly, and ``u = 1`` is the value at which whatever
comes next begins. ``schedule.final(n)`` is that value, approached from the left.

Lengths are written as durations (see ``lrkit.schedules.durations``) and counted from the beginning of the schedule,
that is from the end of the warmup. ``schedule.resolved(horizon)`` is the same schedule with every length a whole number
of optimizer steps; only a resolved schedule can be called. To add a schedule: a dataclass here, a few lines of YAML in
``conf/schedule/``, a row in ``tests/schedules/test_shapes.py``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from lrkit.base.errors import ConfigError
from lrkit.base.validation import FLAG, is_finite, one_of
from lrkit.schedules.durations import Duration, Length

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = [
    "Constant", "Cosine", "Cyclic", "Endless", "Exponential", "InverseSqrt", "InverseTime", "Linear", "Multistep",
    "OneCycle", "Piecewise", "Plateau", "Polynomial", "RangeTest", "Restarts", "Rex", "Schedule", "Sqrt", "Step", "Wsd",
]  # fmt: skip


def number(default: Any, *, over: float | None = None, low: float | None = None, high: float | None = None) -> Any:
    """A field that holds a finite number: ``over < x`` or ``low <= x``, and ``x <= high``."""
    return dataclasses.field(default=default, metadata={"number": (over, low, high), "optional": default is None})


def duration(default: Length | None, *, zero: bool = False) -> Any:
    """A field that holds a length: of at least one step, unless ``zero`` is accepted."""
    metadata = {"duration": True, "zero": zero, "optional": default is None}
    return dataclasses.field(default=default, metadata=metadata)


MOST_EDGES = 10**6  # of a curve: more would take gigabytes; a check of a run of unknown length needs as many


def counted(key: str, edges: int) -> None:
    """Refuse a curve that turns more often than can be planned."""
    if edges > MOST_EDGES:
        raise ConfigError(key, f"must make at most {MOST_EDGES} turns in a run, and this makes {edges}")


def blend(a: float, b: float, w: float) -> float:
    """From ``a`` at ``w = 0`` to ``b`` at ``w = 1``: exact at both ends, and never outside of them."""
    if not 0.0 < w < 1.0:
        return a if w <= 0.0 else b
    mixed = a * (1.0 - w) + b * w
    if a <= b:  # rounding may overshoot an end by one ulp
        return a if mixed < a else b if mixed > b else mixed
    return b if mixed < b else a if mixed > a else mixed


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What all schedules share: a length of their own, validation, and resolution to steps.

    Args:
        length: the length of the phase; ``None`` takes what is left of the run. A schedule shorter than the run
            holds its end value.
    """

    length: Length | None = duration(None, zero=True)

    #: Whether the shape means something only together with reduce-on-plateau.
    needs_plateau: ClassVar[bool] = False

    @classmethod
    def named(cls, name: str) -> type[Schedule] | None:
        """The schedule of this name. Only classes that are loaded already are looked at: nothing is imported."""
        classes: list[type[Schedule]] = [Schedule]
        found = None
        while classes:
            kind = classes.pop()
            found = kind if kind.__name__ == name else found
            classes += kind.__subclasses__()
        return found

    @property
    def bounded(self) -> bool:
        """Whether the shape needs to know where its phase ends."""
        return True

    def __call__(self, s: int, n: int) -> float:
        raise NotImplementedError

    def final(self, n: int) -> float:
        """The value that the phase of ``n`` steps arrives at: the limit of ``schedule(s, n)`` from the left."""
        return self(n, n)

    def edges(self, n: int) -> list[int]:
        """Steps inside the phase at which the shape jumps or turns."""
        return []

    @property
    def ends(self) -> dict[str, Any]:
        """The fields ``start`` and ``end``, as far as the shape has them.

        >>> Cosine(end=0.1).ends, Constant(start=0.5).ends
        ({'start': 1.0, 'end': 0.1}, {'start': 0.5})
        """
        names = [field.name for field in dataclasses.fields(self) if field.name in ("start", "end")]
        return {name: getattr(self, name) for name in names}

    def with_ends(self, **ends: float) -> Self:
        """The same shape with other ends; an end that the shape does not have is left out."""
        return dataclasses.replace(self, **{name: value for name, value in ends.items() if name in self.ends})

    def momentum(self) -> Schedule | None:
        """The curve of momentum that belongs to this shape, as plain values; None where momentum is left alone."""
        return None

    def warnings(self, edges: Sequence[int], n: int) -> list[str]:
        """Warnings about a phase of ``n`` steps with these edges: what is legal and hardly meant."""
        return []

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.metadata.get("optional"):
                continue
            if "number" in field.metadata:
                check_number(field.name, value, *field.metadata["number"])
            elif "duration" in field.metadata:
                _check_duration(field.name, value, zero=field.metadata["zero"])

    def resolved(self, horizon: Horizon) -> Self:
        """The same schedule with every duration as a whole number of optimizer steps."""
        steps = {
            field.name: Duration.parse(value, field.name).steps(horizon, field.name)
            for field in dataclasses.fields(self)
            if "duration" in field.metadata and (value := getattr(self, field.name)) is not None
        }
        return dataclasses.replace(self, **steps)


@dataclass(frozen=True)
class Endless(Schedule):
    """A shape that is the same however long its phase is; it can run where the end is not known."""

    @property
    def bounded(self) -> bool:
        return False


@dataclass(frozen=True)
class Constant(Endless):
    """The same value throughout: a fixed learning rate.

        m = start

    >>> Constant()(7, 10)
    1.0
    """

    start: float = number(1.0, low=0)

    def __call__(self, s: int, n: int) -> float:
        return self.start


@dataclass(frozen=True)
class Plateau(Constant):
    """A fixed rate that only falls when the monitored metric stops improving: ``Constant`` with ``plateau=reduce``.

    The falling is not part of the curve: it is the factor ``gain`` (see ``lrkit.planning.plateau``).
    """

    needs_plateau: ClassVar[bool] = True


@dataclass(frozen=True)
class Step(Endless):
    """Step decay: multiplied by ``gamma`` every so often.

        m = gamma ** floor(s / every)

    Args:
        every: time between two drops.
        gamma: factor of a drop, in (0, 1].

    Equals ``torch.optim.lr_scheduler.StepLR``.

    >>> [round(Step(every=30, gamma=0.1)(s, 90), 9) for s in (0, 29, 30, 60)]
    [1.0, 1.0, 0.1, 0.01]
    """

    every: Length = duration("30%")
    gamma: float = number(0.1, over=0, high=1)

    def __call__(self, s: int, n: int) -> float:
        return self.gamma ** (s // int(self.every))

    def final(self, n: int) -> float:
        return self(n - 1, n)

    def edges(self, n: int) -> list[int]:
        counted("every", (n - 1) // int(self.every))
        return list(range(int(self.every), n, int(self.every)))

    def warnings(self, edges: Sequence[int], n: int) -> list[str]:
        if edges:
            return []
        return [f"the rate never drops: schedule.every ({self.every}) is not shorter than the schedule"]


@dataclass(frozen=True)
class Multistep(Endless):
    """Step decay at chosen places.

        m = gamma ** (number of milestones <= s)

    Args:
        milestones: durations from the beginning of the schedule, increasing.
        gamma: factor of a drop, in (0, 1].

    Equals ``torch.optim.lr_scheduler.MultiStepLR``.

    >>> [round(Multistep(milestones=[50, 75], gamma=0.1)(s, 100), 9) for s in (49, 50, 75)]
    [1.0, 0.1, 0.01]
    """

    milestones: Sequence[Length] = ("50%", "75%")
    gamma: float = number(0.1, over=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.milestones, str) or not isinstance(self.milestones, Sequence):
            raise ConfigError("milestones", "must be a list of durations, such as [50%, 75%]", self.milestones)
        if not self.milestones:
            raise ConfigError("milestones", "must not be empty: for no drops use schedule=constant", self.milestones)
        for i, milestone in enumerate(self.milestones):
            _check_duration(f"milestones[{i}]", milestone)
        object.__setattr__(self, "milestones", tuple(self.milestones))

    def resolved(self, horizon: Horizon) -> Self:
        places = [Duration.parse(m, "milestones").steps(horizon, "milestones") for m in self.milestones]
        if sorted(set(places)) != places:
            written = f"{list(self.milestones)}, which is steps {places}"
            raise ConfigError(f"milestones ({written})", "must be increasing")
        return dataclasses.replace(super().resolved(horizon), milestones=tuple(places))

    def __call__(self, s: int, n: int) -> float:
        return self.gamma ** sum(int(m) <= s for m in self.milestones)

    def final(self, n: int) -> float:
        return self(n - 1, n)

    def edges(self, n: int) -> list[int]:
        reached = [int(milestone) for milestone in self.milestones if int(milestone) < n]
        if not reached:
            must = f"must lie before the end of the schedule, which has {n} steps: the rate would never drop"
            raise ConfigError("milestones", must, list(self.milestones))
        return reached

    def warnings(self, edges: Sequence[int], n: int) -> list[str]:
        if len(edges) == len(self.milestones):
            return []
        late = self.milestones[len(edges)]
        return [f"milestone {late} is never reached: the schedule has {n} steps after the warmup"]


@dataclass(frozen=True)
class Exponential(Schedule):
    """Exponential decay, smoothly at each step, said in one of two ways.

        m = start * gamma ** (s / every)           gamma: the factor per ``every``
        m = start * (end / start) ** u             end: where it arrives

    For a decay in stairs use ``Step``. The second form is also a warmup.

    Args:
        gamma: factor per ``every``, in (0, 1].
        every: the time that one factor of ``gamma`` takes.
        end: value at the end of the phase, > 0; set either ``gamma`` or ``end``.
        start: first value, > 0.

    With ``every=1`` this equals ``torch.optim.lr_scheduler.ExponentialLR``.

    >>> Exponential(gamma=0.5, every=10)(20, 100)
    0.25
    >>> Exponential(gamma=None, end=0.01)(50, 100)
    0.1
    """

    gamma: float | None = number(None, over=0, high=1)
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

    def __call__(self, s: int, n: int) -> float:
        if self.end is None:
            assert self.gamma is not None
            return float(self.start * self.gamma ** (s / int(self.every)))
        if s <= 0 or s >= n:
            return self.start if s <= 0 else self.end
        mixed = float(self.start * (self.end / self.start) ** (s / n))
        return min(max(mixed, min(self.start, self.end)), max(self.start, self.end))  # as in ``blend``


@dataclass(frozen=True)
class InverseTime(Endless):
    """Inverse time decay, the classic 1/t rate of stochastic approximation.

        m = 1 / (1 + gamma * s / every)

    Args:
        gamma: decay rate, > 0.
        every: the unit of time that ``gamma`` counts in.

    Reference: Robbins and Monro 1951; as ``keras.optimizers.schedules.InverseTimeDecay``.

    >>> InverseTime(gamma=1.0, every=10)(10, 100)
    0.5
    """

    gamma: float = number(1.0, over=0)
    every: Length = duration("10%")

    def __call__(self, s: int, n: int) -> float:
        return 1.0 / (1.0 + self.gamma * s / int(self.every))


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

    def __call__(self, s: int, n: int) -> float:
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

    def __call__(self, s: int, n: int) -> float:
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

    def __call__(self, s: int, n: int) -> float:
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

    def __call__(self, s: int, n: int) -> float:
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

    def __call__(self, s: int, n: int) -> float:
        u = s / n
        return blend(self.end, self.start, (1.0 - u) / (1.0 - u / 2.0))


@dataclass(frozen=True)
class InverseSqrt(Endless):
    """Inverse square root decay, which needs no end; after a warmup it is Noam's schedule.

        m = sqrt(timescale / (timescale + s))

    With a linear warmup from 0 of ``timescale`` steps this is the Transformer's
    ``min(t ** -0.5, t * warmup ** -1.5)``, scaled so that its peak is the base rate.

    Reference: Vaswani et al. 2017, arXiv:1706.03762, eq. 3.

    >>> InverseSqrt(timescale=100)(300, 1000)
    0.5
    """

    timescale: Length = duration("5%")

    def __call__(self, s: int, n: int) -> float:
        timescale = int(self.timescale)
        return math.sqrt(timescale / (timescale + s))


@dataclass(frozen=True)
class Restarts(Schedule):
    """Cosine decay with warm restarts (SGDR). Cycle ``k = 0, 1, ...`` falls from its peak to ``end``.

        period_k = period * growth ** k
        peak_k   = end + (start - end) * decay ** k
        m        = end + (peak_k - end) * (1 + cos(pi * v)) / 2,     v = progress through cycle k

    Args:
        period: length of the first cycle; or set ``cycles`` instead.
        cycles: how many whole cycles fill the phase.
        growth: each period is this many times the one before, >= 1 (``T_mult``).
        decay: each peak is this many times the one before, in (0, 1].

    Reference: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5. Equals ``CosineAnnealingWarmRestarts``.

    >>> [Restarts(period=10, growth=2)(s, 70) for s in (0, 5, 10, 20, 30)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    period: Length | None = duration(None)
    cycles: int | None = None
    growth: float = number(1.0, low=1)
    decay: float = number(1.0, over=0, high=1)
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

    @property
    def bounded(self) -> bool:
        return self.period is None

    def _cycle(self, s: int, n: int) -> tuple[int, int, int]:
        """The cycle that step ``s`` is in: its number, its first step and the first step of the next."""
        if self.period is not None and self.growth == 1.0:
            k, period = s // int(self.period), int(self.period)
            return k, k * period, (k + 1) * period
        # Cycles of one length are found at once, and of growing ones nearly.
        k = self._before(s, n) if self.growth != 1.0 else max(0, min(s, n) * int(self.cycles or 0) // n - 1)
        first = self._beginning(k, n)
        while (following := self._beginning(k + 1, n)) <= s:
            if following <= first:
                raise ConfigError("cycles", f"must leave each cycle at least one of the {n} steps", self.cycles)
            k, first = k + 1, following
        return k, first, following

    def _before(self, s: int, n: int) -> int:
        """A growing cycle that begins before step ``s``, and not long before."""
        if self.period is not None:
            periods = s / int(self.period)
        else:
            assert self.cycles is not None
            periods = min(s, n) / n * self._periods(self.cycles)
        return max(0, int(math.log1p(periods * (self.growth - 1.0)) / math.log(self.growth)) - 2)

    def _periods(self, k: int) -> float:
        """How many first periods ``k`` cycles take."""
        try:
            return float(k) if self.growth == 1.0 else (self.growth**k - 1.0) / (self.growth - 1.0)
        except OverflowError:
            return 2.0**1000  # beyond any run

    def _beginning(self, k: int, n: int) -> int:
        """The first step of cycle ``k``."""
        periods = self._periods(k)
        if self.period is not None:
            return math.floor(int(self.period) * periods + 0.5)
        assert self.cycles is not None
        every = self._periods(self.cycles)
        return math.floor(n * periods / every + 0.5) if k < self.cycles else n + (k - self.cycles) * n

    def __call__(self, s: int, n: int) -> float:
        k, first, following = self._cycle(s, n)
        return self._fall(k, (s - first) / (following - first))

    def final(self, n: int) -> float:
        k, first, following = self._cycle(n - 1, n)
        return self._fall(k, (n - first) / (following - first))

    def _fall(self, k: int, v: float) -> float:
        peak = blend(self.end, self.start, self.decay**k)
        return blend(self.end, peak, (1.0 + math.cos(math.pi * v)) / 2.0)

    def edges(self, n: int) -> list[int]:
        if self.growth == 1.0:
            cycles = self.cycles if self.period is None else (n - 1) // int(self.period)
            counted("cycles" if self.period is None else "period", min(cycles or 0, n))
        edges, s = [], 0
        while (s := self._cycle(s, n)[2]) < n:
            edges.append(s)
        return edges


@dataclass(frozen=True)
class Cyclic(Endless):
    """Cyclic rates: up and down in straight lines between ``start`` and ``peak``.

        m = start + (peak - start) * height(v) * scale

    ``height`` rises from 0 to 1 during ``up`` and falls back during ``down``; ``scale`` is 1 (``triangular``),
    halves with every cycle (``triangular2``) or is ``gamma ** (s / every)`` (``exp_range``).

    Args:
        start: lowest multiplier. peak: highest.
        up: time to rise. down: time to fall; ``None`` takes as long as ``up``.
        gamma, every: used by ``exp_range`` alone.

    Reference: Smith 2017, arXiv:1506.01186, section 3. Equals ``torch.optim.lr_scheduler.CyclicLR``.

    >>> [Cyclic(start=0.0, up=10)(s, 100) for s in (0, 5, 10, 15, 20)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    start: float = number(0.1, low=0)
    peak: float = number(1.0, low=0)
    up: Length = duration("10%")
    down: Length | None = duration(None)
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: float = number(0.9, over=0, high=1)
    every: Length = duration("1%")

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("triangular", "triangular2", "exp_range").check("mode", self.mode)
        if self.start > self.peak:
            raise ConfigError("start", f"must not be above schedule.peak ({self.peak})", self.start)

    def resolved(self, horizon: Horizon) -> Self:
        # `every` belongs to exp_range: elsewhere an unknown length of the run must not be asked for.
        asked = self if self.mode == "exp_range" else dataclasses.replace(self, every=1)
        return super(Cyclic, asked).resolved(horizon)

    def __call__(self, s: int, n: int) -> float:
        up, down = int(self.up), int(self.up if self.down is None else self.down)
        cycle, v = divmod(s, up + down)
        height = v / up if v <= up else (up + down - v) / down
        if self.mode == "triangular2":
            height *= 0.5**cycle
        elif self.mode == "exp_range":
            height *= self.gamma ** (s / int(self.every))
        return blend(self.start, self.peak, height)

    def edges(self, n: int) -> list[int]:
        up, down = int(self.up), int(self.up if self.down is None else self.down)
        counted("up", 2 * n // (up + down))
        return sorted(e for first in range(0, n, up + down) for e in (first, first + up) if 0 < e < n)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """One cycle: up to the peak, down again, and far below the start by the end; momentum moves the other way.

        start -> peak during ``up``, then peak -> end              (three_phase: false, as fastai has it)
        start -> peak -> start, ``up`` each, then start -> end     (three_phase: true, as the paper has it)

    Args:
        start: first multiplier (torch's ``1 / div_factor``).
        end: last multiplier (torch's ``1 / (div_factor * final_div_factor)``).
        up: time to rise to the peak.
        anneal: ``cosine`` or ``linear``.
        momentum_start, momentum_peak: momentum (``betas[0]`` of the Adam family) at both ends, and at the peak of
            the rate, as plain values; ``None`` leaves the optimizer's own.

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
        if (self.momentum_start is None) != (self.momentum_peak is None):
            raise ConfigError("momentum_start", "and momentum_peak must be set together", self.momentum_start)
        for name in ("momentum_start", "momentum_peak"):
            if getattr(self, name) == 1:
                raise ConfigError(name, "must be below 1: with 1 no gradient would be forgotten", getattr(self, name))
        if not self.start <= self.peak or not self.end <= self.peak:
            raise ConfigError("peak", f"must not be below start ({self.start}) or end ({self.end})", self.peak)

    def __call__(self, s: int, n: int) -> float:
        up, down = self._turns(n)
        if s <= up:
            return self._ease(self.start, self.peak, s / up)
        if s <= down:
            return self._ease(self.peak, self.start, (s - up) / (down - up))
        return self._ease(self.start if down > up else self.peak, self.end, (s - down) / (n - down))

    def momentum(self) -> Schedule | None:
        if self.momentum_start is None or self.momentum_peak is None:
            return None
        return _Dip(
            length=self.length, up=self.up, high=self.momentum_start, low=self.momentum_peak,
            anneal=self.anneal, three_phase=self.three_phase,
        )  # fmt: skip

    def _turns(self, n: int) -> tuple[int, int]:
        """The steps of the peak and of the second turn (the peak again where there is none)."""
        up = int(self.up)
        down = 2 * up if self.three_phase else up
        if down >= n:
            raise ConfigError("up", f"must leave steps for the way down: the phase has {n} steps", up)
        return up, down

    def _ease(self, a: float, b: float, v: float) -> float:
        return blend(a, b, v if self.anneal == "linear" else (1.0 - math.cos(math.pi * v)) / 2.0)

    def edges(self, n: int) -> list[int]:
        return sorted(set(self._turns(n)))


@dataclass(frozen=True)
class _Dip(OneCycle):
    """Momentum beside ``OneCycle``: from ``high`` to ``low`` while the rate rises, back, and then held."""

    high: float = 0.95
    low: float = 0.85

    def __call__(self, s: int, n: int) -> float:
        up, down = self._turns(n)
        if s <= up:
            return self._ease(self.high, self.low, s / up)
        back = down if down > up else n
        return self._ease(self.low, self.high, (s - up) / (back - up)) if s <= back else self.high


@dataclass(frozen=True)
class Wsd(Schedule):
    """Warmup-stable-decay: flat, then a short decay (its warmup is the group ``warmup``).

        m = start                                     before the decay
        m = shape from start to end                   during the last ``decay`` of the phase

    Args:
        decay: length of the decay.
        shape: ``sqrt`` (1 - sqrt), ``linear`` or ``cosine``.

    Reference: Hu et al. 2024, MiniCPM, arXiv:2404.06395, section 4; Hägele et al. 2024, arXiv:2405.18392.

    >>> [Wsd(decay=20, shape="linear")(s, 100) for s in (0, 80, 90)]
    [1.0, 1.0, 0.5]
    """

    decay: Length = duration("20%")
    shape: Literal["sqrt", "linear", "cosine"] = "sqrt"
    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("sqrt", "linear", "cosine").check("shape", self.shape)

    def __call__(self, s: int, n: int) -> float:
        stable = self._stable(n)
        if s < stable:
            return self.start
        falls = {"sqrt": Sqrt, "linear": Linear, "cosine": Cosine}[self.shape]
        return float(falls(start=self.start, end=self.end)(s - stable, n - stable))

    def _stable(self, n: int) -> int:
        decay = int(self.decay)
        if decay > n:
            raise ConfigError("decay", f"must not be longer than the phase, which has {n} steps", decay)
        return n - decay

    def edges(self, n: int) -> list[int]:
        return [stable] if (stable := self._stable(n)) else []


@dataclass(frozen=True)
class RangeTest(Schedule):
    """The learning-rate range test as a schedule: the rate only rises, so that the loss shows where it is right.

        m = start * (end / start) ** u        exponential: as many steps in every decade
        m = start * (1 - u) + end * u         linear, as in the paper

    ``lrkit find`` runs it, reads the curve and stops in time; as a schedule it is a training like any other, with
    ``optimizer.lr`` for its last rate.

    Args:
        start: first value, > 0.
        end: value at the end of the phase, > start.
        shape: ``exponential`` or ``linear``.

    Reference: Smith 2017, arXiv:1506.01186, section 3.3.

    >>> [round(RangeTest(start=1e-4)(s, 4), 9) for s in (0, 1, 2, 4)]
    [0.0001, 0.001, 0.01, 1.0]
    """

    start: float = number(1e-6, over=0)
    end: float = number(1.0, over=0)
    shape: Literal["exponential", "linear"] = "exponential"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("exponential", "linear").check("shape", self.shape)
        if self.start >= self.end:
            raise ConfigError("start", f"must be below end ({self.end})", self.start)

    def __call__(self, s: int, n: int) -> float:
        if self.shape == "linear":
            return blend(self.start, self.end, s / n)
        return Exponential(gamma=None, start=self.start, end=self.end)(s, n)


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Schedules one after the other, each with a ``length`` of its own; the last one may take the rest.

        m = phases[i](s - first_i, length_i)

    >>> halves = Piecewise(phases=[Linear(start=0.0, end=1.0, length=10), Constant()])
    >>> halves(5, 20), halves(10, 20)
    (0.5, 1.0)
    """

    phases: Sequence[Schedule] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.phases, list | tuple) or not self.phases:
            raise ConfigError("phases", "must be a list of schedules, each with a length", self.phases)
        for i, phase in enumerate(self.phases):
            if not isinstance(phase, Schedule):
                raise ConfigError(
                    f"phases[{i}]", "must be a schedule, such as {_target_: lrkit.schedules.Linear}", phase
                )
            if phase.length is None and i < len(self.phases) - 1:
                raise ConfigError(f"phases[{i}].length", "must be set: only the last phase may take the rest", None)
        object.__setattr__(self, "phases", tuple(self.phases))

    @property
    def bounded(self) -> bool:
        return self.phases[-1].length is None and self.phases[-1].bounded

    def resolved(self, horizon: Horizon) -> Self:
        phases = []
        for i, phase in enumerate(self.phases):
            try:
                phases.append(phase.resolved(horizon))
            except ConfigError as error:
                raise error.under(f"phases[{i}]") from None
        return dataclasses.replace(super().resolved(horizon), phases=tuple(phases))

    def _spans(self, n: int) -> list[tuple[int, int, Schedule]]:
        """For each phase its first step, its length and its schedule."""
        spans, first = [], 0
        for i, phase in enumerate(self.phases):
            length = n - first if phase.length is None else int(phase.length)
            if length < 1 or first + length > n:
                raise ConfigError(f"phases[{i}].length", f"must fit: {n - first} of {n} steps are left", length)
            spans.append((first, length, phase))
            first += length
        return spans

    def __call__(self, s: int, n: int) -> float:
        first, length, phase = next(span for span in reversed(self._spans(n)) if span[0] <= s)
        return phase(s - first, length) if s < first + length else phase.final(length)

    def final(self, n: int) -> float:
        _, length, phase = self._spans(n)[-1]
        return phase.final(length)

    def edges(self, n: int) -> list[int]:
        edges: set[int] = set()
        for i, (first, length, phase) in enumerate(self._spans(n)):
            try:
                edges |= {first, first + length, *(first + inner for inner in phase.edges(length))}
            except ConfigError as error:
                raise error.under(f"phases[{i}]") from None
        return sorted(e for e in edges if 0 < e < n)


def check_number(name: str, value: Any, over: float | None, low: float | None, high: float | None) -> None:
    lower = f"({over:g}, " if over is not None else f"[{low:g}, " if low is not None else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(name, "must be a number", value)
    inside = (
        is_finite(value)
        and (over is None or value > over)
        and (low is None or value >= low)
        and (high is None or value <= high)
    )
    if not inside:
        if high is not None:
            raise ConfigError(name, f"must be in {lower}{high:g}]", value)
        raise ConfigError(name, f"must be > {over:g}" if over is not None else f"must be >= {low:g}", value)


def _check_duration(name: str, value: Any, *, zero: bool = False) -> None:
    if Duration.parse(value, name).value == 0 and not zero:
        raise ConfigError(name, "must be longer than 0", value)
