"""The curve of momentum that a schedule such as ``OneCycle`` sets, with the phases of the curve of the rate."""

from __future__ import annotations

import dataclasses

from lrkit.schedules.curve import DELAY, Curve
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant, Schedule

__all__ = ["build_momentum_curve"]


def build_momentum_curve(cycled: Schedule, horizon: Horizon, lr: Curve) -> Curve:
    """Return the curve of momentum; it is constant during a delay, a warmup before the schedule, and a cooldown."""
    held = (p for p in lr.phases if p.name == DELAY or (p.name == "warmup" and p.schedule.overlap == "none"))
    before = sum(phase.length or 0 for phase in held)
    after = next((p.length for p in lr.phases if p.name == "cooldown"), None)
    curve = Curve.build(
        cycled,
        horizon,
        warmup=Constant(start=1.0, length=before) if before else None,
        cooldown=Constant(length=after) if after else None,
        name="momentum",
    )
    if after:  # a Constant has no start that follows the curve; hold what was reached
        last = dataclasses.replace(curve.phases[-1], schedule=Constant(start=curve.phases[-2].final))
        curve = Curve((*curve.phases[:-1], last))
    return curve
