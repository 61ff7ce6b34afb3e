"""Builds the objects of a plan from the nodes of a config: schedules, reduce-on-plateau, the divergence guard."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from lrkit.base.errors import ConfigError
from lrkit.config import trusted_targets
from lrkit.config.instantiate import build
from lrkit.config.schedule_nodes import complete_schedule
from lrkit.config.shipped_options import read_option, schedule_defaults
from lrkit.config.trusted_targets import TARGET
from lrkit.config.unknown_keys import unknown_key
from lrkit.planning.group_rules import Rule, Rules, parse_rules
from lrkit.planning.guard import POLICIES, Guard
from lrkit.schedules.durations import Duration
from lrkit.schedules.shapes import Schedule

__all__ = ["build_part", "build_rules", "build_schedule", "check_guard_keys"]

Part = TypeVar("Part")


def build_part(node: Any, key: str, kind: type[Part], trust: Sequence[str]) -> Part | None:
    """Build the object of a group; return None if the group is empty. Only classes of ``kind`` are called.

    Raises:
        ConfigError: the class is not trusted, is of another kind, or refuses its arguments.
    """
    if not node:
        return None
    if "_target_" not in node:
        raise unknown_key(f"{key}.{next(iter(node))}", [key])
    part = build(node, key, trust)
    if not isinstance(part, kind):
        raise ConfigError(f"{key}._target_", f"must be a {kind.__name__}", node["_target_"])
    return part


def build_schedule(node: Any, key: str, trust: Sequence[str]) -> Schedule | None:
    """Build the schedule of a group.

    The node, and schedules inside it, may have the short form of ``lrkit.config.schedule_nodes``.

    Raises:
        ConfigError: as ``build_part``; a schedule without steps; or the end of a warmup or the start of a cooldown is
            set, which the schedule determines.
    """
    node = complete_schedule(node, key)
    _check_dataclass(node, key, trust)
    shape = build_part(node, key, Schedule, trust)
    if shape is None:
        return None
    slot = key.rpartition(".")[2]
    if slot == "schedule" and shape.length is not None and not Duration.parse(shape.length).value:
        raise ConfigError(f"{key}.length", "must be longer than 0, or null for the rest of the run", shape.length)
    moot = {"warmup": "end", "cooldown": "start"}.get(slot, "")
    if node.get(moot, 1.0) not in (1.0, None):
        meets = "ends at the schedule's first value" if slot == "warmup" else "starts at the schedule's last value"
        raise ConfigError(f"{key}.{moot}", f"must not be set: a {slot} {meets}", node[moot])
    return shape


def _check_dataclass(node: Any, key: str, trust: Sequence[str]) -> None:
    """Refuse a third-party schedule with arguments that are not fields: plan and checkpoint contain only fields."""
    if not isinstance(node, Mapping) or TARGET not in node or schedule_defaults(node[TARGET]):
        return
    cls = trusted_targets.resolve_class(node[TARGET], f"{key}.{TARGET}", trust)
    if not issubclass(cls, Schedule):
        return  # refused with another message
    if set(inspect.signature(cls).parameters) != {field.name for field in dataclasses.fields(cls) if field.init}:
        must = "must be a dataclass without __init__, because the plan saves its fields: write @dataclass(frozen=True)"
        raise ConfigError(f"{key}.{TARGET}", must, node[TARGET])


def build_rules(node: Any, trust: Sequence[str]) -> Rules:
    """Return the rules of a node ``param_groups``, with their schedules built.

    Raises:
        ConfigError: with the key of the rule, such as ``param_groups.rules[0].schedule.gamma``.
    """
    rules = parse_rules(node)
    return dataclasses.replace(rules, rules=tuple(_build_rule(i, rule, trust) for i, rule in enumerate(rules.rules)))


def _build_rule(i: int, rule: Rule, trust: Sequence[str]) -> Rule:
    """Return a rule with its schedules built; an empty warmup or cooldown stays empty."""
    built: dict[str, Any] = {}
    for group in ("schedule", "warmup", "cooldown"):
        written, key = getattr(rule, group), f"param_groups.rules[{i}].{group}"
        if written is None or isinstance(written, Schedule):
            continue
        unnamed = isinstance(written, Mapping) and written and not {"name", "_target_"} & written.keys()
        if unnamed or not isinstance(written, str | Mapping):
            must = f"must be the name of a {group}, or a group of keys with it, such as {{name: linear, start: 0.1}}"
            raise ConfigError(key, must, written)
        built[group] = build_schedule(written, key, trust) or {}
        if group == "schedule" and not built[group]:
            raise ConfigError(
                key, "must not be empty: leave it out for the run's schedule, or use constant for a fixed rate"
            )
    return dataclasses.replace(rule, **built)


def check_guard_keys(node: Mapping[str, Any]) -> None:
    """Refuse an option of the divergence guard that has no effect under its policy.

    Raises:
        ConfigError: with the option and the policy.
    """
    policy = node.get("policy")
    if node.get("_target_") != f"{Guard.__module__}.{Guard.__qualname__}" or policy not in POLICIES:
        return  # another class, or a policy that the guard itself refuses
    known = read_option("guard", str(policy), "guard")
    for name in node:
        if name not in known:
            must = f"has no effect under guard.policy={policy}: choose guard={policy}"
            raise ConfigError(f"guard.{name}", must, node[name])
