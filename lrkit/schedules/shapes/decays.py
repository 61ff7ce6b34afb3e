"""Decays from a first value, most of them to a last one."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lrkit.base.errors import ConfigError
from lrkit.schedules.durations import Length
from lrkit.schedules.shapes.schedule import Schedule, blend, counted, duration, number

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Cosine", "Exponential", "Linear", "Logarithmic", "Polynomial", "Rex", "Sqrt", "Tanh"]


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
    """Polynomial decay: a power of the share of steps that remain, with a power ``k`` of the progress.

        m = end + (start - end) * (1 - u ** k) ** power

    With ``period`` the decay repeats, each time over all steps since the beginning, like ``cycle`` of Keras:

        u = s / (period * c),     c = ceil(s / period) and at least 1

    Args:
        power: 1 is a straight line, 2 bends towards the end early, 0.5 late; > 0.
        k: exponent of the progress, > 0. With ``power=1`` the shape is ``1 - u ** k``: fastai's ``SchedPoly``; ``k=2``
            is "1-square" and ``k=0.5`` is ``Sqrt``.
        period: duration between two arrivals at ``end``; ``None``: one decay over the whole phase.

    Equals ``PolynomialLR`` for ``end = 0``. ``k``: Zhang and Li 2020, k-decay, arXiv:2004.05909.

    >>> Polynomial(power=2.0)(50, 100), Polynomial(power=1.0, k=2.0)(50, 100)
    (0.25, 0.75)
    >>> [Polynomial(power=1.0, period=10)(s, 100) for s in (0, 5, 10, 15, 20)]
    [1.0, 0.5, 0.0, 0.25, 0.0]
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)
    power: float = number(2.0, over=0)
    k: float = number(1.0, over=0)
    period: Length | None = duration(None)

    @property
    def bounded(self) -> bool:
        return self.period is None

    def value(self, s: int, n: int) -> float:
        if self.period is not None:
            n = int(self.period) * max(1, math.ceil(s / int(self.period)))
        return blend(self.end, self.start, (1.0 - (s / n) ** self.k) ** self.power)

    def turns(self, n: int) -> list[int]:
        if self.period is None:
            return []
        period = int(self.period)
        counted("period", 2 * n // period)
        return sorted({e for arrival in range(period, n, period) for e in (arrival, arrival + 1) if e < n})


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine.

        m = end + (start - end) * ((1 + cos(pi * u ** k)) / 2) ** power

    Args:
        power: exponent of the cosine, > 0; 2 falls earlier, 0.5 later (optax' ``exponent``).
        k: exponent of the progress, > 0; 2 stays high for longer (timm's ``k_decay``).

    Reference: Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983, eq. 5 without restarts; Zhang and Li 2020, k-decay,
    arXiv:2004.05909. Equals ``CosineAnnealingLR`` up to its ``T_max``; afterwards it stays at ``end`` where torch's
    rises again.

    >>> Cosine()(50, 100), Cosine(power=2.0)(50, 100)
    (0.5, 0.25)
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)
    power: float = number(1.0, over=0)
    k: float = number(1.0, over=0)

    def value(self, s: int, n: int) -> float:
        # In this order, k = 1 gives the same bits as every earlier version of lrkit.
        angle = math.pi * s / n if self.k == 1.0 else math.pi * (s / n) ** self.k
        return blend(self.end, self.start, ((1.0 + math.cos(angle)) / 2.0) ** self.power)


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
class Tanh(Schedule):
    """Hyperbolic tangent: flat at first, one steep part, flat again.

        m = end + (start - end) * (tanh(upper) - tanh(x)) / (tanh(upper) - tanh(lower))
        x = lower * (1 - u) + upper * u

    The paper and timm have ``(1 - tanh(x)) / 2`` in place of the quotient, which begins a little below ``start`` and
    does not reach ``end``: it is the same shape with ``start=(1 - tanh(lower)) / 2`` and ``end=(1 - tanh(upper)) / 2``.

    Args:
        lower: the argument of the tangent at the beginning, <= 0 (L in the paper).
        upper: the argument at the end, > 0 (U in the paper).

    Reference: Hsueh, Li and Wu 2019, Stochastic Gradient Descent with Hyperbolic-Tangent Decay, arXiv:1806.01593.

    >>> round(Tanh()(50, 100), 4), round(Tanh()(75, 100), 4)
    (0.9525, 0.1804)
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)
    lower: float = number(-6.0, high=0)
    upper: float = number(3.0, over=0)

    def value(self, s: int, n: int) -> float:
        u, top = s / n, math.tanh(self.upper)
        x = self.lower * (1.0 - u) + self.upper * u
        return blend(self.end, self.start, (top - math.tanh(x)) / (top - math.tanh(self.lower)))


@dataclass(frozen=True)
class Logarithmic(Schedule):
    """The logarithm of the progress: fast at first, then ever slower. As a warmup it is DeepSpeed's default.

        m = start + (end - start) * log(1 + (base - 1) * u) / log(base)

    Args:
        base: > 1; the larger, the faster at first. In ``W - 1`` steps with ``base=W`` it is ``log(s + 1) / log(W)``,
            DeepSpeed's ``warmup_type: log`` with ``warmup_num_steps: W``, which arrives one step early.

    >>> [round(Logarithmic(start=0.0, end=1.0, base=10.0)(s, 9), 4) for s in (0, 1, 4, 9)]
    [0.0, 0.301, 0.699, 1.0]
    """

    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)
    base: float = number(1000.0, over=1)

    def value(self, s: int, n: int) -> float:
        return blend(self.start, self.end, math.log1p((self.base - 1.0) * (s / n)) / math.log1p(self.base - 1.0))


@dataclass(frozen=True)
class Exponential(Schedule):
    """Exponential decay at each step, in one of three forms.

        m = start * gamma ** (s / every)                               gamma: the factor per ``every``
        m = start * (end / start) ** u                                 end: the last value
        m = end + (start - end) * (ratio ** u - ratio) / (1 - ratio)   end and ratio: any end, also 0

    For a decay in steps use ``Step``. The second form can also be a warmup. The third form is a decay from 1 to
    ``ratio``, scaled to go from ``start`` to ``end``; with ``ratio = end / start`` it is the second form.

    Args:
        gamma: factor per ``every``, > 0; above 1 the rate grows.
        every: the duration of one factor ``gamma``.
        end: value at the end of the phase, > 0, or >= 0 with ``ratio``; set either ``gamma`` or ``end``.
        start: first value, > 0, or >= 0 with ``ratio``.
        ratio: > 0 and not 1: 0.5 is Megatron's exponential decay of a WSD schedule, 0.1 is timm's.

    With ``every=1`` this equals ``torch.optim.lr_scheduler.ExponentialLR``.

    >>> Exponential(gamma=0.5, every=10)(20, 100)
    0.25
    >>> Exponential(gamma=None, end=0.01)(50, 100)
    0.1
    >>> round(Exponential(end=0.0, ratio=0.25)(50, 100), 9)
    0.333333333
    """

    gamma: float | None = number(None, over=0)
    every: Length = duration("1ep")
    end: float | None = number(None, low=0)
    start: float = number(1.0, low=0)
    ratio: float | None = number(None, over=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.gamma is None) == (self.end is None):
            given = {"gamma": self.gamma, "end": self.end}
            raise ConfigError("gamma", "or `end` must be set, and the other one null", given)
        if self.ratio is None:
            must = "must be > 0" if self.end is None else "must be > 0, or >= 0 with `ratio`"
            for name in ("end", "start"):
                if getattr(self, name) == 0:
                    raise ConfigError(name, must, getattr(self, name))
        elif self.gamma is not None:
            raise ConfigError("ratio", "is a form of the decay to `end`: set gamma to null", self.ratio)
        elif self.ratio == 1:
            raise ConfigError("ratio", "must not be 1, which would be a straight line: use Linear", self.ratio)

    @property
    def bounded(self) -> bool:
        return self.end is not None

    def resolved(self, horizon: Horizon) -> Self:
        # `every` has an effect only with gamma: without gamma, an unknown length of an epoch is no error.
        asked = self if self.end is None else dataclasses.replace(self, every=1)
        return super(Exponential, asked).resolved(horizon)

    def value(self, s: int, n: int) -> float:
        if self.end is None:
            assert self.gamma is not None
            return float(self.start * self.gamma ** (s / int(self.every)))
        if self.ratio is not None:
            rate = math.log(self.ratio)
            return blend(self.start, self.end, math.expm1(rate * (s / n)) / math.expm1(rate))
        if s <= 0 or s >= n:
            return self.start if s <= 0 else self.end
        mixed = float(self.start * (self.end / self.start) ** (s / n))
        return min(max(mixed, min(self.start, self.end)), max(self.start, self.end))  # as in ``blend``
