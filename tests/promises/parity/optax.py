"""optax: functions from a count to a value. The base rate is the peak, 1."""

from __future__ import annotations

import math

from parity.rows import Curve, Peer, Row, cosine, phases, table

__all__ = ["PEER"]


def polynomial(first: float, last: float, power: float, steps: int, begin: int = 0) -> Curve:
    return lambda t: (first - last) * (1 - min(max(t - begin, 0), steps) / steps) ** power + last


def exponential(steps: int, rate: float, *, first: float = 1.0, begin: int = 0, staircase: bool = False,
                last: float | None = None) -> Curve:  # fmt: skip
    def theirs(t: float) -> float:
        p = (t - begin) / steps
        value = first if t <= begin else first * rate ** (math.floor(p) if staircase else p)
        return value if last is None else max(value, last) if rate < 1 else min(value, last)

    return theirs


def cosine_decay(steps: int, alpha: float = 0.0, exponent: float = 1.0) -> Curve:
    return lambda t: (1 - alpha) * cosine(min(t, steps) / steps) ** exponent + alpha


def joined(*parts: tuple[int, Curve]) -> Curve:
    """Schedules, each from its boundary on, with a clock of its own."""

    def theirs(t: float) -> float:
        first, part = next((first, part) for first, part in reversed(parts) if t >= first)
        return part(t - first)

    return theirs


def warmup_cosine(first: float, warmup: int, steps: int, last: float, peak: float = 1.0) -> Curve:
    fall = cosine_decay(steps - warmup, last / peak)
    return joined((0, polynomial(first, peak, 1, warmup)), (warmup, lambda t: peak * fall(t)))


def interpolated(kind: str, first: float, scales: dict[int, float]) -> Curve:
    """Between the products of the scales, on straight lines or on half cosines."""
    bounds, values = [0], [first]
    for bound, scale in sorted(scales.items()):
        bounds.append(bound)
        values.append(values[-1] * scale)

    def theirs(t: float) -> float:
        for i in range(len(bounds) - 1):
            if bounds[i] <= t < bounds[i + 1]:
                u = (t - bounds[i]) / (bounds[i + 1] - bounds[i])
                a, b = values[i], values[i + 1]
                return (b - a) * u + a if kind == "linear" else b + (a - b) * cosine(u)
        return values[-1]

    return theirs


def scaled(first: float, scales: dict[int, float]) -> Curve:
    return lambda t: first * math.prod(scale for bound, scale in scales.items() if t >= bound)


