"""Converts a curve to plain containers for JSON, and back to the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.schedules.curve import Curve, Phase
from lrkit.schedules.shapes import Schedule

__all__ = ["curve_from_json", "curve_to_json", "with_current_name"]


#: Schedules in plans of an older lrkit: name -> current name, and the fields that had no effect.
_EARLIER: Mapping[str, tuple[str, frozenset[str]]] = MappingProxyType(
    {
        "_Dip": ("_OneCycleMomentum", frozenset({"start", "peak", "end", "momentum_start", "momentum_peak"})),
        "_CycledMomentum": ("_CycledMomentum", frozenset({"momentum_start", "momentum_peak"})),
    }
)


def with_current_name(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schedule in JSON with its current name and without fields that had no effect; not for nested ones.

    >>> with_current_name({"name": "_Dip", "start": 0.04, "high": 0.95})
    {'name': '_OneCycleMomentum', 'high': 0.95}
    """
    if plain["name"] not in _EARLIER:
        return plain
    name, gone = _EARLIER[plain["name"]]
    return {**{key: value for key, value in plain.items() if key not in gone}, "name": name}


def curve_to_json(curve: Curve | None) -> list[dict[str, Any]] | None:
    """Return the phases of a curve, each as a dict; None for no curve."""
    if curve is None:
        return None
    return [
        {
            "name": p.name,
            "first_step": first,
            "steps": p.length,
            "schedule": _schedule_to_json(p.schedule),
            "scale": p.scale,
        }
        for first, p in zip(curve.starts, curve.phases, strict=True)
    ]


def curve_from_json(plain: Sequence[Mapping[str, Any]] | None) -> Curve | None:
    """Return the curve from the output of ``curve_to_json``."""
    if plain is None:
        return None
    return Curve(tuple(Phase(p["name"], _schedule_from_json(p["schedule"]), p["steps"], p["scale"]) for p in plain))


def _schedule_to_json(value: Any) -> Any:
    """Return a resolved schedule, and schedules inside it, as plain containers.

    The options of every schedule are left out if they have their defaults.
    """
    if isinstance(value, Schedule):
        fields = dataclasses.fields(value)
        written = [f.name for f in fields if not _is_left_out(value, f)]
        return {"name": type(value).__name__, **{name: _schedule_to_json(getattr(value, name)) for name in written}}
    return [_schedule_to_json(each) for each in value] if isinstance(value, list | tuple) else value


def _is_left_out(schedule: Schedule, field: dataclasses.Field[Any]) -> bool:
    has_default = getattr(schedule, field.name) == field.default
    return has_default and bool(field.metadata.get("shared") or field.metadata.get("slot"))


def _schedule_from_json(plain: Any) -> Any:
    """Return the schedule from the output of ``_schedule_to_json``."""
    if isinstance(plain, list):
        return tuple(_schedule_from_json(each) for each in plain)
    if not isinstance(plain, dict):
        return plain
    plain = with_current_name(plain)
    kind = Schedule.named(plain["name"])
    if kind is None:
        raise ConfigError("resume.path", f"needs the schedule {plain['name']}, which is not loaded", plain["name"])
    return kind(**{name: _schedule_from_json(value) for name, value in plain.items() if name != "name"})
