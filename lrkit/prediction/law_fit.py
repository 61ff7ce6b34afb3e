"""Fits the annealing law to loss curves: a grid over its exponent and its decay, and linear least squares for the rest.

For a fixed exponent and decay the law is linear in ``L0``, ``A`` and ``C``. So every point of a grid over these two has
one solution, which needs no starting point, and the grid is refined around the best point. Residuals are shares of the
loss, and count by Huber's loss, as in the paper: a single spike does not move the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrkit.prediction.annealing_law import AnnealingLaw, Numbers, measure_areas

__all__ = ["LossCurve", "fit_law", "measure_residuals", "refit_law"]

_EXPONENTS = np.geomspace(0.03, 2.5, 18)
_LAGS = 12  # values of the lag, from 1 step to the longest run
_REFINED, _ZOOMS = 9, 2  # values between two neighbours in the grid, and how often it is refined
_RESAMPLED = 5  # values of each in the grid of a bootstrap
_ROUNDS = 4  # of reweighting
_HUBER = 1.345  # standard deviations from which on a residual counts less than its square
_TINY = 1e-300


@dataclass(frozen=True)
class LossCurve:
    """A recorded loss curve, and the learning rates that it came from.

    Args:
        rates: learning rate of each block of steps.
        width: steps in a block.
        steps: numbers of steps after which the loss was measured.
        losses: the loss at each of them, above 0.
    """

    rates: Numbers
    width: int
    steps: Numbers
    losses: Numbers

    @property
    def length(self) -> int:
        """Steps of the run."""
        return len(self.rates) * self.width


@dataclass(frozen=True)
class _Points:
    """All points of some curves, with the terms of the law on a grid.

    Args:
        exponents: values of alpha.
        lags: values of 1 / (1 - decay).
        forward: S1 ** -alpha, (exponents, 1, points).
        averages: moving average of the rate, (1, lags, points).
        losses: (points,).
        shares: of a point in the fit, (points,): each run counts the same.
    """

    exponents: Numbers
    lags: Numbers
    forward: Numbers
    averages: Numbers
    losses: Numbers
    shares: Numbers


def fit_law(curves: Sequence[LossCurve]) -> AnnealingLaw:
    """Return the law that is nearest to the curves; each curve counts the same, however often its loss was measured.

    >>> law = AnnealingLaw(1.0, 2.0, 0.5, 0.3, 10.0)
    >>> shapes = np.ones(200), np.linspace(1.0, 0.0, 200)
    >>> steps = np.arange(40.0, 201.0, 5.0)
    >>> found = fit_law([LossCurve(rates, 1, steps, law.losses(rates, 1, steps)) for rates in shapes])
    >>> round(found.floor, 1), round(found.exponent, 1), round(found.lag)
    (1.0, 0.5, 10)
    """
    lags = np.geomspace(1.0, max(2.0, float(max(curve.length for curve in curves))), _LAGS)
    exponents = _EXPONENTS
    law = _search(_gather(curves, exponents, lags))
    for _ in range(_ZOOMS):
        exponents, lags = _zoom(exponents, law.exponent), _zoom(lags, law.lag)
        law = _search(_gather(curves, exponents, lags))
    return law


def refit_law(curves: Sequence[LossCurve], law: AnnealingLaw, factors: Sequence[Numbers]) -> list[AnnealingLaw]:
    """Return the law for each row of factors, which multiply the weights of the points: the samples of a bootstrap.

    Args:
        curves: those that ``law`` was fitted to.
        law: the search stays within a factor of 3 of its exponent, and of 4 of its lag.
        factors: for each sample, one number for each point of the curves in their order.
    """
    lags = np.geomspace(max(1.0, law.lag / 4.0), law.lag * 4.0, _RESAMPLED)
    points = _gather(curves, np.geomspace(law.exponent / 3.0, law.exponent * 3.0, _RESAMPLED), lags)
    return [_search(points, factor) for factor in factors]


def measure_residuals(law: AnnealingLaw, curve: LossCurve) -> Numbers:
    """Return what the law says too much at each point of a curve, as a share of the loss."""
    found: Numbers = (law.losses(curve.rates, curve.width, curve.steps) - curve.losses) / curve.losses
    return found


def _zoom(grid: Numbers, best: float) -> Numbers:
    """Return a finer grid between the neighbours of the best point of a grid."""
    place = int(np.argmin(np.abs(np.log(grid / best))))
    return np.geomspace(grid[max(0, place - 1)], grid[min(len(grid) - 1, place + 1)], _REFINED)


def _gather(curves: Sequence[LossCurve], exponents: Numbers, lags: Numbers) -> _Points:
    areas = [measure_areas(curve.rates, curve.width, curve.steps, lags) for curve in curves]
    forward = np.concatenate([area.forward for area in areas])
    shares = [np.full(len(curve.steps), 1.0 / len(curve.steps) / len(curves)) for curve in curves]
    return _Points(
        exponents,
        lags,
        (forward[None, :] ** -exponents[:, None])[:, None, :],
        np.concatenate([area.averages for area in areas], axis=1)[None, :, :],
        np.concatenate([curve.losses for curve in curves]),
        np.concatenate(shares),
    )


def _search(points: _Points, factors: Numbers | None = None) -> AnnealingLaw:
    """Return the best law on a grid."""
    x1, x2, y = points.forward, points.averages, points.losses
    shares = points.shares if factors is None else points.shares * factors
    weights = np.broadcast_to(shares, (len(points.exponents), len(points.lags), len(y)))
    for _ in range(_ROUNDS):
        floor, scale, gain = _solve(x1, x2, y, weights / y**2)
        off = np.abs(floor[..., None] + scale[..., None] * x1 + gain[..., None] * x2 - y) / y
        spread = 1.4826 * np.median(off, axis=-1, keepdims=True) + 1e-12
        weights = shares * np.minimum(1.0, _HUBER * spread / np.maximum(off, 1e-12))
    knee = _HUBER * float(spread.min())
    cost = (shares * np.where(off <= knee, 0.5 * off**2, knee * (off - 0.5 * knee))).sum(-1)
    i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
    exponent, lag = float(points.exponents[i]), float(points.lags[j])
    return AnnealingLaw(float(floor[i, j]), float(scale[i, j]), exponent, float(gain[i, j]), lag)


def _solve(x1: Numbers, x2: Numbers, y: Numbers, weights: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return the weighted least-squares floor, scale and gain at each point of the grid, none of them below 0."""
    total = weights.sum(-1)
    m1, m2, my = ((weights * x).sum(-1) / total for x in (x1, x2, y))
    scale, gain = _solve_two(x1 - m1[..., None], x2 - m2[..., None], y - my[..., None], weights)
    floor = my - scale * m1 - gain * m2
    if (below := floor < 0.0).any():
        bare = _solve_two(x1, x2, y, weights)
        scale, gain = (np.where(below, new, old) for new, old in zip(bare, (scale, gain), strict=True))
    return np.where(below, 0.0, floor), scale, gain


def _solve_two(x1: Numbers, x2: Numbers, y: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Return the weighted least-squares factors of two columns, none of them below 0."""
    a, b, c = (weights * x1 * x1).sum(-1), (weights * x1 * x2).sum(-1), (weights * x2 * x2).sum(-1)
    p, q = (weights * x1 * y).sum(-1), (weights * x2 * y).sum(-1)
    bend = a * c - b * b
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (c * p - b * q) / bend, (a * q - b * p) / bend
    both = (bend > 1e-12 * a * c) & (first >= 0.0) & (second >= 0.0)
    one, other = np.maximum(0.0, p / (a + _TINY)), np.maximum(0.0, q / (c + _TINY))
    better = one * p >= other * q  # the larger fall of the squares
    return np.where(both, first, np.where(better, one, 0.0)), np.where(both, second, np.where(better, 0.0, other))
