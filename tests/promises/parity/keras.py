"""Keras: ``keras.optimizers.schedules``. The base rate is the initial rate, or the warmup's target, 1."""

from __future__ import annotations

import math

from parity.rows import Curve, Peer, Row, cosine, table, warmed

__all__ = ["PEER"]


def restarts(first: int, t_mul: float, m_mul: float, alpha: float) -> Curve:
    def theirs(t: float) -> float:
        u = t / first
        i = math.floor(math.log(1 - u * (1 - t_mul)) / math.log(t_mul) + 1e-12)
        inside = (u - (1 - t_mul**i) / (1 - t_mul)) / t_mul**i
        return (1 - alpha) * m_mul**i * cosine(inside) + alpha

    return theirs


def polynomial(steps: int, last: float, power: float = 1.0, *, cycle: bool = False) -> Curve:
    def theirs(t: float) -> float:
        length = steps * (math.ceil(t / steps) or 1) if cycle else steps
        return (1 - last) * (1 - min(t, length) / length) ** power + last

    return theirs


RESTARTS = "schedule=restarts schedule.cycles=null schedule.period=10"

PEER = Peer("Keras", "3.15.1, keras/src/optimizers/schedules/learning_rate_schedule.py", [
    Row("CosineDecay(0.1, 50, alpha=0.1, warmup_target=1.0, warmup_steps=10)",
        "schedule=cosine schedule.end=0.1 schedule.length=50 warmup=linear warmup.length=10 warmup.start=0.1",
        warmed(10, 0.1, lambda t: 0.9 * cosine(min(t, 50) / 50) + 0.1)),
    Row("CosineDecayRestarts(1.0, 10, t_mul=2.0, m_mul=0.7)",
        f"{RESTARTS} schedule.growth=2 schedule.decay=0.7", restarts(10, 2.0, 0.7, 0.0), compared=60),
    Row("CosineDecayRestarts(1.0, 10, t_mul=1.3)",
        f"{RESTARTS} schedule.growth=1.3", restarts(10, 1.3, 1.0, 0.0), compared=60, difference=8.2e-3,
        convention="Keras restarts between two steps where a cycle is no whole number of them, lrkit at the next step"),
    Row("CosineDecayRestarts(1.0, 10, t_mul=2.0, m_mul=0.7, alpha=0.1)",
        f"{RESTARTS} schedule.growth=2 schedule.decay=0.7 schedule.end=0.1", restarts(10, 2.0, 0.7, 0.1), compared=60),
    Row("ExponentialDecay(1.0, 10, 0.96)",
        "schedule=exponential schedule.gamma=0.96 schedule.every=10", lambda t: 0.96 ** (t / 10)),
    Row("ExponentialDecay(1.0, 10, 0.96, staircase=True)",
        "schedule=step schedule.gamma=0.96 schedule.every=10", lambda t: 0.96 ** (t // 10), compared=60),
    Row("InverseTimeDecay(1.0, 10, 0.5)",
        "schedule=inverse_time schedule.gamma=0.5 schedule.every=10", lambda t: 1 / (1 + 0.5 * t / 10)),
    Row("InverseTimeDecay(1.0, 10, 0.5, staircase=True)",
        "schedule=inverse_time schedule.gamma=0.5 schedule.every=10 schedule.update_every=10",
        lambda t: 1 / (1 + 0.5 * (t // 10)), compared=60),
    Row("PolynomialDecay(1.0, 50, end_learning_rate=0.1, power=2.0)",
        "schedule=polynomial schedule.length=50 schedule.end=0.1", polynomial(50, 0.1, 2.0)),
    Row("PolynomialDecay(1.0, 15, end_learning_rate=0.1, power=2.0, cycle=True)",
        "schedule=polynomial schedule.end=0.1 schedule.period=15", polynomial(15, 0.1, 2.0, cycle=True)),
    Row("PiecewiseConstantDecay([10, 30], [1.0, 0.3, 0.1])",
        table((0, 1.0), (11, 0.3), (31, 0.1)),
        lambda t: 1.0 if t <= 10 else 0.3 if t <= 30 else 0.1,
        convention="A boundary of Keras is the last step of the old value"),
])  # fmt: skip
