"""What differs between the plan, or the model, of a checkpoint and that of the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.checkpoint import saved_run
from lrkit.config.shipped_options import schedule_defaults
from lrkit.config.trusted_targets import TARGET
from lrkit.schedules.curve_json import curve_from_json, curve_to_json

__all__ = ["model_differences", "model_refusal", "normalised", "plan_differences", "plan_refusal"]


def plan_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, groups: bool = True
) -> list[tuple[str, str, str]]:
    """What differs between two plans in JSON: name, old, new; empty where they drive a run alike.

    Args:
        groups: whether the parameter groups of the new plan are known yet.
    """
    tracks = [old.get("tracks", {}), new.get("tracks", {})]
    if not any(tracks):
        return _rows(old, new, _PARTS if groups else _PARTS.keys() - {"groups"})
    if list(tracks[0]) != list(tracks[1]):  # whose parameters and state one has, another cannot go on with
        return [("optimizers", ", ".join(tracks[0]) or "one", ", ".join(tracks[1]) or "one")]
    rows = _rows(old, new, _SHARED)
    for name in tracks[0]:
        own = _rows(tracks[0][name], tracks[1][name], _PARTS.keys() - _SHARED - ({"groups"} if not groups else set()))
        own += _rows(tracks[0][name], tracks[1][name], _TRACK)
        rows += [(f"{name}: {what}", before, after) for what, before, after in own]
    return rows


def _rows(old: Mapping[str, Any], new: Mapping[str, Any], names: Collection[str]) -> list[tuple[str, str, str]]:
    """What differs in some parts of two plans."""
    rows = []
    for name, part in (_PARTS | _TRACK).items():
        if name not in names:
            continue
        before, after = normalised(part(old)), normalised(part(new))
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            pairs = zip_longest(before, after, fillvalue="-")
            rows += [(name, str(b), str(a)) for b, a in pairs if b != a]
        elif isinstance(before, dict) and isinstance(after, dict):
            keys = [k for k in {**before, **after} if before.get(k) != after.get(k)]
            rows += [(f"{name}: {k}", str(before.get(k)), str(after.get(k))) for k in keys]
        else:
            rows.append((name, str(before), str(after)))
    return rows


def normalised(value: Any) -> Any:
    """The value as it comes back from JSON, where tuples are lists; a schedule without what its class has by default.

    So the config of a run by an older lrkit, whose schedules had fewer options, equals that of the same run today.
    """
    return _without_class_defaults(json.loads(json.dumps(value, default=str)))


def _without_class_defaults(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_class_defaults(each) for each in value]
    if not isinstance(value, dict):
        return value
    defaults = schedule_defaults(value.get(TARGET))
    return {k: _without_class_defaults(v) for k, v in value.items() if k not in defaults or v != defaults[k]}


def _phases(phases: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """A line for each phase; an option that an older lrkit did not have counts with its default."""
    return [_phase(phase) for phase in curve_to_json(curve_from_json(phases)) or ()]


def _phase(phase: Mapping[str, Any]) -> str:
    options = ", ".join(f"{k}={v}" for k, v in _without(phase["schedule"], "name", "length").items())
    return f"{phase['name']} {phase['steps']}: {phase['schedule']['name']}({options})"


def _by_adamw(node: Mapping[str, Any]) -> list[str]:
    return [rule["name"] for rule in node.get("rules") or () if rule.get("adamw")]


def _group_curve(own: Mapping[str, Any]) -> str:
    rate, momentum = ("; ".join(_phases(own[name])) for name in ("phases", "momentum"))
    return f"{rate}; momentum: {momentum}" if momentum else rate


def _without(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in names and value is not None}


#: What makes two plans the same, and where each part is found in their JSON.
_PARTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "optimizer": lambda plan: plan["optimizer"],
    "optimizer options": lambda plan: _without(plan["config"]["optimizer"], "_target_", "lr"),
    "base rate": lambda plan: plan["base_lr"],
    "batch scale": lambda plan: plan["batch_scale"]["factor"],
    "steps": lambda plan: plan["horizon"]["steps"],
    "steps an epoch": lambda plan: plan["horizon"]["steps_per_epoch"],
    "samples a step": lambda plan: plan["horizon"]["batch_size"],
    "phases": lambda plan: _phases(plan["phases"]),
    "groups": lambda plan: [(group["name"], group["lr_scale"], group["weight_decay"]) for group in plan["groups"]],
    "groups by AdamW": lambda plan: _by_adamw(plan["config"].get("param_groups") or {}),
    "group curves": lambda plan: {rule: _group_curve(own) for rule, own in plan.get("group_curves", {}).items()},
    "momentum": lambda plan: _phases(plan["momentum"]),
    "weight decay": lambda plan: _phases(plan["weight_decay"]["phases"]),
    "weight decay rule": lambda plan: [
        plan["weight_decay"].get("rule", "coupled"),
        plan["weight_decay"].get("timescale"),
    ],
    "plateau": lambda plan: plan["plateau"],
    "seed": lambda plan: plan["config"]["seed"],
}

#: What the tracks of a run share, and is compared once.
_SHARED = {"samples a step", "steps", "steps an epoch", "plateau", "seed"}

#: What a track has beside.
_TRACK: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "parameters": lambda plan: plan["config"].get("parameters"),
    "every": lambda plan: plan.get("every", 1),
    "offset": lambda plan: plan.get("offset", 0),
}


def plan_refusal(saved: saved_run.SavedRun, rows: list[tuple[str, str, str]]) -> ConfigError:
    """The error that shows what differs, as a table, and names the policies."""
    names = ", ".join(dict.fromkeys(name for name, _, _ in rows))
    error = ConfigError(
        "resume.policy",
        f"must be set, for the plan differs from that of {saved.path.name}, step {saved.step}, in {names}: restore (go"
        " on with the old plan), override (with the new one at the same place), extend (without a jump to the new end),"
        " cooldown (down from here) or restart (from step 0)",
    )
    error.details = _table(rows)
    return error


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    table = [("", "checkpoint", "command"), *((name, *cut_around_difference(old, new)) for name, old, new in rows)]
    widths = [max(len(row[i]) for row in table) for i in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in table)


def cut_around_difference(one: str, other: str, most: int = 160) -> tuple[str, str]:
    """Two texts, or of long ones the parts where they begin to differ.

    >>> cut_around_difference("abcdefgh-1-abc", "abcdefgh-2-abc", 6)
    ('...efgh-1...', '...efgh-2...')
    """
    if max(len(one), len(other)) <= most:
        return one, other
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    begin = max(0, same - 3 * most // 4 - 1)
    before = "..." if begin else ""
    cut = [f"{before}{text[begin : begin + most]}{'...' if len(text) > begin + most else ''}" for text in (one, other)]
    return cut[0], cut[1]


def model_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Which parameters and buffers differ in being there, or in their shape: name, old, new."""

    def shape(state: Mapping[str, Any], name: str) -> str:
        value = state.get(name, "-")
        return str(tuple(value.shape)) if hasattr(value, "shape") else "-" if name not in state else "there"

    rows = [(name, shape(old, name), shape(new, name)) for name in dict.fromkeys([*old, *new])]
    return [row for row in rows if row[1] != row[2]]


def model_refusal(saved: saved_run.SavedRun, rows: Sequence[tuple[str, str, str]]) -> ConfigError:
    """The error that shows how a model differs from that of a checkpoint."""
    most = 12
    must = f"must have the parameters that {saved.path.name}, step {saved.step}, was saved with; {len(rows)} differ"
    error = ConfigError("model", f"{must}: {', '.join(name for name, _, _ in rows[:3])}{', ...' * (len(rows) > 3)}")
    more = [("...", f"{len(rows) - most} more", "")] if len(rows) > most else []
    error.details = _table([*rows[:most], *more])
    return error
