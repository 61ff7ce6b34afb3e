"""The rule by which a rung of a race promotes settings to longer runs: successive halving, with a margin for noise.

A rung trains ``n`` settings for a share of their steps and promotes the best ``ceil(keep * n)``, two at least
(successive halving, Jamieson and Talwalkar 2016, arXiv:1502.07943; Li et al. 2018, arXiv:1603.06560, keep 1 of
``eta``). A setting within one standard error of the last promoted one is promoted too, up to twice as many in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, stdev

__all__ = ["Standing", "count_promoted", "promote", "race_cost"]

_LEAST = 2  # settings to promote: a short copy alone must not choose the answer
_MOST = 2  # multiples of the number that a rung promotes without noise


@dataclass(frozen=True)
class Standing:
    """The scores of a setting in a rung.

    Args:
        values: seed -> score, lower is better; infinite for a run that diverged or failed.
        noise: standard error of a single score; 0 if it is not known.
    """

    values: Mapping[object, float]
    noise: float = 0.0

    @property
    def mean(self) -> float:
        """The mean over the seeds; infinite if a run is lost: the mean of the others would flatter the setting."""
        return fmean(self.values.values()) if self.values else math.inf


def promote(standings: Sequence[Standing], keep: float) -> list[int]:
    """Return the indices of the promoted settings, best first. A setting with a lost run is never promoted.

    Args:
        standings: one entry a setting.
        keep: share of the settings to promote, in (0, 1).

    >>> promote([Standing({1: 0.5}), Standing({1: 0.1}), Standing({1: 0.3}), Standing({1: math.inf})], 0.5)
    [1, 2]
    >>> promote([Standing({1: 0.50}), Standing({1: 0.1}), Standing({1: 0.11}, noise=0.02), Standing({1: 0.12})], 0.25)
    [1, 2, 3]
    >>> promote([Standing({1: 0.30, 2: 0.60}), Standing({1: 0.31, 2: 0.60}), Standing({1: 0.4, 2: 0.7})], 0.3)
    [0, 1]
    """
    order = sorted((i for i, each in enumerate(standings) if each.mean < math.inf), key=lambda i: standings[i].mean)
    first = count_promoted(len(standings), keep)
    promoted, others = order[:first], order[first : _MOST * first]
    if promoted:
        last = standings[promoted[-1]]
        promoted += [i for i in others if standings[i].mean - last.mean <= _standard_error(last, standings[i])]
    return promoted


def count_promoted(settings: int, keep: float) -> int:
    """Return how many of ``settings`` a rung promotes without noise.

    >>> count_promoted(48, 0.25), count_promoted(3, 0.25)
    (12, 2)
    """
    return min(settings, max(_LEAST, math.ceil(settings * keep - 1e-9)))


def race_cost(settings: int, rungs: Sequence[Fraction], keep: float) -> float:
    """Return the steps of a race without noise, as a share of the steps of all settings.

    >>> race_cost(48, [Fraction(1, 16), Fraction(1, 4)], 0.25)
    0.1875
    """
    steps, left = 0.0, settings
    for share in rungs:
        if (promoted := count_promoted(left, keep)) < left:
            steps, left = steps + left * float(share), promoted
    return (steps + left) / settings


def _standard_error(a: Standing, b: Standing) -> float:
    """Return the standard error of the difference of two means: paired by seed, or by the noise of single scores."""
    if len(a.values) > 1 and a.values.keys() == b.values.keys():
        return stdev(b.values[seed] - a.values[seed] for seed in a.values) / math.sqrt(len(a.values))
    return math.hypot(a.noise, b.noise) / math.sqrt(max(1, min(len(a.values), len(b.values))))
