"""Analyses the curve of a range test: several estimates, one suggestion, or the reason for no suggestion.

A range test raises the learning rate step by step; its curve is the training loss over the rate. The analysis uses
the *logarithm* of the rate: a step from 1e-4 to 1e-3 counts as much as one from 1e-2 to 1e-1. (Lightning's
tuner differentiates by the rate itself, which makes a little noise at small rates look steep.)

    steepest    the rate at which the smoothed loss falls fastest (Howard and Gugger 2018, fastai's ``steep``)
    valley      the middle of its longest decrease              (ESRI 2020, fastai's ``valley``)
    minimum/10  a tenth of the rate of its minimum              (fastai's ``minimum``)
    slide       the largest rate at which it still falls        (Novosad 2020, fastai's ``slide``)

Repeats of the test, with other initial weights and another order of the data, are averaged point by point; for the
interval each repeat is analysed, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lrkit.runs.loss_noise import loss_noise

__all__ = ["CurveReading", "RangeTestRun", "has_diverged", "read_curves", "smooth_losses"]

#: Minimal size of a fall that counts: a multiple of the noise of the smoothed curve, and a share of the loss.
CLEAR, VISIBLE = 5.0, 0.005
#: Distance, in decades, over which the weights of the smoothing halve.
HALF = 0.175
#: Number of losses at the beginning of a curve whose mean is its start.
FIRST = 10


@dataclass(frozen=True)
class RangeTestRun:
    """One range test: the rising rates, the loss at each, and the reason for its end."""

    rates: Sequence[float]
    losses: Sequence[float]
    ended: str = ""


@dataclass(frozen=True)
class CurveReading:
    """The result of the analysis.

    Args:
        lr: the suggestion, halfway in decades between the steepest fall and half the rate of the minimum; None without
            a suggestion.
        low, high: the lowest and the highest estimate, over all repeats.
        minimum: the rate at which the smoothed loss is lowest; short runs begin around it.
        reason: the reason for no suggestion; else empty.
        estimates: the estimates from the averaged curve, by name.
        rates, losses: the averaged curve, smoothed.
    """

    lr: float | None
    low: float | None = None
    high: float | None = None
    minimum: float | None = None
    reason: str = ""
    estimates: Mapping[str, float] = field(default_factory=dict)
    rates: Sequence[float] = ()
    losses: Sequence[float] = ()


class _Point(NamedTuple):
    """A point of the smoothed curve: its value, its slope per decade, its standard error for losses with error 1."""

    value: float
    slope: float
    error: float


def smooth_losses(rates: Sequence[float], losses: Sequence[float]) -> list[float]:
    """Smoothed losses: at each rate the line through its neighbours, whose weights halve with the distance.

        w[i,j] = 2 ** -(|log10 rate[i] - log10 rate[j]| / HALF)

    An exponential moving average that looks both ways does not lag behind the curve; dividing by the sum of the
    weights is its bias correction, and a line in place of a mean does not bend the ends.
    """
    return [point.value for point in _smooth_points(rates, losses)]


def _smooth_points(rates: Sequence[float], losses: Sequence[float]) -> list[_Point]:
    logs = [math.log10(rate) for rate in rates]
    return [_fit_local_line(logs, losses, at) for at in logs]


def _fit_local_line(logs: Sequence[float], losses: Sequence[float], at: float) -> _Point:
    weights = [2.0 ** -(abs(x - at) / HALF) for x in logs]
    total = sum(weights)
    weights = [w / total for w in weights]
    centre = sum(w * x for w, x in zip(weights, logs, strict=True))
    spread = sum(w * (x - centre) ** 2 for w, x in zip(weights, logs, strict=True))
    # The weight of each loss in the slope, and in the value: both are sums over the losses.
    tilts = [w * (x - centre) / spread for w, x in zip(weights, logs, strict=True)]
    counts = [w + (at - centre) * tilt for w, tilt in zip(weights, tilts, strict=True)]
    value = sum(c * y for c, y in zip(counts, losses, strict=True))
    slope = sum(t * y for t, y in zip(tilts, losses, strict=True))
    return _Point(value, slope, math.sqrt(sum(c * c for c in counts)))


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether a range test can stop: the loss has risen above its start by more than it had fallen below it.

    The loss is an exponential moving average with bias correction, so that one bad batch does not end the test. The
    rise must also be clear against the noise, because a flat curve has only noise.
    """
    if len(losses) < 2 * FIRST:
        return False
    decay, average, best = 0.7, 0.0, math.inf
    for i, loss in enumerate(losses, start=1):
        average = decay * average + (1.0 - decay) * loss
        corrected = average / (1.0 - decay**i)
        best = min(best, corrected) if i >= FIRST else best
    start = sum(losses[:FIRST]) / FIRST
    wobble = loss_noise(losses) * math.sqrt((1.0 - decay) / (1.0 + decay))
    return corrected - start > max(start - best, 8.0 * wobble, 0.05 * abs(start))


