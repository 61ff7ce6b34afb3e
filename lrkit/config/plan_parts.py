"""The objects of the groups that shape a plan: schedules, reduce on plateau, the guard; for each kind of config."""

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
    """The object of a group, of one kind; None where the group is empty. Nothing else is ever called.

    Raises:
        ConfigError: the class is not allowed, is of another kind, or refuses its arguments.
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
    """The schedule of a group. The end of a warmup and the start of a cooldown are where they meet the schedule.

    It, or those inside it, may be in the short form of ``lrkit.config.schedule_nodes``.

    Raises:
        ConfigError: as ``build_part``, for a schedule without a step, or for a set end that the schedule decides.
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
        meets = "ends where the schedule begins" if slot == "warmup" else "starts where the schedule arrived"
        raise ConfigError(f"{key}.{moot}", f"must not be set: a {slot} {meets}", node[moot])
    return shape


def _check_dataclass(node: Any, key: str, trust: Sequence[str]) -> None:
    """Refuse a schedule of a third party with arguments that are no fields: neither plan nor checkpoint has those."""
    if not isinstance(node, Mapping) or TARGET not in node or schedule_defaults(node[TARGET]):
        return
    cls = trusted_targets.resolve_class(node[TARGET], f"{key}.{TARGET}", trust)
    if not issubclass(cls, Schedule):
        return  # which is refused in other words
    if set(inspect.signature(cls).parameters) != {field.name for field in dataclasses.fields(cls) if field.init}:
        must = "must be a dataclass without __init__: its fields are saved with the plan; write @dataclass(frozen=True)"
        raise ConfigError(f"{key}.{TARGET}", must, node[TARGET])


def build_rules(node: Any, trust: Sequence[str]) -> Rules:
    """The rules of a node ``param_groups``, with the schedules that they name, by short forms or nodes, built.

    Raises:
        ConfigError: by the key of the rule, such as ``param_groups.rules[0].schedule.gamma``.
    """
    rules = parse_rules(node)
    return dataclasses.replace(rules, rules=tuple(_build_rule(i, rule, trust) for i, rule in enumerate(rules.rules)))


def _build_rule(i: int, rule: Rule, trust: Sequence[str]) -> Rule:
    """One rule with its schedules built; an empty warmup or cooldown stays empty."""
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
            raise ConfigError(key, "must not be empty: left out, it is the run's; for a fixed rate use constant")
    return dataclasses.replace(rule, **built)


def check_guard_keys(node: Mapping[str, Any]) -> None:
    """Refuse an option of the divergence guard that has no effect under its policy.

    Raises:
        ConfigError: naming the option and the policy.
    """
    policy = node.get("policy")
    if node.get("_target_") != f"{Guard.__module__}.{Guard.__qualname__}" or policy not in POLICIES:
        return  # another class, or a policy that the guard itself refuses
    known = read_option("guard", str(policy), "guard")
    for name in node:
        if name not in known:
            must = f"has no effect under guard.policy={policy}: choose guard={policy}"
            raise ConfigError(f"guard.{name}", must, node[name])
