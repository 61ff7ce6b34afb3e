"""Refuses runs of different tasks: a law is for one model, one data set, one optimizer and one batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.planning.optimizer_traits import traits_of
from lrkit.planning.plan import Plan

__all__ = ["refuse_different_task", "refuse_unpredictable"]

#: Section of a config -> its keys that change no result that the law is about: an order, a place, the rate itself.
_FREE = {
    "model": (),
    "data": ("seed", "batch_size", "drop_last", "placement", "num_workers", "pin_memory", "persistent_workers"),
    "optimizer": ("lr", "fused", "foreach", "capturable", "differentiable"),
    "param_groups": (),
    "weight_decay_rule": (),
}
_CLIPPING = ("gradient_clip_val", "gradient_clip_algorithm")


def refuse_unpredictable(plan: Plan, key: str) -> None:
    """Refuse a plan for whose rates the law says nothing.

    Args:
        plan: of a finished run, or of one to predict.
        key: named in errors.

    Raises:
        ConfigError: the optimizer finds its rate itself or averages, there are several optimizers or batch sizes,
            or the parameter groups have curves of their own.
    """
    known = traits_of(plan.optimizer)
    if plan.tracks:
        raise ConfigError(key, "must have one optimizer: with several, no rate alone decides")
    if known is not None and (known.kind == "lr_free" or known.schedule_free):
        raise ConfigError(key, "must have an optimizer that follows the schedule", plan.optimizer)
    if plan.horizon.batch_sizes is not None:
        raise ConfigError(key, "must have batch.schedule=null: the law is for one batch size in a run")
    if plan.group_curves:
        raise ConfigError(key, "must have parameter groups without schedules of their own: the law is for one curve")


def refuse_different_task(first: Plan, other: Plan, key: str) -> None:
    """Refuse a plan that differs from the first run's in more than schedule, rate, length and seed.

    Raises:
        ConfigError: with both values.
    """
    _refuse("optimizer", first.optimizer, other.optimizer, key)
    _refuse("data.batch_size", first.horizon.batch_size, other.horizon.batch_size, key)
    if not first.config or not other.config:
        return
    for section, free in _FREE.items():
        old, new = first.config.get(section) or {}, other.config.get(section) or {}
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            _refuse(section, old, new, key)
            continue
        for name in dict.fromkeys([*old, *new]):
            if name not in free:
                _refuse(f"{section}.{name}", old.get(name), new.get(name), key)
    old, new = first.config.get("trainer") or {}, other.config.get("trainer") or {}
    for name in _CLIPPING:
        _refuse(f"trainer.{name}", old.get(name), new.get(name), key)


def _refuse(name: str, old: Any, new: Any, key: str) -> None:
    if old != new:
        raise ConfigError(key, f"must have {name}={old}, as the first run", new)