def read_curves(sweeps: Sequence[RangeTestRun]) -> CurveReading:
    """The analysis of the repeats of a range test.

    It has a reason and no suggestion if the curve is flat, never falls, falls by less than its noise,
    falls from the first step, or still falls at the end of the range.

    >>> rates = [10.0 ** (-6 + i / 12) for i in range(72)]
    >>> curve = [2.3 - 1.5 / (1 + (0.01 / rate) ** 3) + (rate / 0.5) ** 4 for rate in rates]
    >>> 0.002 < read_curves([RangeTestRun(rates, curve)]).lr < 0.05
    True
    >>> read_curves([RangeTestRun(rates, [2.3] * 72)]).reason
    'the loss is flat, no rate from 1e-06 to 0.825 changes it: try a higher find.end'
    """
    count = min(len(sweep.losses) for sweep in sweeps)
    rates = list(sweeps[0].rates[:count])
    if count == 0 and "not finite" in sweeps[0].ended:
        why = f"{sweeps[0].ended} at the first step, before any rate was used: check the data, the model and the loss"
        return CurveReading(None, reason=why)
    if count < 2 * FIRST:
        why = f"the test ended after {count} steps ({sweeps[0].ended or 'too few'}): lower find.start"
        return CurveReading(None, reason=why)
    mean = [sum(sweep.losses[i] for sweep in sweeps) / len(sweeps) for i in range(count)]
    points = _smooth_points(rates, mean)
    curve, lowest = [point.value for point in points], _find_lowest(points)
    if reason := _find_reason_for_no_suggestion(
        rates, mean, points, any(has_diverged(sweep.losses) for sweep in sweeps)
    ):
        return CurveReading(None, reason=reason, minimum=rates[lowest], rates=rates, losses=curve)
    estimates = _estimate_rates(rates, points)
    all_estimates = [*estimates.values()]
    for sweep in sweeps:
        own = _smooth_points(rates, sweep.losses[:count])
        if not _find_reason_for_no_suggestion(rates, sweep.losses[:count], own, True):
            all_estimates += _estimate_rates(rates, own).values()
    lr = math.sqrt(estimates["steepest"] * rates[lowest] / 2.0)
    return CurveReading(
        lr, min(lr, *all_estimates), max(lr, *all_estimates), rates[lowest], "", estimates, rates, curve
    )


def _find_reason_for_no_suggestion(
    rates: Sequence[float], losses: Sequence[float], points: Sequence[_Point], ended: bool
) -> str:
    """The reason for no suggestion from a curve; an empty string if it allows one."""
    lowest, single = _find_lowest(points), loss_noise(losses)
    start = sum(losses[:FIRST]) / FIRST
    fall, rise = start - points[lowest].value, max(losses[-FIRST:]) - start
    doubt = single * math.hypot(points[lowest].error, 1 / math.sqrt(FIRST))
    least, between = max(CLEAR * doubt, VISIBLE * abs(start)), f"from {rates[0]:.3g} to {rates[-1]:.3g}"
    if fall < least:
        if rise > max(CLEAR * single, VISIBLE * abs(start)) and rise > 2.0 * fall:
            return f"the loss never improves, it only rises: no rate {between} lowers it in so few steps"
        if CLEAR * doubt > VISIBLE * abs(start):
            beyond = f"moves the loss beyond its noise ({single:.3g} a step, a fall of {max(fall, 0.0):.3g})"
            return f"no rate {between} {beyond}: try a higher find.end, or more find.repeats"
        return f"the loss is flat, no rate {between} changes it: try a higher find.end"
    # Means of a few points are compared: a single slope at an end is mostly noise.
    few = max(3, len(losses) // 16)
    first, then = sum(losses[:few]) / few, sum(losses[few : 2 * few]) / few
    if first - then > max(0.2 * fall, CLEAR * single / math.sqrt(few)):
        return f"the loss fell from the first step, at {rates[0]:.3g}: set a lower find.start"
    before, last = points[-few].value, points[-1].value
    if not ended and lowest >= len(points) - 2 and before - last > 0.1 * fall:
        return f"the loss was still falling at the end of the range, {rates[-1]:.3g}: set a higher find.end"
    return ""


def _find_lowest(points: Sequence[_Point]) -> int:
    return min(range(len(points)), key=lambda i: points[i].value)


def _estimate_rates(rates: Sequence[float], points: Sequence[_Point]) -> dict[str, float]:
    """The estimates from one curve, by name."""
    lowest = _find_lowest(points)
    steepest = min(range(lowest + 1), key=lambda i: points[i].slope)
    # Backwards from the minimum, to the first rate at which the curve falls at least half as fast as at its steepest.
    slide = next(i for i in range(lowest, steepest - 1, -1) if points[i].slope <= 0.5 * points[steepest].slope)
    return {
        "steepest": rates[steepest],
        "valley": rates[_find_valley([point.value for point in points], lowest)],
        "minimum/10": rates[lowest] / 10.0,
        "slide": rates[slide],
    }


def _find_valley(curve: Sequence[float], lowest: int) -> int:
    """The middle of the longest decreasing subsequence, after the first tenth of the fall."""
    level = curve[0] - 0.1 * (curve[0] - curve[lowest])
    begin = next((i for i in range(lowest) if max(curve[i : lowest + 1]) <= level), lowest)
    down = curve[begin:]
    length, before = [1] * len(down), list(range(len(down)))
    for i in range(len(down)):
        for j in range(i):
            if down[i] < down[j] and length[j] + 1 > length[i]:
                length[i], before[i] = length[j] + 1, j
    end = first = max(range(len(down)), key=length.__getitem__)
    while before[first] != first:
        first = before[first]
    return begin + (first + end) // 2