PEER = Peer("optax", "0.2.8, optax/schedules/_schedule.py", [
    Row("cosine_decay_schedule(1.0, 50, alpha=0.1)",
        "schedule=cosine schedule.end=0.1 schedule.length=50", cosine_decay(50, 0.1)),
    Row("cosine_decay_schedule(1.0, 60, exponent=2)", "schedule=cosine schedule.power=2", cosine_decay(60, exponent=2)),
    Row("warmup_constant_schedule(0.1, 1.0, warmup_steps=10)",
        "schedule=constant warmup=linear warmup.length=10 warmup.start=0.1", polynomial(0.1, 1.0, 1, 10)),
    Row("warmup_cosine_decay_schedule(0.1, 1.0, warmup_steps=10, decay_steps=60, end_value=0.05)",
        "schedule=cosine schedule.end=0.05 warmup=linear warmup.length=10 warmup.start=0.1",
        warmup_cosine(0.1, 10, 60, 0.05)),
    Row("warmup_cosine_decay_schedule(2.0, 1.0, warmup_steps=10, decay_steps=60, end_value=0.05)",
        phases("linear, start: 2.0, end: 1.0, length: 10", "cosine, end: 0.05"), warmup_cosine(2.0, 10, 60, 0.05),
        convention="A warmup of lrkit only rises; a fall to the peak is a phase"),
    Row("sgdr_schedule([{init_value: 0.1, peak_value: p, warmup_steps: 5, decay_steps: 20} for p in (1, 0.5, 0.25)])",
        phases(*(part for peak in (1.0, 0.5, 0.25) for part in (
            f"linear, start: 0.1, end: {peak}, length: 5", f"cosine, start: {peak}, length: 15"))),
        joined(*((20 * i, warmup_cosine(0.1, 5, 20, 0.0, peak)) for i, peak in enumerate((1.0, 0.5, 0.25))))),
    Row("exponential_decay(1.0, 10, 0.5)",
        "schedule=exponential schedule.gamma=0.5 schedule.every=10", exponential(10, 0.5)),
    Row("exponential_decay(1.0, 10, 0.5, staircase=True)",
        "schedule=step schedule.gamma=0.5 schedule.every=10", exponential(10, 0.5, staircase=True), compared=60),
    Row("exponential_decay(1.0, 10, 0.5, staircase=True, end_value=0.1)",
        "schedule=step schedule.gamma=0.5 schedule.every=10 schedule.floor=0.1",
        exponential(10, 0.5, staircase=True, last=0.1)),
    Row("exponential_decay(1.0, 10, 0.5, transition_begin=7)",
        phases("constant, length: 7", "exponential, gamma: 0.5, every: 10"), exponential(10, 0.5, begin=7)),
    Row("exponential_decay(0.01, 10, 2.0)",
        "schedule=exponential schedule.gamma=null schedule.end=0.64 schedule.start=0.01",
        exponential(10, 2.0, first=0.01),
        convention="A rate that grows has schedule.end, the value at the end of the run, and no gamma above 1"),
    Row("polynomial_schedule(1.0, 0.1, power=0.5, transition_steps=50, transition_begin=5)",
        phases("constant, length: 5", "polynomial, end: 0.1, power: 0.5, length: 50", "constant, start: 0.1"),
        polynomial(1.0, 0.1, 0.5, 50, 5)),
    Row("polynomial_schedule(0.1, 1.0, power=2, transition_steps=60)",
        "schedule=polynomial schedule.start=0.1 schedule.end=1.0 schedule.power=2", polynomial(0.1, 1.0, 2, 60)),
    Row("piecewise_constant_schedule(0.1, {3: 2.0, 6: 0.5})",
        table((0, 0.1), (3, 0.2), (6, 0.1)),
        scaled(0.1, {3: 2.0, 6: 0.5})),
    Row("piecewise_interpolate_schedule('linear', 1.0, {10: 0.5, 30: 2.0, 60: 0.25})",
        table((0, 1.0), (10, 0.5), (30, 1.0), (60, 0.25), interpolate="linear"),
        interpolated("linear", 1.0, {10: 0.5, 30: 2.0, 60: 0.25})),
    Row("piecewise_interpolate_schedule('cosine', 1.0, {10: 0.5, 30: 2.0, 60: 0.25})",
        table((0, 1.0), (10, 0.5), (30, 1.0), (60, 0.25), interpolate="cosine"),
        interpolated("cosine", 1.0, {10: 0.5, 30: 2.0, 60: 0.25})),
    Row("linear_onecycle_schedule(60, 1.0, pct_start=0.5, pct_final=0.85)",
        phases("linear, start: 0.04, end: 1.0, length: 30", "linear, start: 1.0, end: 0.04, length: 21",
               "linear, start: 0.04, end: 4.0e-6"), interpolated("linear", 0.04, {30: 25, 51: 1 / 25, 60: 1e-4}),
        convention="three_phase of schedule=one_cycle falls to the start in the duration up; optax has pct_final"),
    Row("linear_onecycle_schedule(60, 1.0, pct_start=0.3, pct_final=0.6)",
        "schedule=one_cycle schedule.anneal=linear schedule.three_phase=true",
        interpolated("linear", 0.04, {18: 25, 36: 1 / 25, 60: 1e-4})),
    Row("cosine_onecycle_schedule(60, 1.0)",
        "schedule=one_cycle", interpolated("cosine", 0.04, {18: 25, 60: 1 / 25e4})),
    Row("warmup_exponential_decay_schedule(0.1, 1.0, warmup_steps=10, transition_steps=10, decay_rate=0.5)",
        "schedule=exponential schedule.gamma=0.5 schedule.every=10 warmup=linear warmup.length=10 warmup.start=0.1",
        joined((0, polynomial(0.1, 1.0, 1, 10)), (10, exponential(10, 0.5)))),
    Row("join_schedules([linear 0 to 1, constant, cosine_decay], [10, 30])",
        "schedule=constant warmup=linear warmup.length=10 warmup.start=0 cooldown=cosine cooldown.length=30",
        joined((0, polynomial(0.0, 1.0, 1, 10)), (10, lambda t: 1.0), (30, cosine_decay(30)))),
])  # fmt: skip
