"""Resolves the parts of a run into its plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.planning.base_lr import check_lr
from lrkit.planning.batch_scaling import BatchScale
from lrkit.planning.cycled_momentum import build_momentum_curve
from lrkit.planning.group_curves import RunCurve, group_curves
from lrkit.planning.group_rules import Rules
from lrkit.planning.guard import Guard
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plan_warnings import list_warnings, short_name
from lrkit.planning.plateau import Plateau
from lrkit.planning.weight_decay_rule import COUPLED, WeightDecayRule
from lrkit.schedules.curve import Curve
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Schedule

__all__ = ["resolve_plan"]


def resolve_plan(
    *,
    lr: Any,
    schedule: Schedule,
    horizon: Horizon,
    optimizer: str = "",
    momentum: float | None = None,
    weight_decay: float = 0.0,
    weight_decay_rule: WeightDecayRule = COUPLED,
    coschedule: Mapping[str, Schedule] | None = None,
    warmup: Schedule | None = None,
    cooldown: Schedule | None = None,
    plateau: Plateau | None = None,
    guard: Guard | None = None,
    scale: BatchScale = BatchScale(),  # noqa: B008
    groups: Sequence[GroupRate] = (GroupRate("default"),),
    rules: Rules = Rules(),  # noqa: B008
    warnings: Sequence[str] = (),
    allow_extreme_lr: bool = False,
    found: tuple[float, float] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Plan:
    """Resolve a run into its plan.

    Args:
        lr: base learning rate, > 0.
        schedule, warmup, cooldown: the parts of the curve.
        horizon: the length of the run.
        optimizer: class path of the optimizer, for the warnings.
        momentum: the optimizer's momentum (``betas[0]`` of the Adam family); None: it has no momentum.
        weight_decay: the optimizer's weight decay.
        weight_decay_rule: the rule for the weight decay.
        coschedule: schedules over the whole run for ``momentum`` and ``weight_decay``, as multiples of their values.
        plateau: reduce-on-plateau.
        guard: the divergence guard.
        scale: the factor of the batch-size rule.
        groups: names and factors of the parameter groups.
        rules: the rules of these groups, with built schedules: the groups of a rule may have their own curve.
        found: the interval of a base rate from a search or a translation.

    Raises:
        ConfigError: an invalid part, or two parts that contradict each other.
    """
    _check_rate(lr, allow_extreme_lr, schedule, plateau)
    curve = Curve.build(schedule, horizon, warmup=warmup, cooldown=cooldown)
    name, decays = short_name(optimizer) or "the optimizer", weight_decay_rule.a_step(weight_decay or None)
    driven = _build_cocurves(coschedule or {}, horizon, momentum, decays, groups, name)
    notes = [*warnings, *_add_cycled_momentum(driven, schedule, horizon, curve, momentum, name)]
    notes += list_warnings(optimizer, lr * scale.factor, schedule, cooldown, curve, scale)
    notes += weight_decay_rule.warnings(weight_decay, lr * scale.factor)
    own = group_curves(rules, RunCurve(schedule, warmup, cooldown, horizon, momentum, coschedule), notes)
    return Plan(
        optimizer=optimizer,
        base_lr=float(lr),
        scale=scale,
        horizon=horizon,
        curve=curve,
        groups=tuple(groups),
        group_curves=MappingProxyType(own),
        momentum=driven.get("momentum"),
        decay_curve=driven.get("weight_decay"),
        base_weight_decay=weight_decay,
        weight_decay_rule=weight_decay_rule,
        plateau=plateau,
        guard=None if guard is None else guard.in_steps(horizon),
        found=found,
        warnings=tuple(notes),
        config=config or {},
    )


def _check_rate(lr: Any, allow_extreme_lr: bool, schedule: Schedule, plateau: Plateau | None) -> None:
    """Refuse a base rate out of range, and the schedule ``plateau`` without reduce-on-plateau."""
    check_lr(lr, allow_extreme_lr)
    if schedule.needs_plateau and plateau is None:
        raise ConfigError("plateau", "must be set with schedule=plateau: use plateau=reduce, or schedule=constant")


def _build_cocurves(
    coschedule: Mapping[str, Schedule],
    horizon: Horizon,
    momentum: float | None,
    weight_decay: float,
    groups: Sequence[GroupRate],
    optimizer: str,
) -> dict[str, Curve]:
    """Return the scheduled curves of momentum, as plain values, and weight decay, as multiples of each group's own."""
    curves: dict[str, Curve] = {}
    for name, schedule in coschedule.items():
        key = f"coschedule.{name}"
        if name not in ("momentum", "weight_decay"):
            raise ConfigError(key, f"is not a key. {did_you_mean(name, ('momentum', 'weight_decay'))}")
        if schedule.needs_plateau:
            raise ConfigError(f"{key}=plateau", "must not be set: reduce-on-plateau acts only on the learning rate")
        if keys := schedule.momentum_keys():
            both = f"set {key}.{keys[0]}=null {key}.{keys[0].replace('momentum_start', 'momentum_peak')}=null"
            raise ConfigError(f"{key}.{keys[0]}", f"has no effect: {key} is driven by the multipliers; {both}")
        curve = Curve.build(schedule, horizon, name=key)
        if name == "momentum":
            if not momentum:
                raise ConfigError(key, f"needs an optimizer with momentum: {optimizer} has none")
            curve = Curve(tuple(dataclasses.replace(phase, scale=momentum) for phase in curve.phases))
            highest = max(curve.peak(i) for i in range(len(curve.phases)))
            if not highest < 1.0:  # nan, too
                raise ConfigError(key, f"must keep momentum below 1; it would reach {highest:g}")
        elif not weight_decay and not any(group.weight_decay for group in groups):
            raise ConfigError(key, f"needs weight decay: optimizer.weight_decay is 0 for {optimizer}")
        curves[name] = curve
    return curves


def _add_cycled_momentum(
    driven: dict[str, Curve],
    schedule: Schedule,
    horizon: Horizon,
    curve: Curve,
    momentum: float | None,
    optimizer: str,
) -> list[str]:
    """Add the curve of momentum that a schedule sets; a note where the optimizer has no momentum."""
    if not (keys := schedule.momentum_keys()):
        return []
    try:
        cycled = schedule.momentum(momentum or 0.0)
    except ConfigError as error:
        raise error.under("schedule") from None
    if not momentum:
        return [f"momentum is not cycled: {optimizer} runs without momentum"]
    if "momentum" in driven:
        raise ConfigError("coschedule.momentum", f"and schedule.{keys[0]} both drive momentum: set one to null")
    assert cycled is not None
    driven["momentum"] = build_momentum_curve(cycled, horizon, curve)
    return []
