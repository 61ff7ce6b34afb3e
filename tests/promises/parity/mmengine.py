"""MMEngine: its recursions in closed form. Of a scheduler from ``begin`` to ``end``, t counts from ``begin``."""

from __future__ import annotations

from parity.rows import Curve, Peer, Row, cosine, phases

__all__ = ["PEER"]


def linear(end: int, first: float) -> Curve:
    """It arrives one step early: ``total_iters = end - begin - 1``."""
    return lambda t: first + (1 - first) * min(t, end - 1) / (end - 1)


def restarts(t: float) -> float:
    first, length, weight = next(cycle for cycle in ((30, 30, 0.25), (10, 20, 0.5), (0, 10, 1.0)) if t >= cycle[0])
    return weight * cosine((t - first) / length)


def one_cycle(t: float) -> float:
    """With the peak at step 17 and the last value at step 59."""
    return 1 + (0.04 - 1) * cosine(t / 17) if t <= 17 else 4e-6 + (1 - 4e-6) * cosine((t - 17) / 42)


EARLY = "MMEngine's warmup reaches its end in end - begin - 1 steps"

PEER = Peer("MMEngine", "0.10.7, mmengine/optim/scheduler/param_scheduler.py", [
    Row("[LinearLR(start_factor=0.1, by_epoch=False, end=10), MultiStepLR(milestones=[25, 40], by_epoch=False)]",
        "schedule=multistep 'schedule.milestones=[25, 40]' "
        "warmup=linear warmup.length=9 warmup.start=0.1 warmup.overlap=multiply",
        lambda t: linear(10, 0.1)(t) * 0.1 ** ((t >= 25) + (t >= 40)),
        convention=EARLY),
    Row("CosineAnnealingLR(eta_min_ratio=0.1, T_max=6, convert_to_iter_based=True)",
        "schedule=cosine schedule.end=0.1", lambda t: 0.1 + 0.9 * cosine(t / 60)),
    Row("CosineAnnealingLR(T_max=6, by_epoch=True)",
        "schedule=cosine schedule.update_every=1ep", lambda t: cosine(t // 10 / 6), epoch=10, compared=60),
    Row("[LinearLR(start_factor=0.01, by_epoch=False, end=10), CosineAnnealingLR(begin=10, end=60, by_epoch=False)]",
        f"{phases('constant, length: 1', 'cosine')} warmup=linear warmup.length=9 warmup.start=0.01",
        lambda t: linear(10, 0.01)(t) if t < 10 else cosine((t - 10) / 50), convention=EARLY),
    Row("PolyLR(power=0.9, eta_min=0.1, begin=0, end=60, by_epoch=False)",
        "schedule=polynomial schedule.power=0.9 schedule.end=0.1 schedule.length=59",
        lambda t: 0.1 + 0.9 * (1 - min(t, 59) / 59) ** 0.9,
        convention="MMEngine's decay takes end - begin - 1 steps"),
    Row("ExponentialLR(gamma=0.7, by_epoch=True)",
        "schedule=step schedule.every=1ep schedule.gamma=0.7", lambda t: 0.7 ** (t // 10), epoch=10, compared=60),
    Row("CosineRestartLR(periods=[10, 20, 30], restart_weights=[1, 0.5, 0.25])",
        phases("cosine, length: 10", "cosine, start: 0.5, length: 20", "cosine, start: 0.25"), restarts),
    Row("OneCycleLR(eta_max=1.0, total_steps=60)",
        "schedule=one_cycle schedule.length=59 schedule.up=17", one_cycle, compared=60,
        convention="MMEngine, like torch, has its peak at step 0.3 n - 1 and its last value at step n - 1"),
    Row("StepLR(step_size=10, gamma=0.1, by_epoch=False, end=30)",
        "schedule=step schedule.every=10 schedule.length=30", lambda t: 0.1 ** (min(t, 29) // 10)),
])  # fmt: skip
