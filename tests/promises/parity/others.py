"""scikit-learn, Paddle, TensorFlow Addons and pytorch_optimizer."""

from __future__ import annotations

import math

from parity.rows import Curve, Peer, Row, formula, phases, shaped, table

__all__ = ["PEERS"]


def cycled(scale: Curve, first: float = 0.1) -> Curve:
    """``CyclicalLearningRate(first, 1.0, step_size=10)``, whose scale is a function of the cycle, counted from 1."""

    def theirs(t: float) -> float:
        cycle = math.floor(1 + t / 20)
        return first + (1 - first) * max(0.0, 1 - abs(t / 10 - 2 * cycle + 1)) * scale(cycle)

    return theirs


def wsd(shape: Curve, floor: float) -> Curve:
    """Ten steps of warmup, 60 stable ones and 30 of decay, which ends at 0; then the floor."""
    return lambda t: t / 10 if t < 10 else 1.0 if t < 70 else shape((t - 70) / 30) if t < 100 else floor


WARMUP = "warmup=linear warmup.length=10 warmup.start=0"

PEERS = [
    Peer("scikit-learn", "commit 0111072, sklearn/linear_model/_sgd_fast.pyx.tp", [
        Row("SGDClassifier(learning_rate='invscaling', power_t=0.5)",
            "schedule=inverse_sqrt schedule.timescale=1", lambda t: (t + 1) ** -0.5),
        Row("SGDRegressor()  # invscaling, power_t=0.25",
            "schedule=inverse_sqrt schedule.timescale=1 schedule.power=0.25", lambda t: (t + 1) ** -0.25),
        Row("SGDClassifier()  # optimal, 1 / (alpha (t0 + t)), t0 = 100 steps",
            "schedule=inverse_time schedule.gamma=0.01 schedule.every=1", lambda t: 100 / (100 + t)),
    ]),
    Peer("Paddle", "commit 00816fc, python/paddle/optimizer/lr.py", [
        Row("NoamDecay(d_model=64, warmup_steps=20)",
            "schedule=inverse_sqrt schedule.timescale=20 warmup=linear warmup.length=20 warmup.start=0",
            lambda t: math.sqrt(20) * min(t**-0.5 if t else 1.0, 20**-1.5 * t),
            convention="optimizer.lr is the peak, learning_rate (d_model warmup_steps) ** -0.5"),
        Row("NaturalExpDecay(1.0, gamma=0.1)",
            "schedule=exponential schedule.gamma=0.9048374180359595 schedule.every=1", lambda t: math.exp(-0.1 * t),
            convention="gamma is exp(-0.1), the factor of a step"),
        Row("LambdaDecay(1.0, lambda t: 0.95**t * (1 + sin(t)) / 2)",
            formula("0.95**s*(1+sin(s))/2"), lambda t: 0.95**t * (1 + math.sin(t)) / 2),
        Row("PiecewiseDecay([10, 30], [1.0, 0.5, 0.1])",
            table((0, 1.0), (10, 0.5), (30, 0.1)), lambda t: 1.0 if t < 10 else 0.5 if t < 30 else 0.1),
        Row("InverseTimeDecay(1.0, gamma=0.1)",
            "schedule=inverse_time schedule.gamma=0.1 schedule.every=1", lambda t: 1 / (1 + 0.1 * t)),
        Row("MultiplicativeDecay(1.0, lambda t: 0.95)",
            "schedule=exponential schedule.gamma=0.95 schedule.every=1", lambda t: 0.95**t),
    ]),
    Peer("TensorFlow Addons", "commit 039699d, tensorflow_addons/optimizers/cyclical_learning_rate.py", [
        Row("TriangularCyclicalLearningRate(0.1, 1.0, step_size=10)",
            "schedule=cyclic schedule.up=10", cycled(lambda cycle: 1.0)),
        Row("Triangular2CyclicalLearningRate(0.1, 1.0, step_size=10)",
            "schedule=cyclic schedule.up=10 schedule.mode=triangular2", cycled(lambda cycle: 0.5 ** (cycle - 1))),
        Row("ExponentialCyclicalLearningRate(0.1, 1.0, step_size=10, gamma=0.7, scale_mode='cycle')",
            "schedule=cyclic schedule.up=10 schedule.mode=exp_cycle schedule.gamma=0.7 schedule.peak=0.73",
            cycled(lambda cycle: 0.7**cycle),
            convention="The cycles of TensorFlow Addons count from 1: its first peak is 0.1 + 0.7 (1.0 - 0.1)"),
        Row("CyclicalLearningRate(0.1, 1.0, step_size=10, scale_fn=lambda c: abs(sin(c * pi / 2)))",
            formula("0.1+0.9*(1-abs(s/10-2*floor(1+s/20)+1))*abs(sin(floor(1+s/20)*pi/2))"),
            cycled(lambda cycle: abs(math.sin(cycle * math.pi / 2)))),
    ]),
    Peer("pytorch_optimizer", "4.1.0, pytorch_optimizer/lr_scheduler/wsd.py", [
        Row("get_wsd_schedule(10, 60, 30, min_lr_ratio=0.1)",
            f"{phases('constant, length: 60', 'sqrt, length: 30', 'constant, start: 0.1')} {WARMUP}",
            wsd(lambda u: 1 - math.sqrt(u), 0.1), steps=110,
            convention="It falls to zero, below its own floor, and then jumps back to the floor"),
        Row("get_wsd_schedule(10, 60, 30, cooldown_type='1-square')",
            f"schedule=wsd schedule.decay=30 {shaped('polynomial', 'power: 1, k: 2')} {WARMUP}",
            wsd(lambda u: 1 - u**2, 0.0), steps=100),
    ]),
]  # fmt: skip
