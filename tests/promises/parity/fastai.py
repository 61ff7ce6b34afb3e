"""fastai: functions of ``pos``, the share of the batches that are done, here t / 60."""

from __future__ import annotations

import math

from parity.rows import Curve, Peer, Row, phases

__all__ = ["PEER"]


def of_pos(curve: Curve) -> Curve:
    return lambda t: curve(t / 60)


def half_cosine(first: float, last: float) -> Curve:
    return lambda pos: first + (1 + math.cos(math.pi * (1 - pos))) * (last - first) / 2


def combined(*parts: tuple[float, Curve]) -> Curve:
    """Each part has its share of the run, and a ``pos`` of its own."""

    def theirs(pos: float) -> float:
        first = 0.0
        for i, (share, part) in enumerate(parts):
            if pos < first + share - 1e-12 or i == len(parts) - 1:
                return part((pos - first) / share)
            first += share
        raise AssertionError

    return theirs


PEER = Peer("fastai", "2.8.12, fastai/callback/schedule.py", [
    Row("SchedCos(1.0, 0.1)", "schedule=cosine schedule.end=0.1", of_pos(half_cosine(1.0, 0.1))),
    Row("SchedPoly(1.0, 0.0, power=2)",
        "schedule=polynomial schedule.power=1 schedule.k=2", of_pos(lambda u: 1 - u**2)),
    Row("SchedPoly(1.0, 0.0, power=0.5)", "schedule=sqrt", of_pos(lambda u: 1 - u**0.5)),
    Row("SchedExp(1.0, 0.01)",
        "schedule=exponential schedule.gamma=null schedule.end=0.01", of_pos(lambda u: 0.01**u)),
    Row("fit_flat_cos(lr=1.0, pct_start=0.75)",
        "schedule=wsd schedule.decay=25% schedule.shape=cosine schedule.end=1e-5",
        of_pos(combined((0.75, lambda u: 1.0), (0.25, half_cosine(1.0, 1e-5))))),
    Row("fit_one_cycle(lr_max=1.0)",
        "schedule=one_cycle schedule.up=25% schedule.end=1e-5",
        of_pos(combined((0.25, half_cosine(0.04, 1.0)), (0.75, half_cosine(1.0, 1e-5))))),
    Row("combine_scheds([0.2, 0.3, 0.5], [SchedLin(0.1, 1), SchedExp(1, 0.3), SchedCos(0.3, 0)])",
        phases("linear, start: 0.1, end: 1.0, length: 20%", "exponential, gamma: null, end: 0.3, length: 30%",
               "cosine, start: 0.3"),
        of_pos(combined((0.2, lambda u: 0.1 + u * 0.9), (0.3, lambda u: 0.3**u), (0.5, half_cosine(0.3, 0.0))))),
    Row("fit_sgdr(n_cycles=3, cycle_len=1, cycle_mult=2)",
        "schedule=restarts", lambda t: combined(*((2**i / 7, half_cosine(1.0, 0.0)) for i in range(3)))(t / 70),
        steps=70),
])  # fmt: skip
