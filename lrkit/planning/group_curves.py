"""The curves of parameter groups with their own schedule, warmup or delay, set by a rule of ``param_groups``.

    lr[group, t] = base_lr * batch_scale * group_scale[group] * curve[group, t] * gain(t)

Parts that a rule does not set are those of the run. During the delay the curve is exactly 0; warmup, schedule and
cooldown share the other steps. All groups of a rule follow its curve: those of its layers, and the one without weight
decay.
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
    """The curves that the groups of a rule follow in place of the run's.

    Args:
        curve: the multiplier of their rates.
        momentum: their momentum, as plain values; None: the run's.
    """

    curve: Curve
    momentum: Curve | None = None

    def changed(self, change: Callable[[Curve], Curve]) -> GroupCurve:
        """Return a copy with each curve changed."""
        return GroupCurve(change(self.curve), None if self.momentum is None else change(self.momentum))

    def to_json(self) -> dict[str, Any]:
        """Return the curves as plain containers."""
        return {"phases": curve_to_json(self.curve), "momentum": curve_to_json(self.momentum)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> GroupCurve:
        """Return the curves from the output of ``to_json``."""
        curve = curve_from_json(plain["phases"])
        assert curve is not None
        return cls(curve, curve_from_json(plain["momentum"]))


@dataclass(frozen=True)
class RunCurve:
    """The parts of the run's curve, and the schedules of its momentum.

    Args:
        schedule, warmup, cooldown: the parts for a rule that does not set them.
        horizon: the length of the run.
        momentum: the optimizer's momentum; None: it has no momentum.
        coschedule: the schedules of momentum and weight decay.
    """

    schedule: Schedule
    warmup: Schedule | None
    cooldown: Schedule | None
    horizon: Horizon
    momentum: float | None = None
    coschedule: Mapping[str, Schedule] | None = None


def group_curves(rules: Rules, run: RunCurve, warnings: list[str]) -> dict[str, GroupCurve]:
    """Return the curves of each rule with its own schedule, warmup or delay, by the name of the rule.

    Args:
        rules: the rules, with built schedules.
        run: the parts of the run's curve.
        warnings: the warnings of the plan; new lines about these curves are added.

    Raises:
        ConfigError: a part longer than the run, with the key of the rule.
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
    """Return the curves of one rule."""
    if rule.schedule is not None and schedule.needs_plateau:
        raise ConfigError(
            "schedule=plateau", "must not be set for one rule: reduce-on-plateau acts on every group; use constant"
        )
    curve = Curve.build(
        schedule,
        run.horizon,
        warmup=run.warmup if rule.warmup is None else rule.warmup or None,
        cooldown=run.cooldown if rule.cooldown is None else rule.cooldown or None,
        delay=rule.delay or 0,
    )
    return GroupCurve(curve, _build_momentum(curve, schedule, run))


def _build_momentum(curve: Curve, schedule: Schedule, run: RunCurve) -> Curve | None:
    """Return the momentum beside a rule's curve, which only the rule's own schedule may cycle."""
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
    """Return the warnings about a rule's curve, and the note that a delayed group is not trained yet."""
    first = curve.phases[0]
    lines = curve_warnings(curve, schedule)
    if first.name != DELAY or first.length is None:
        return lines
    if horizon.end is not None and first.length >= horizon.end:
        return [f"is never trained: its delay ends at step {first.length}, and the run stops after {horizon.end} steps"]
    still = (
        f"is not trained until step {first.length}: its rate is 0, but its gradients are computed and the optimizer"
        " averages them"
    )
    return [still, *lines]
