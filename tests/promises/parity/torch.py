"""torch and transformers: an optimizer at a rate of 1. ``test_peers.py`` runs the calls, and compares the formulas."""

from __future__ import annotations

import math
from itertools import pairwise

from parity.rows import Curve, Peer, Row, cosine, formula, phases, product, warmed

__all__ = ["PEERS"]


def cyclic(mode: str) -> Curve:
    """Up in 5 steps, down in 8, between 0.1 and 1."""

    def theirs(t: float) -> float:
        cycle, inside = divmod(t, 13)
        height = inside / 5 if inside <= 5 else (13 - inside) / 8
        return 0.1 + 0.9 * height * {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": 0.97**t}[mode]

    return theirs


def one_cycle(*, linear: bool = False, three: bool = False) -> Curve:
    """The peak at step 17; the last value at step 59; with three phases the start again at step 34."""
    turns = [(0, 0.04), (17, 1.0), *([(34, 0.04)] if three else []), (59, 4e-6)]

    def theirs(t: float) -> float:
        for (first, a), (last, b) in pairwise(turns):
            if t <= last:
                u = (t - first) / (last - first)
                return a + (b - a) * (u if linear else 1 - cosine(u))
        raise AssertionError

    return theirs


def warm_restarts(growth: int) -> Curve:
    def theirs(t: float) -> float:
        length = 10.0
        while t >= length:
            t, length = t - length, length * growth
        return cosine(t / length)

    return theirs


def wsd(shape: Curve, floor: float = 0.0) -> Curve:
    """``get_wsd_schedule(optimizer, 8, 12, num_stable_steps=40)``."""
    return warmed(8, floor, lambda t: 1.0 if t < 40 else floor + (1 - floor) * shape(min((t - 40) / 12, 1.0)))


FROM_0 = "warmup=linear warmup.length=8 warmup.start=0"
EARLY = "torch has its peak at step pct_start n - 1 and its last value at step n - 1"
NO_RISE = "After T_max torch's rate rises again; lrkit's stays"
CYCLIC = "schedule=cyclic schedule.start=0.1 schedule.up=5 schedule.down=8"
OF_CYCLIC = "CyclicLR(optimizer, 0.1, 1.0, step_size_up=5, step_size_down=8, cycle_momentum=False"
WSD = "get_wsd_schedule(optimizer, 8, 12, num_stable_steps=40"

PEERS = [
    Peer("torch", "2.13, torch/optim/lr_scheduler.py", [
        Row("StepLR(optimizer, step_size=15, gamma=0.3)",
            "schedule=step schedule.every=15 schedule.gamma=0.3", lambda t: 0.3 ** (t // 15), compared=60),
        Row("MultiStepLR(optimizer, [10, 20, 45], gamma=0.5)",
            "schedule=multistep 'schedule.milestones=[10, 20, 45]' schedule.gamma=0.5",
            lambda t: 0.5 ** ((t >= 10) + (t >= 20) + (t >= 45))),
        Row("ConstantLR(optimizer, factor=0.1, total_iters=10)",
            "schedule=constant warmup=constant warmup.length=10 warmup.start=0.1", lambda t: 0.1 if t < 10 else 1.0),
        Row("LinearLR(optimizer, start_factor=0.1, total_iters=10)",
            "schedule=constant warmup=linear warmup.length=10 warmup.start=0.1", warmed(10, 0.1, lambda t: 1.0)),
        Row("LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=40)",
            "schedule=linear schedule.end=0.1 schedule.length=40", lambda t: 1 - 0.9 * min(t, 40) / 40),
        Row("ExponentialLR(optimizer, gamma=0.95)",
            "schedule=exponential schedule.gamma=0.95 schedule.every=1", lambda t: 0.95**t),
        Row("PolynomialLR(optimizer, total_iters=40, power=2.0)",
            "schedule=polynomial schedule.length=40", lambda t: (1 - min(t, 40) / 40) ** 2),
        Row("CosineAnnealingLR(optimizer, T_max=60, eta_min=0.1)",
            "schedule=cosine schedule.end=0.1", lambda t: 0.1 + 0.9 * cosine(t / 60), convention=NO_RISE),
        Row("CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)",
            "schedule=restarts schedule.cycles=null schedule.period=10", warm_restarts(2), compared=60),
        Row("CosineAnnealingWarmRestarts(optimizer, T_0=10)",
            "schedule=restarts schedule.cycles=null schedule.period=10 schedule.growth=1", warm_restarts(1),
            compared=60),
        Row(f"{OF_CYCLIC})", CYCLIC, cyclic("triangular")),
        Row(f"{OF_CYCLIC}, mode='triangular2')", f"{CYCLIC} schedule.mode=triangular2", cyclic("triangular2")),
        Row(f"{OF_CYCLIC}, mode='exp_range', gamma=0.97)",
            f"{CYCLIC} schedule.mode=exp_range schedule.gamma=0.97 schedule.every=1", cyclic("exp_range")),
        Row("OneCycleLR(optimizer, max_lr=1.0, total_steps=60)",
            "schedule=one_cycle schedule.length=59 schedule.up=17", one_cycle(), compared=60, convention=EARLY),
        Row("OneCycleLR(optimizer, max_lr=1.0, total_steps=60, anneal_strategy='linear', three_phase=True)",
            "schedule=one_cycle schedule.length=59 schedule.up=17 schedule.anneal=linear schedule.three_phase=true",
            one_cycle(linear=True, three=True), compared=60, convention=EARLY),
        Row("LambdaLR(optimizer, lambda t: 1 / (1 + 0.1 * t))",
            formula("1/(1+0.1*s)"), lambda t: 1 / (1 + 0.1 * t)),
        Row("SequentialLR(optimizer, [LinearLR(optimizer, 0.1, 1, 10), CosineAnnealingLR(optimizer, 50)], [10])",
            "schedule=cosine warmup=linear warmup.length=10 warmup.start=0.1",
            warmed(10, 0.1, lambda t: cosine(t / 50))),
        Row("SequentialLR(optimizer, [ExponentialLR(optimizer, 0.9), StepLR(optimizer, 6, 0.5)], [15])",
            phases("exponential, gamma: 0.9, every: 1, length: 15", "step, every: 6, gamma: 0.5"),
            lambda t: 0.9**t if t < 15 else 0.5 ** ((t - 15) // 6)),
        Row("ChainedScheduler([LinearLR(optimizer, 0.1, total_iters=10), ExponentialLR(optimizer, 0.9)])",
            "schedule=exponential schedule.gamma=0.9 schedule.every=1 "
            "warmup=linear warmup.length=10 warmup.start=0.1 warmup.overlap=multiply",
            lambda t: warmed(10, 0.1, lambda t: 1.0)(t) * 0.9**t),
        Row("ChainedScheduler([CosineAnnealingLR(optimizer, 60), StepLR(optimizer, 20, 0.5)])",
            product("cosine", "step, every: 20, gamma: 0.5"), lambda t: cosine(t / 60) * 0.5 ** (t // 20)),
    ]),
    Peer("transformers", "5, transformers/optimization.py", [
        Row("get_constant_schedule_with_warmup(optimizer, 8)",
            f"schedule=constant {FROM_0}", warmed(8, 0.0, lambda t: 1.0)),
        Row("get_linear_schedule_with_warmup(optimizer, 8, 60)",
            f"schedule=linear {FROM_0}", warmed(8, 0.0, lambda t: 1 - t / 52)),
        Row("get_cosine_schedule_with_warmup(optimizer, 8, 60)",
            f"schedule=cosine {FROM_0}", warmed(8, 0.0, lambda t: cosine(t / 52))),
        Row("get_cosine_with_min_lr_schedule_with_warmup(optimizer, 8, 60, min_lr_rate=0.1)",
            f"schedule=cosine schedule.end=0.1 {FROM_0}", warmed(8, 0.0, lambda t: 0.1 + 0.9 * cosine(t / 52))),
        Row("get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 8, 60, num_cycles=4)",
            f"schedule=restarts schedule.cycles=4 schedule.growth=1 {FROM_0}",
            warmed(8, 0.0, lambda t: cosine(t % 13 / 13) if t < 52 else 0.0)),
        Row("get_polynomial_decay_schedule_with_warmup(optimizer, 8, 60, lr_end=0.01, power=2.0)",
            f"schedule=polynomial schedule.end=0.01 {FROM_0}",
            warmed(8, 0.0, lambda t: 0.01 + 0.99 * (1 - t / 52) ** 2),
            convention="lr_end is an absolute rate, schedule.end a share of each group's own"),
        Row("get_inverse_sqrt_schedule(optimizer, 8)",
            f"schedule=inverse_sqrt schedule.timescale=8 {FROM_0}", warmed(8, 0.0, lambda t: 1 / math.sqrt(1 + t / 8))),
        Row(f"{WSD}, decay_type='linear')",
            f"schedule=wsd schedule.decay=12 schedule.shape=linear {FROM_0}", wsd(lambda u: 1 - u)),
        Row(f"{WSD}, decay_type='cosine')",
            f"schedule=wsd schedule.decay=12 schedule.shape=cosine {FROM_0}", wsd(cosine)),
        Row(f"{WSD}, decay_type='1-sqrt', min_lr_ratio=0.1)",
            "schedule=wsd schedule.decay=12 schedule.end=0.1 warmup=linear warmup.length=8 warmup.start=0.1",
            wsd(lambda u: 1 - math.sqrt(u), 0.1),
            convention="min_lr_ratio is also the rate at which the warmup begins"),
    ]),
]  # fmt: skip
