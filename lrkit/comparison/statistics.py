"""Confidence intervals of means over a few seeds, and tests for their difference, by Student's t distribution.

The values are assumed to be normally distributed. With three seeds the quantile is 4.3, with many it is 1.96. An
interval of three values by 1.96 would miss the mean about one time in five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

__all__ = ["LEVEL", "Interval", "means_differ", "t_quantile"]

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of ``n`` values, and half the width of its 95 % confidence interval; None if there is only one value."""

    mean: float
    half: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """``mean ± t * s / sqrt(n)``, with ``t`` the quantile of Student's distribution with ``n - 1`` degrees.

        >>> Interval.of([1.0, 2.0, 3.0])  # doctest: +ELLIPSIS
        Interval(mean=2.0, half=2.484..., n=3)
        """
        n = len(values)
        if n < 2:
            return cls(fmean(values), None, n)
        return cls(fmean(values), t_quantile(n - 1) * stdev(values) / math.sqrt(n), n)

    def __str__(self) -> str:
        """Return the half-width with two digits, and the mean to the same decimal place.

        >>> str(Interval(0.21453, 0.01234, 3)), str(Interval(0.21453, None, 1))
        ('0.215 ± 0.012', '0.2145')
        """
        if self.half is None or self.half == 0 or not math.isfinite(self.mean):
            return f"{self.mean:.4g}"
        places = 1 - math.floor(math.log10(self.half))
        if not 0 <= places <= 6:
            return f"{self.mean:.4g} ± {self.half:.2g}"
        return f"{self.mean:.{places}f} ± {self.half:.{places}f}"


def means_differ(a: Mapping[object, float], b: Mapping[object, float]) -> bool | None:
    """Return whether the means of two settings differ, at 95 %, two-sided; None with too few runs for a test.

    ``a`` and ``b`` are seed -> value. With the same seeds in both, a paired t test compares the differences seed by
    seed with 0, so that an effect of the seed on both is not noise. Else Welch's test compares the means, which allows
    unequal variances (B. L. Welch, Biometrika 34, 1947). There is no correction for many comparisons: of twenty equal
    settings, about one will seem to differ.

    >>> means_differ({1: 1.0, 2: 2.0, 3: 3.0}, {1: 1.1, 2: 2.1, 3: 3.12})
    True
    >>> means_differ({1: 1.0, 2: 2.0, 3: 3.0}, {4: 1.1, 5: 2.1, 6: 3.12})
    False
    """
    if len(a) < 2 or len(b) < 2:
        return None
    if a.keys() == b.keys():
        differences = [a[seed] - b[seed] for seed in a]
        difference, variance, freedom = fmean(differences), stdev(differences) ** 2 / len(a), len(a) - 1.0
    else:
        of_a, of_b = (stdev(side.values()) ** 2 / len(side) for side in (a, b))
        difference, variance = fmean(a.values()) - fmean(b.values()), of_a + of_b
        freedom = variance**2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1)) if variance else 1.0
    if variance == 0:
        return difference != 0
    return _compute_tail(abs(difference) / math.sqrt(variance), freedom) < 1 - LEVEL


@cache
def t_quantile(freedom: float) -> float:
    """Return ``t`` with 95 % of Student's distribution between ``-t`` and ``t``, found by bisection.

    >>> [round(t_quantile(n), 4) for n in (1, 2, 10)]
    [12.7062, 4.3027, 2.2281]
    """
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _compute_tail(middle, freedom) > 1 - LEVEL else (low, middle)
    return low


def _compute_tail(t: float, freedom: float) -> float:
    """Return the probability outside ``-t`` to ``t``: ``I_x(n/2, 1/2)`` at ``x = n / (n + t^2)``.

    Abramowitz and Stegun, 26.7.1 and 26.5.27.
    """
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function ``I_x(a, b)``, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction of 1 - x converges quickly
        return 1 - _incomplete_beta(1 - x, b, a)
    fraction = 1.0
    for k in range(200, 0, -1):
        m = k // 2
        if k % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + d / fraction
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / (a * fraction)
