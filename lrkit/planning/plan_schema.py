"""The schema of a plan in JSON: exactly the form that ``Plan.to_json`` writes.

A plan comes from a checkpoint or from ``plan.json``, which may be untrusted. ``checked`` refuses a plan that a run
cannot follow: other keys and types, numbers that are not finite, unknown schedules, curves with too many phases or
without a finite value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.validation import (
    FLAG,
    PLAIN_DATA,
    Rule,
    check_by,
    either,
    listed,
    mapping,
    number,
    one_of,
    optional,
    record,
    text,
    whole,
)
from lrkit.planning.batch_scaling import RULES
from lrkit.planning.plan import Plan
from lrkit.planning.weight_decay_rule import RULES as WEIGHT_DECAY_RULES
from lrkit.schedules.batch_sizes import BY as BATCHES_BY
from lrkit.schedules.batch_sizes import BatchSizes
from lrkit.schedules.curve import Curve
from lrkit.schedules.curve_json import with_current_name
from lrkit.schedules.shapes import Schedule
from lrkit.schedules.shapes.schedule import MOST_EDGES

__all__ = ["SAVED", "checked"]

_PHASES, _GROUPS, _RATES = 1000, 100_000, 1_000_000  # rates: phases times groups
_DEEPEST = 64  # nested schedules: each extension of a run adds a level

_NEEDED = {
    "seed": PLAIN_DATA,
    **dict.fromkeys(("optimizer", "schedule", "data", "trainer", "horizon"), mapping(PLAIN_DATA)),
    **dict.fromkeys(("warmup", "cooldown", "plateau", "coschedule"), optional(mapping(PLAIN_DATA))),
}
_PERHAPS = {
    **dict.fromkeys(("find", "model", "batch", "callbacks", "logger", "resume"), mapping(PLAIN_DATA)),
    **dict.fromkeys(("optimizers", "guard", "batch_scaling", "weight_decay_rule"), optional(mapping(PLAIN_DATA))),
}
#: The parts of a run's config that a resumed run reads.
_CONFIG = record(_NEEDED, _PERHAPS, others=True)
#: The same for a run of another lrkit, which may lack some of them.
SAVED = record({}, {**_NEEDED, **_PERHAPS}, others=True)


def _check_schedule(key: str, value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise ConfigError(key, f"must not have schedules nested deeper than {_DEEPEST}")
    record({"name": text(100)}, others=True).check(key, value)
    value = with_current_name(value)
    kind = Schedule.named(value["name"])
    if kind is None:
        raise ConfigError(f"{key}.name", "must be a schedule that is loaded", value["name"])
    fields: dict[str, Rule] = {}
    for field in dataclasses.fields(kind):
        inner: Rule = _schedule_option(depth)
        if "number" in field.metadata:
            inner = number()
        elif "duration" in field.metadata:  # in steps
            inner = whole(0 if field.metadata["zero"] else 1)
        fields[field.name] = optional(inner)
    record({"name": text(100)}, fields).check(key, value)


def _schedule_option(depth: int) -> Rule:
    """Return the rule for an option of a schedule: a plain value, a schedule, or a list of them."""

    def check(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            _check_schedule(key, value, depth + 1)
        else:
            either(FLAG, number(), text(1000), listed(option, 10_000)).check(key, value)

    option = check_by(check)
    return option


_SCHEDULE = check_by(_check_schedule)
_PHASE = record(
    {
        "name": text(1000),
        "first_step": whole(),
        "steps": optional(whole(1)),
        "schedule": _SCHEDULE,
        "scale": number(0),
    },
    {"lr": PLAIN_DATA},
)
_GROUP = record({"name": text(), "lr_scale": number(0), "weight_decay": optional(number())})
_HORIZON = dict.fromkeys(("steps", "steps_per_epoch", "batch_size"), optional(whole(1)))
_BATCH_SIZES = record(
    {
        "stages": listed(listed(number(0), 3, 3), 10_000, 1),
        "micro": optional(whole(1)),
        "batches": optional(whole(1)),
        "by": one_of(*BATCHES_BY),
    }
)
_HORIZON_MORE = {
    "tokens_per_sample": optional(whole(1)),
    "stop_after": optional(whole()),
    "batch_sizes": optional(_BATCH_SIZES),
}
_PLAN: dict[str, Rule] = {
    "optimizer": text(1000),
    "base_lr": number(0),
    "batch_scale": record(
        {"rule": one_of(*RULES), "factor": number(0), "batch": optional(whole(1)), "base": optional(whole(1))}
    ),
    "horizon": record({**_HORIZON, "sources": mapping(text(), 100)}, _HORIZON_MORE),
    "groups": listed(_GROUP, _GROUPS),
    "phases": listed(_PHASE, _PHASES, 1),
    "momentum": optional(listed(_PHASE, _PHASES, 1)),
    "weight_decay": record(
        {"base": number(), "phases": optional(listed(_PHASE, _PHASES, 1))},
        {"rule": one_of(*WEIGHT_DECAY_RULES), "timescale": optional(whole(2))},
    ),
    "plateau": optional(mapping(PLAIN_DATA, 100)),
    "warnings": listed(text(), 10_000),
}
_GROUP_CURVE = record(
    {"phases": listed(_PHASE, _PHASES, 1), "momentum": optional(listed(_PHASE, _PHASES, 1))},
)
_MORE: dict[str, Rule] = {
    "group_curves": mapping(_GROUP_CURVE, _PHASES),
    "found": optional(listed(number(0), 2, 2)),
    "origin": optional(text(1000)),
    "guard": optional(mapping(PLAIN_DATA, 100)),
    "notes": listed(text(), 10_000),
    "every": whole(1),
    "offset": whole(),
}
_TRACK = record({**_PLAN, "config": record({"optimizer": mapping(PLAIN_DATA)}, others=True)}, _MORE)
_WHOLE = record({**_PLAN, "config": _CONFIG}, {**_MORE, "tracks": mapping(_TRACK, 1000)})


def checked(plain: Any, key: str = "plan") -> Plan:
    """Return the plan from plain containers.

    Raises:
        ConfigError: a run cannot follow the plan; with the key of the invalid value.
    """
    _WHOLE.check(key, plain)
    PLAIN_DATA.check(f"{key}.config", plain["config"])
    parts = {key: plain, **{f"{key}.tracks.{name}": track for name, track in plain.get("tracks", {}).items()}}
    for at, part in parts.items():
        phases = sum(len(own["phases"]) for own in (part, *part.get("group_curves", {}).values()))
        if (rates := phases * len(part["groups"])) > _RATES:
            raise ConfigError(at, f"must not have more than {_RATES} rates, of phases and groups", rates)
    try:
        plan = Plan.from_json(plain)
        for part in (plan, *plan.tracks.values()):
            if part.horizon.batch_sizes is not None:
                _check_stages(part.horizon.batch_sizes)
            own = (curve for each in part.group_curves.values() for curve in (each.curve, each.momentum))
            for curve in (part.curve, part.momentum, part.decay_curve, *own):
                if curve is not None:
                    _check_curve(curve)
    except ConfigError as error:
        raise error.under(key) from None
    except Exception as why:  # from a schedule with options that lrkit never writes
        raise ConfigError(key, f"must be a plan that a run can follow ({type(why).__name__}: {why})") from None
    return plan


def _check_stages(sizes: BatchSizes) -> None:
    """Refuse stages that are not in order, or with samples that no step can have."""
    key, least = "horizon.batch_sizes", 0
    for first, size in sizes.stages:
        (whole(least) if least else whole(0, 0)).check(key, first)
        whole(1).check(key, size)
        if size % (sizes.micro or 1):
            raise ConfigError(key, f"must be multiples of {sizes.micro}", size)
        least = first + 1


def _check_curve(curve: Curve) -> None:
    """Refuse a curve with too many edges, or without finite values at the ends of its phases and between them."""
    edges = 0
    for first, phase in zip(curve.starts, curve.phases, strict=True):
        length = 10_000 if phase.length is None else phase.length
        if phase.length is not None:
            edges += len(phase.schedule.edges(phase.length))
        if edges > MOST_EDGES:
            raise ConfigError("phases", f"must make at most {MOST_EDGES} turns", edges)
        for s in {0, length // 3, length // 2, length - 1}:
            number(0).check(f"rate at step {first + s}", phase(s))
        number(0).check(f"rate after step {first + length}", phase.final)
