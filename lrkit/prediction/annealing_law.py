"""The annealing law: the loss at a step, from the learning rates until this step.

    L(s) = L0 + A * S1(s) ** -alpha - C * S2(s)

    S1(s) = sum_{i<=s} lr_i                                        forward area: how far training has come
    S2(s) = sum_{i<=s} m_i,   m_i = decay * m_{i-1} + lr_{i-1} - lr_i   annealing area: how far the rate has come down

A sum of the ``m_i`` is a moving average of the rate, turned over: with the rate 0 before the run,
``S2(s) = -average(s) / (1 - decay)``. The paper counts from the rate after the warmup instead. For runs of one peak
rate the difference is a constant, which L0 takes; from 0, runs at several rates have one L0, and a higher rate costs
loss until it is annealed. Here the average begins with the first rate, so that a fixed rate has no start of its own.

Reference: Tissue et al. 2024, *Scaling Law with Learning Rate Annealing*, arXiv:2408.11029, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnnealingLaw", "RateAreas", "final_losses", "measure_areas"]

Numbers = NDArray[np.float64]
_LEAST_AREA = 1e-30  # in place of 0, before the first step with a rate


@dataclass(frozen=True)
class RateAreas:
    """The two areas under a curve of learning rates, at some steps.

    Args:
        forward: S1, of shape (steps,).
        averages: moving average of the rate for each decay, of shape (decays, steps).
    """

    forward: Numbers
    averages: Numbers


def measure_areas(rates: Numbers, width: int, places: Sequence[float] | Numbers, lags: Numbers) -> RateAreas:
    """Return the areas of a run after some numbers of steps.

    Args:
        rates: learning rate of each block of steps.
        width: steps in a block.
        places: numbers of steps, in [1, width * len(rates)].
        lags: ``1 / (1 - decay)`` in steps, for each decay.

    >>> found = measure_areas(np.array([1.0, 1.0, 0.0]), 1, [2, 3], np.array([2.0]))
    >>> found.forward.tolist(), found.averages.tolist()
    ([2.0, 2.0], [[1.0, 0.5]])
    """
    keep = (1.0 - 1.0 / lags) ** width
    average, averages = np.full(len(lags), rates[0]), np.empty((len(rates), len(lags)))
    for i, rate in enumerate(rates):
        average = keep * average + (1.0 - keep) * rate
        averages[i] = average
    ends = width * np.arange(1, len(rates) + 1)
    forward = np.interp(places, np.concatenate([[0], ends]), np.concatenate([[0.0], np.cumsum(rates) * width]))
    return RateAreas(
        np.maximum(forward, _LEAST_AREA), np.stack([np.interp(places, ends, column) for column in averages.T])
    )


@dataclass(frozen=True)
class AnnealingLaw:
    """A fitted law.

    Args:
        floor: L0, in units of the loss.
        scale: A >= 0.
        exponent: alpha > 0.
        gain: C / (1 - decay) >= 0: loss for each unit of the moving average of the rate.
        lag: 1 / (1 - decay), in steps: how long a step remembers the rate.
    """

    floor: float
    scale: float
    exponent: float
    gain: float
    lag: float

    def losses(self, rates: Numbers, width: int, places: Sequence[float] | Numbers) -> Numbers:
        """Return the losses of a run after some numbers of steps; see ``measure_areas``.

        >>> AnnealingLaw(1.0, 2.0, 1.0, 0.5, 2.0).losses(np.array([1.0, 1.0, 0.0]), 1, [2, 3]).tolist()
        [2.5, 2.25]
        """
        areas = measure_areas(rates, width, places, np.array([self.lag]))
        found: Numbers = self.floor + self.scale * areas.forward**-self.exponent + self.gain * areas.averages[0]
        return found


def final_losses(laws: Sequence[AnnealingLaw], rates: Numbers, width: int, steps: int) -> Numbers:
    """Return the loss after ``steps`` steps by each law; the rates are gone through once.

    >>> laws = [AnnealingLaw(1.0, 2.0, 1.0, gain, 2.0) for gain in (0.0, 0.5)]
    >>> final_losses(laws, np.array([1.0, 1.0, 0.0]), 1, 3).tolist()
    [2.0, 2.25]
    """
    areas = measure_areas(rates, width, [steps], np.array([law.lag for law in laws]))
    forward = float(areas.forward[0])
    averages = areas.averages[:, 0].tolist()
    return np.array([
        law.floor + law.scale * forward**-law.exponent + law.gain * average
        for law, average in zip(laws, averages, strict=True)
    ])  # fmt: skip
