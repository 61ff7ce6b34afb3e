"""The curves of the parameter groups that do not follow the run's: by a rule with a schedule, a warmup or a delay.

    lr[group, t] = base_lr * batch_scale * group_scale[group] * curve[group, t] * gain(t)

What a rule does not set, its groups take from the run. Within the delay the curve is exactly 0; warmup, schedule and
cooldown share the steps that are left. All groups of a rule have its one curve: those of its layers, and the one
without weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.planning.cycled_momentum import build_momentum_curve
from lrkit.planning.group_rules import Rule, Rules
from lrkit.planning.plan_warnings import curve_warnings
from lrkit.schedules.curve import DELAY, Curve
from lrkit.schedules.curve_json import curve_from_json, curve_to_json
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant, Schedule

__all__ = ["GroupCurve", "RunCurve", "group_curves"]


@dataclass(frozen=True)
class GroupCurve:
    """What the groups of a rule follow in place of the run's curve.

    Args:
        curve: the multiplier of their rates.
        momentum: their momentum, as plain values; None where they follow the run's.
    """

    curve: Curve
    momentum: Curve | None = None

    def changed(self, change: Callable[[Curve], Curve]) -> GroupCurve:
        """The same with each curve changed."""
        return GroupCurve(change(self.curve), None if self.momentum is None else change(self.momentum))

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        return {"phases": curve_to_json(self.curve), "momentum": curve_to_json(self.momentum)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> GroupCurve:
        """What ``to_json`` wrote."""
        curve = curve_from_json(plain["phases"])
        assert curve is not None
        return cls(curve, curve_from_json(plain["momentum"]))


@dataclass(frozen=True)
class RunCurve:
    """The parts of the run's curve, and what drives its momentum.

    Args:
        schedule, warmup, cooldown: what a rule takes where it sets none.
        horizon: the length of the run.
        momentum: the optimizer's momentum; None where it has none.
        coschedule: the schedules that drive momentum and weight decay.
    """

    schedule: Schedule
    warmup: Schedule | None
    cooldown: Schedule | None
    horizon: Horizon
    momentum: float | None = None
    coschedule: Mapping[str, Schedule] | None = None


def group_curves(rules: Rules, run: RunCurve, warnings: list[str]) -> dict[str, GroupCurve]:
    """The curve of each rule that has one of its own, by the name of the rule.

    Args:
        rules: with built schedules.
        run: what they take from the run.
        warnings: the plan's; the lines about these curves are added, but those that are there already.

    Raises:
        ConfigError: a part does not fit into the run; by the key of the rule.
    """
    curves: dict[str, GroupCurve] = {}
    about_run = [*warnings]
    for i, rule in enumerate(rules.rules):
        if not rule.has_curve:
            continue
        try:
            schedule = run.schedule if rule.schedule is None else rule.schedule
            made = _resolve_rule(rule, schedule, run)
        except ConfigError as error:
            raise error.under(f"param_groups.rules[{i}]") from None
        curves[rule.name] = made
        warnings += [
            f"{rule.name}: {line}"
            for line in _find_warnings(made.curve, schedule, run.horizon)
            if line not in about_run
        ]
    return curves


def _resolve_rule(rule: Rule, schedule: Schedule, run: RunCurve) -> GroupCurve:
    """The curve of one rule."""
    if rule.schedule is not None and schedule.needs_plateau:
        raise ConfigError("schedule=plateau", "means nothing: reduce on plateau acts on every group: use constant")
    curve = Curve.build(
        schedule,
        run.horizon,
        warmup=run.warmup if rule.warmup is None else rule.warmup or None,
        cooldown=run.cooldown if rule.cooldown is None else rule.cooldown or None,
        delay=rule.delay or 0,
    )
    return GroupCurve(curve, _build_momentum(curve, schedule, run))


def _build_momentum(curve: Curve, schedule: Schedule, run: RunCurve) -> Curve | None:
    """The momentum beside a rule's curve: cycled by its schedule, and by no other group's."""
    cycled = schedule.momentum(run.momentum or 0.0)
    if not run.momentum:
        return None
    if "momentum" in (run.coschedule or {}):
        if cycled is not None:
            must = "and coschedule.momentum both drive momentum: set one to null"
            raise ConfigError(f"schedule.{schedule.momentum_keys()[0]}", must)
        return None
    if cycled is not None:
        return build_momentum_curve(cycled, run.horizon, curve)
    if run.schedule.momentum_keys():
        return Curve.build(Constant(start=run.momentum), run.horizon)
    return None


def _find_warnings(curve: Curve, schedule: Schedule, horizon: Horizon) -> list[str]:
    """What is legal and probably not intended, and that a delayed group stands still."""
    first = curve.phases[0]
    lines = curve_warnings(curve, schedule)
    if first.name != DELAY or first.length is None:
        return lines
    if horizon.end is not None and first.length >= horizon.end:
        return [f"never moves: its delay ends at step {first.length}, and the run stops after {horizon.end} steps"]
    still = (
        f"stands still until step {first.length}: its rate is 0, while its gradients are computed and the optimizer's"
        " averages of them move"
    )
    return [still, *lines]
