"""The differences between the plan, or the model, of a checkpoint and that of the command."""

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

__all__ = ["list_model_differences", "list_plan_differences", "make_model_error", "make_plan_error", "normalise"]


def list_plan_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, groups: bool = True
) -> list[tuple[str, str, str]]:
    """Return the differences between two plans in JSON, as (name, old, new); empty if they give the same rates.

    Args:
        old: the plan of the checkpoint.
        new: the plan of the command.
        groups: whether the parameter groups of the new plan are known yet.
    """
    tracks = [old.get("tracks", {}), new.get("tracks", {})]
    if not any(tracks):
        return _compare_parts(old, new, _PARTS if groups else _PARTS.keys() - {"groups"})
    if list(tracks[0]) != list(tracks[1]):  # an optimizer cannot load the state of another one
        return [("optimizers", ", ".join(tracks[0]) or "one", ", ".join(tracks[1]) or "one")]
    rows = _compare_parts(old, new, _SHARED)
    for name in tracks[0]:
        own = _compare_parts(
            tracks[0][name], tracks[1][name], _PARTS.keys() - _SHARED - ({"groups"} if not groups else set())
        )
        own += _compare_parts(tracks[0][name], tracks[1][name], _TRACK)
        rows += [(f"{name}: {what}", before, after) for what, before, after in own]
    return rows


def _compare_parts(
    old: Mapping[str, Any], new: Mapping[str, Any], names: Collection[str]
) -> list[tuple[str, str, str]]:
    """Return the differences in some parts of two plans."""
    rows = []
    for name, part in (_PARTS | _TRACK).items():
        if name not in names:
            continue
        before, after = normalise(part(old)), normalise(part(new))
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


def normalise(value: Any) -> Any:
    """Return a value as JSON returns it, with lists for tuples, and with schedules without their default options.

    The config of an older lrkit, whose schedules had fewer options, then equals that of the same run today.
    """
    return _drop_class_defaults(json.loads(json.dumps(value, default=str)))


def _drop_class_defaults(value: Any) -> Any:
    if isinstance(value, list):
        return [_drop_class_defaults(each) for each in value]
    if not isinstance(value, dict):
        return value
    defaults = schedule_defaults(value.get(TARGET))
    return {k: _drop_class_defaults(v) for k, v in value.items() if k not in defaults or v != defaults[k]}


def _describe_phases(phases: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Return a line for each phase; an option that an older lrkit did not have has its default."""
    return [_describe_phase(phase) for phase in curve_to_json(curve_from_json(phases)) or ()]


def _describe_phase(phase: Mapping[str, Any]) -> str:
    options = ", ".join(f"{k}={v}" for k, v in _drop_keys(phase["schedule"], "name", "length").items())
    return f"{phase['name']} {phase['steps']}: {phase['schedule']['name']}({options})"


def _describe_sizes(sizes: Mapping[str, Any] | None) -> list[str]:
    """Return a line for each stage of a batch-size schedule, and one for what makes its batches."""
    if sizes is None:
        return []
    return [*(f"{size} from step {first}" for first, size, _ in sizes["stages"]), f"by {sizes['by']}"]


def _list_adamw_rules(node: Mapping[str, Any]) -> list[str]:
    return [rule["name"] for rule in node.get("rules") or () if rule.get("adamw")]


def _describe_group_curve(own: Mapping[str, Any]) -> str:
    rate, momentum = ("; ".join(_describe_phases(own[name])) for name in ("phases", "momentum"))
    return f"{rate}; momentum: {momentum}" if momentum else rate


def _drop_keys(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in names and value is not None}


#: The parts of a plan that are compared -> their values in JSON.
_PARTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "optimizer": lambda plan: plan["optimizer"],
    "optimizer options": lambda plan: _drop_keys(plan["config"]["optimizer"], "_target_", "lr"),
    "base rate": lambda plan: plan["base_lr"],
    "batch scale": lambda plan: plan["batch_scale"]["factor"],
    "steps": lambda plan: plan["horizon"]["steps"],
    "steps an epoch": lambda plan: plan["horizon"]["steps_per_epoch"],
    "samples a step": lambda plan: plan["horizon"]["batch_size"],
    "batch sizes": lambda plan: _describe_sizes(plan["horizon"].get("batch_sizes")),
    "phases": lambda plan: _describe_phases(plan["phases"]),
    "groups": lambda plan: [(group["name"], group["lr_scale"], group["weight_decay"]) for group in plan["groups"]],
    "groups by AdamW": lambda plan: _list_adamw_rules(plan["config"].get("param_groups") or {}),
    "group curves": lambda plan: {
        rule: _describe_group_curve(own) for rule, own in plan.get("group_curves", {}).items()
    },
    "momentum": lambda plan: _describe_phases(plan["momentum"]),
    "weight decay": lambda plan: _describe_phases(plan["weight_decay"]["phases"]),
    "weight decay rule": lambda plan: [
        plan["weight_decay"].get("rule", "coupled"),
        plan["weight_decay"].get("timescale"),
    ],
    "plateau": lambda plan: plan["plateau"],
    "seed": lambda plan: plan["config"]["seed"],
}

#: The parts that all tracks of a run share; they are compared once.
_SHARED = {"samples a step", "steps", "steps an epoch", "plateau", "seed"}

#: The additional parts of a track.
_TRACK: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "parameters": lambda plan: plan["config"].get("parameters"),
    "every": lambda plan: plan.get("every", 1),
    "offset": lambda plan: plan.get("offset", 0),
}


def make_plan_error(saved: saved_run.SavedRun, rows: list[tuple[str, str, str]]) -> ConfigError:
    """Return the error with a table of the differences and the list of policies."""
    names = ", ".join(dict.fromkeys(name for name, _, _ in rows))
    error = ConfigError(
        "resume.policy",
        f"must be set, because the plan differs from that of {saved.path.name}, step {saved.step}, in {names}: restore"
        " (the old plan), override (the new plan at the same step), extend (the old shape to the new end), cooldown"
        " (down from the present rate) or restart (the new plan from step 0)",
    )
    error.details = _format_table(rows)
    return error


def _format_table(rows: Sequence[tuple[str, str, str]]) -> str:
    table = [("", "checkpoint", "command"), *((name, *cut_around_difference(old, new)) for name, old, new in rows)]
    widths = [max(len(row[i]) for row in table) for i in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in table)


def cut_around_difference(one: str, other: str, most: int = 160) -> tuple[str, str]:
    """Return two texts; if they are long, their parts around the first difference.

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


def list_model_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the parameters and buffers that are missing or have another shape, as (name, old, new)."""

    def shape(state: Mapping[str, Any], name: str) -> str:
        value = state.get(name, "-")
        return str(tuple(value.shape)) if hasattr(value, "shape") else "-" if name not in state else "there"

    rows = [(name, shape(old, name), shape(new, name)) for name in dict.fromkeys([*old, *new])]
    return [row for row in rows if row[1] != row[2]]


def make_model_error(saved: saved_run.SavedRun, rows: Sequence[tuple[str, str, str]]) -> ConfigError:
    """Return the error with a table of the differences between two models."""
    most = 12
    must = f"must have the parameters of {saved.path.name}, step {saved.step}; {len(rows)} differ"
    error = ConfigError("model", f"{must}: {', '.join(name for name, _, _ in rows[:3])}{', ...' * (len(rows) > 3)}")
    more = [("...", f"{len(rows) - most} more", "")] if len(rows) > most else []
    error.details = _format_table([*rows[:most], *more])
    return error
