"""Rules for parameter groups: the parameters of each group, and the factor of its learning rate.

This file needs no torch, so that ``lrkit show`` checks and lists the rules without a model.
``lrkit.optim.param_groups`` applies them to the parameters of a model.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.validation import FLAG, is_finite, optional, whole
from lrkit.schedules.durations import Duration, Length

__all__ = [
    "CURVE_PARTS", "DEFAULT", "NO_DECAY", "Rule", "Rules", "curve_parts", "group_rates", "parse_rules", "rule_of",
    "without_curves",
]  # fmt: skip

#: The group of the parameters that no rule matches.
DEFAULT = "default"
#: The group, or the ending of a group's name, of the parameters without weight decay.
NO_DECAY = "no_decay"
#: The keys of a rule that set the curve of its groups.
CURVE_PARTS = ("schedule", "warmup", "cooldown", "delay")
#: The name for the groups of all layers in a plan without a model.
_LAYERS = "layer_*"


@dataclass(frozen=True)
class Rule:
    """One named group. A rule with both ``pattern`` and ``max_ndim`` matches the parameters that both match.

    Values that a rule does not set are those without the rule. If ``layer_decay`` or ``no_decay`` make them differ, the
    rule has a group for each layer (``<name>_layer_03``), and one for the parameters without weight decay
    (``<name>_no_decay``).

    Args:
        name: the name of the group; ``lr/<name>`` is its tag in TensorBoard.
        pattern: a regular expression, searched for in the dotted parameter name.
        max_ndim: matches parameters of at most this number of dimensions; 1: biases and the weights of norms.
        lr_scale: factor of the learning rate, >= 0, in place of the layer's; ``None``: the layer's. With 0 the group
            does not change, but its gradients are still computed: to save their time, freeze it
            (``requires_grad_(False)``).
        weight_decay: the weight decay of the group, also with ``no_decay``; ``None``: the optimizer's, or 0 for
            parameters that ``no_decay`` matches.
        schedule: the shape of its curve; ``None``: the run's. A node of the config, or the object that
            ``lrkit.config.plan_objects.build_rules`` has built.
        warmup, cooldown: the same; empty: no warmup or cooldown, even if the run has one.
        delay: the time at the beginning of the run during which its rate is 0; its curve has the other steps.
        adamw: for Muon, whether AdamW updates the matrices of the rule too. Such a rule needs no pattern: without one
            it matches the parameters that are not matrices, which Muon leaves to AdamW.
    """

    name: str
    pattern: str | None = None
    max_ndim: int | None = None
    lr_scale: float | None = None
    weight_decay: float | None = None
    schedule: Any = field(default=None, hash=False)
    warmup: Any = field(default=None, hash=False)
    cooldown: Any = field(default=None, hash=False)
    delay: Length | None = None
    adamw: bool = False

    @property
    def has_curve(self) -> bool:
        """Whether its groups have their own curve."""
        return any(getattr(self, part) is not None for part in CURVE_PARTS)

    def __repr__(self) -> str:
        """Return the name and the set values."""
        said = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        set_ones = (f"{name}={value!r}" for name, value in said.items() if value is not None and value is not False)
        return f"Rule({', '.join(set_ones)})"

    def takes(self, name: str, ndim: int) -> bool:
        """Return whether the rule matches a parameter."""
        if self.pattern is None and self.max_ndim is None:
            return ndim != 2  # the parameters that Muon leaves to AdamW
        return (self.pattern is None or re.search(self.pattern, name) is not None) and (
            self.max_ndim is None or ndim <= self.max_ndim
        )


@dataclass(frozen=True)
class Rules:
    """A node ``param_groups``, checked.

    Args:
        rules: the rules of the user; the first rule that matches a parameter applies.
        no_decay: whether biases, the weights of norms, and the parameters in the model's ``no_weight_decay()`` have no
            weight decay, if no rule sets it.
        layer_decay: factor of the learning rate from one layer to the layer below, if no rule sets ``lr_scale``.
    """

    rules: tuple[Rule, ...] = ()
    no_decay: bool = False
    layer_decay: float | None = None

    @property
    def notes(self) -> list[str]:
        """Return notes for the plan, beside the names and factors of the groups."""
        return [f"{rule.name}: AdamW updates all of it, matrices too" for rule in self.rules if rule.adamw]


def parse_rules(node: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> Rules:
    """Check a node ``param_groups``, or a list of rules.

    Raises:
        ConfigError: with the key, such as ``param_groups.rules[0].pattern``.

    >>> parse_rules({"rules": [{"name": "head", "pattern": "^head", "lr_scale": 10}], "no_decay": True}).rules[0]
    Rule(name='head', pattern='^head', lr_scale=10.0)
    >>> parse_rules([{"name": "head", "patern": "^head"}])  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: param_groups.rules[0].patern is not a key. Did you mean 'pattern'? ...
    """
    if not isinstance(node, Mapping):
        node = {"rules": node}
    keys = [field.name for field in dataclasses.fields(Rules)]
    for key in node:
        if key not in keys:
            raise ConfigError(f"param_groups.{key}", f"is not a key. {did_you_mean(str(key), keys)}")
    written = node.get("rules")
    if written is None:
        written = []
    if isinstance(written, (str, Mapping)) or not isinstance(written, Sequence):
        must = "must be a list of rules, such as [{name: head, pattern: '^head', lr_scale: 10}]"
        raise ConfigError("param_groups.rules", must, written)
    no_decay, decay = node.get("no_decay") or False, node.get("layer_decay")
    FLAG.check("param_groups.no_decay", no_decay)
    if decay is not None and not (is_finite(decay) and 0 < decay <= 1):
        raise ConfigError("param_groups.layer_decay", "must be a number in (0, 1], or null", decay)

    rules: list[Rule] = []
    for i, entry in enumerate(written):
        rule, key = _parse_rule(f"param_groups.rules[{i}]", entry), f"param_groups.rules[{i}].name"
        if rule.name in [earlier.name for earlier in rules]:
            raise ConfigError(key, "must not be given twice", rule.name)
        if rule.name in (DEFAULT, NO_DECAY) or re.fullmatch(rf"layer_\d+(_{NO_DECAY})?", rule.name):
            raise ConfigError(key, "must be another name: lrkit uses it for its own groups", rule.name)
        rules.append(rule)
    for i, rule in enumerate(rules):
        for other in rules:
            if rule != other and rule_of(rule.name, [other.name]):
                must = f"must be another name: the rule {other.name} may have a group with this name"
                raise ConfigError(f"param_groups.rules[{i}].name", must, rule.name)
    return Rules(tuple(rules), no_decay, None if decay is None else float(decay))


def rule_of(group: str, rules: Iterable[str]) -> str | None:
    """Return the name of the rule that made a group; None for one of lrkit's own groups.

    >>> rule_of("head_layer_03_no_decay", ["stem", "head"]), rule_of("layer_03", ["stem", "head"])
    ('head', None)
    """
    for rule in rules:
        if re.fullmatch(rf"{re.escape(rule)}(_layer_(\d+|\*))?(_{NO_DECAY})?", group):
            return rule
    return None


def curve_parts(node: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the keys of a checked node that set the curves of groups, by the name of the rule."""
    rules = {rule["name"]: rule for rule in node.get("rules") or ()}
    said = {name: {p: rule[p] for p in CURVE_PARTS if rule.get(p) is not None} for name, rule in rules.items()}
    return {name: parts for name, parts in said.items() if parts}


