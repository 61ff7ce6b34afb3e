"""The plan of a run that is resumed with ``resume.policy=cooldown``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.checkpoint import saved_run
from lrkit.planning.group_curves import GroupCurve
from lrkit.planning.plan import Plan, horizon_from_json
from lrkit.schedules.shapes import Constant, Schedule

__all__ = ["cooled_plan", "with_steady_batch"]


def cooled_plan(old: Plan, at: int, falling: Schedule, steps: int, asked: Schedule, new: Plan) -> Plan:
    """Return the old plan up to a step, and from there the cooldown; the batch size stays that of this step.

    Args:
        old: the plan of the checkpoint.
        at: the step of the checkpoint.
        falling: the shape of the cooldown, with lengths in steps.
        steps: its length.
        asked: the cooldown as the user wrote it.
        new: the plan of the command.

    Raises:
        ConfigError: the cooldown would start at a rate of almost 0, or rise.
    """
    _check_cooldown(old, at, asked)
    sizes, horizon = old.horizon.batch_sizes, old.horizon
    kept = None if sizes is None else sizes.until(at)
    return dataclasses.replace(
        old,
        momentum=None if old.momentum is None else old.momentum.until(at),
        decay_curve=None if old.decay_curve is None else old.decay_curve.until(at),
        curve=old.curve.then(at, falling, steps),
        group_curves=_cool_group_curves(old, at, falling, steps),
        horizon=dataclasses.replace(horizon, steps=at + steps, stop_after=new.horizon.stop_after, batch_sizes=kept),
        config=new.config,
    )


def with_steady_batch(node: Mapping[str, Any], saved: saved_run.SavedRun) -> dict[str, Any]:
    """Return the node ``batch`` of a run whose batch size no longer changes after the checkpoint."""
    sizes = horizon_from_json(saved.plan["horizon"]).batch_sizes
    kept = {} if sizes is None else {"schedule": [list(stage) for stage in sizes.until(saved.step).stages]}
    return {**node, **kept}


#: A rate below this share of the highest one is too low for a cooldown.
_NOTHING = 1e-3


def _check_cooldown(old: Plan, at: int, falling: Schedule) -> None:
    """Refuse a cooldown that starts at a rate of almost 0, or that would rise."""
    curves = {groups[0].name: (curve, curve(at)) for curve, groups in old.on_curves()}
    if all(here < _NOTHING * max(curve.values(range(max(at, 1)))) or here == 0 for curve, here in curves.values()):
        rate = old.lr(old.main_group, at)
        must = f"must begin above 0, and at step {at} the rate is {rate:.3g}"
        raise ConfigError("resume.policy=cooldown", f"{must}; resume an earlier checkpoint, or use extend")
    end = falling.ends.get("end") or 0.0
    for name, (_, here) in curves.items():
        if end > here:
            of = "" if len(curves) == 1 else f" of {name}"
            raise ConfigError("cooldown.end", f"must not be above {here:.4g}, where the cooldown{of} begins", end)


def _cool_group_curves(old: Plan, at: int, falling: Schedule, steps: int) -> Mapping[str, GroupCurve]:
    """Return the curves of rules, each with the cooldown from its present value; momentum is constant."""

    def fall(own: GroupCurve) -> GroupCurve:
        down = falling if own.curve(at) else Constant(start=0.0)  # a shape must begin above 0
        return dataclasses.replace(own.changed(lambda curve: curve.until(at)), curve=own.curve.then(at, down, steps))

    return {rule: fall(own) for rule, own in old.group_curves.items()}