def without_curves(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked node with the same groups, but all of them follow the run's curve."""
    rules = [{k: v for k, v in rule.items() if k not in CURVE_PARTS} for rule in node.get("rules") or ()]
    return {**node, "rules": rules}


def group_rates(
    node: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
) -> list[tuple[str, float, float | None]]:
    """Return name, factor of the rate and weight decay of each group, as far as they are known without a model.

    A model may have fewer groups, because groups without parameters are left out. One ``layer_*`` represents all
    layers, with the factor of the top layer.

    >>> group_rates({"no_decay": True})
    [('default', 1.0, None), ('no_decay', 1.0, 0.0)]
    >>> group_rates({"rules": [{"name": "pos", "pattern": "pos", "weight_decay": 0}], "layer_decay": 0.75})
    [('pos_layer_*', 1.0, 0.0), ('layer_*', 1.0, None)]
    """
    rules, rates = parse_rules(node), list[tuple[str, float, float | None]]()
    for rule in rules.rules:
        layered = rule.lr_scale is None and rules.layer_decay is not None
        name, scale = (
            f"{rule.name}_{_LAYERS}" if layered else rule.name,
            1.0 if rule.lr_scale is None else rule.lr_scale,
        )
        rates.append((name, scale, rule.weight_decay))
        if rules.no_decay and rule.weight_decay is None:
            rates.append((f"{name}_{NO_DECAY}", scale, 0.0))
    rates.append((DEFAULT if rules.layer_decay is None else _LAYERS, 1.0, None))
    if rules.no_decay:
        rates.append((NO_DECAY if rules.layer_decay is None else f"{_LAYERS}_{NO_DECAY}", 1.0, 0.0))
    return rates


def _parse_rule(key: str, entry: Any) -> Rule:
    """Check one entry of the list."""
    accepted = [field.name for field in dataclasses.fields(Rule)]
    if not isinstance(entry, Mapping):
        raise ConfigError(key, f"must be a rule: a mapping with {', '.join(accepted)}", entry)
    for name in entry:
        if name not in accepted:
            raise ConfigError(f"{key}.{name}", f"is not a key. {did_you_mean(str(name), accepted)}")
    name, pattern, max_ndim = entry.get("name"), entry.get("pattern"), entry.get("max_ndim")
    # TensorBoard shows these characters unchanged in a tag; a slash would make a folder.
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ConfigError(f"{key}.name", "must be made of letters, digits, `_`, `.` and `-`", name)
    adamw = entry.get("adamw") or False
    FLAG.check(f"{key}.adamw", adamw)
    if pattern is None and max_ndim is None and not adamw:
        raise ConfigError(key, "must have a pattern or a max_ndim", dict(entry))
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigError(f"{key}.pattern", f"must be a regular expression ({error})", pattern) from None
    optional(whole()).check(f"{key}.max_ndim", max_ndim)
    scale, decay = entry.get("lr_scale"), entry.get("weight_decay")
    if "lr_scale" in entry and (scale is None or not is_finite(scale) or scale < 0):
        raise ConfigError(f"{key}.lr_scale", "must be a number >= 0", scale)
    if decay is not None and not (is_finite(decay) and decay >= 0):
        raise ConfigError(f"{key}.weight_decay", "must be a number >= 0, or null for the optimizer's own", decay)
    delay = entry.get("delay")
    if delay is not None and not Duration.parse(delay, f"{key}.delay").value:
        delay = None
    return Rule(
        name,
        pattern,
        max_ndim,
        lr_scale=None if scale is None else float(scale),
        weight_decay=None if decay is None else float(decay),
        schedule=entry.get("schedule"),
        warmup=entry.get("warmup"),
        cooldown=entry.get("cooldown"),
        delay=delay,
        adamw=adamw,
    )
