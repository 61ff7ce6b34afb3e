"""Parameter groups: the factor of the learning rate, and the weight decay, of each parameter.

Every trainable parameter is in exactly one group. Its factor is ``lr_scale`` of the first rule that matches it, if the
rule sets one; otherwise that of its layer (``layer_decay``). Its weight decay is that of the rule, if the rule sets
one; otherwise 0 for a parameter that ``no_decay`` exempts; otherwise that of the optimizer. A rule that sets only one
of the two does not change the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lrkit.base.errors import ConfigError, name_some
from lrkit.optim.layer_decay import LayerLevels, find_layers
from lrkit.optim.network_blocks import UnclearLayers
from lrkit.planning.group_rules import DEFAULT, NO_DECAY, Rule, Rules, parse_rules

__all__ = ["ParamGroup", "group_remarks", "split_parameters"]


@dataclass(frozen=True)
class ParamGroup:
    """A named group of parameters.

    Args:
        name: the name of the group; its tag in TensorBoard is ``lr/<name>``.
        lr_scale: factor of the learning rate.
        weight_decay: the weight decay of the group; ``None`` uses that of the optimizer.
        names: the dotted names of its parameters, in the model's order.
        params: the parameters with these names.
    """

    name: str
    lr_scale: float
    weight_decay: float | None
    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]
    adamw: bool = False

    def options(self, lr: float) -> dict[str, Any]:
        """Return the group in the form of ``torch.optim``, with the learning rate ``lr``."""
        own: dict[str, Any] = {} if self.weight_decay is None else {"weight_decay": self.weight_decay}
        own |= {"adamw": True} if self.adamw else {}
        return {"params": list(self.params), "name": self.name, "lr": lr, **own}


def split_parameters(
    module: nn.Module,
    node: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    among: Collection[str] | None = None,
) -> list[ParamGroup]:
    """Split a module's trainable parameters into groups.

    A parameter with several names (tied weights) counts once, under its first name; a frozen parameter is in no group.
    A rule that does not set the weight decay or ``lr_scale`` may make several groups: ``<rule>_no_decay`` for the
    parameters that ``no_decay`` exempts, ``<rule>_layer_<level>`` for those of a layer.

    Args:
        module: the module; lazy layers must have run on one batch before.
        node: ``param_groups``, or only its list of rules; see ``lrkit.planning.group_rules.Rules``.
        among: the names of the optimizer's parameters, if it does not have all parameters of the module.

    Returns:
        The groups of the rules, in order, then the other groups in the model's order. No group is empty.

    Raises:
        ConfigError: a rule is wrong or matches no parameter, no parameter is trainable, or the layers are unclear.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> rules = {"rules": [{"name": "head", "pattern": "^1", "lr_scale": 10}], "no_decay": True}
    >>> for group in split_parameters(model, rules):
    ...     print(group.name, group.lr_scale, group.weight_decay, *group.names)
    head 10.0 None 1.weight
    head_no_decay 10.0 0.0 1.bias
    default 1.0 None 0.weight
    no_decay 1.0 0.0 0.bias
    """
    rules = parse_rules(node)
    everything = {name: p for name, p in module.named_parameters() if among is None or name in among}
    lazy = [name for name, parameter in everything.items() if isinstance(parameter, UninitializedParameter)]
    if lazy:
        raise ConfigError("model", f"must be run on one batch first: {name_some(lazy)} has no shape yet")
    trainable = {name: parameter for name, parameter in everything.items() if parameter.requires_grad}
    if not trainable:
        why = "every one of them is frozen" if everything else "it has no parameters"
        raise ConfigError("model", f"has no trainable parameters: {why}")

    layers, spared = _find_layers(module, rules, among), _find_undecayed(module) if rules.no_decay else set[str]()
    members: dict[Rule | None, dict[_Place, list[str]]] = {rule: {} for rule in (*rules.rules, None)}
    for name, parameter in trainable.items():
        rule = next((rule for rule in rules.rules if rule.takes(name, parameter.ndim)), None)
        place = _Place(
            layers.of[name] if layers is not None and (rule is None or rule.lr_scale is None) else None,
            (rule is None or rule.weight_decay is None) and name in spared,
        )
        members[rule].setdefault(place, []).append(name)
    for i, each in enumerate(rules.rules):
        if not members[each]:
            raise _explain_empty_rule(i, each, everything, module)
    return [
        ParamGroup(
            _make_group_name(rule, place, places, 0 if layers is None else layers.top),
            _compute_scale(rule, place, rules, layers),
            0.0 if place.spared else None if rule is None else rule.weight_decay,
            tuple(names),
            tuple(trainable[name] for name in names),
            rule is not None and rule.adamw,
        )
        for rule, places in members.items()
        for place, names in places.items()
    ]


def group_remarks(
    module: nn.Module,
    node: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    among: Collection[str] | None = None,
) -> list[str]:
    """Return remarks on the groups of a module: its layers, and the parameters that it wants without weight decay."""
    rules = parse_rules(node)
    lines = rules.notes
    if (layers := _find_layers(module, rules, among)) is not None:
        lines.append(layers.line)
    if rules.no_decay:
        asked = [
            name
            for name in _find_requested(module)
            if module.get_parameter(name).ndim > 1 and (among is None or name in among)
        ]
        lines += [f"without weight decay, as the model requests: {name_some(asked)}"] if asked else []
    return lines


@dataclass(frozen=True)
class _Place:
    """The layer of a parameter, and whether ``no_decay`` exempts it, if no rule sets the value."""

    level: int | None
    spared: bool


def _find_layers(module: nn.Module, rules: Rules, among: Collection[str] | None) -> LayerLevels | None:
    """Return the layers of a module for layer-wise decay; None without it."""
    if rules.layer_decay is None:
        return None
    try:
        return find_layers(module, among)
    except UnclearLayers as error:
        must = f"must be null, with rates by param_groups.rules: {error}"
        raise ConfigError("param_groups.layer_decay", must, rules.layer_decay) from None


def _make_group_name(rule: Rule | None, place: _Place, places: Iterable[_Place], top: int) -> str:
    """Return the name of a group: the rule, the layer if it has several, and ``no_decay`` without weight decay."""
    layer = "" if place.level is None else f"layer_{place.level:0{len(str(top))}d}"  # zero-padded to sort
    if rule is not None and len({each.level for each in places}) == 1:
        layer = ""
    parts = (rule.name if rule is not None else "", layer, NO_DECAY if place.spared else "")
    return "_".join(filter(None, parts)) or DEFAULT


def _compute_scale(rule: Rule | None, place: _Place, rules: Rules, layers: LayerLevels | None) -> float:
    if rule is not None and rule.lr_scale is not None:
        return rule.lr_scale
    if place.level is None or layers is None or rules.layer_decay is None:
        return 1.0
    return rules.layer_decay ** (layers.top - place.level)


def _find_undecayed(module: nn.Module) -> set[str]:
    """Return the parameters that ``no_decay`` exempts: at most one dimension, or requested by the model."""
    return {name for name, parameter in module.named_parameters() if parameter.ndim <= 1} | set(_find_requested(module))


def _find_requested(module: nn.Module) -> list[str]:
    """Return the parameters for which the model requests no weight decay, in its order.

    A module requests it by its method ``no_weight_decay``, which returns names or ends of names (timm), by
    ``no_weight_decay_keywords``, which returns parts of names (Swin), or by an attribute of the parameter (Mamba).
    """
    names: list[tuple[str, str]] = []  # prefix, pattern
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for method, pattern in (("no_weight_decay", "{}"), ("no_weight_decay_keywords", "*{}*")):
            if callable(ask := getattr(part, method, None)):
                names += [(prefix, pattern.format(name)) for name in ask()]
    return [
        name
        for name, parameter in module.named_parameters()
        if getattr(parameter, "_no_weight_decay", False)
        or any(
            name.startswith(prefix) and (fnmatchcase(name, f"{prefix}{own}") or fnmatchcase(name, f"{prefix}*.{own}"))
            for prefix, own in names
        )
    ]


def _explain_empty_rule(i: int, rule: Rule, everything: Mapping[str, nn.Parameter], module: nn.Module) -> ConfigError:
    """Return the error for a rule that matches no parameter, with the reason."""
    key = f"param_groups.rules[{i}]" + ("" if rule.pattern is None else ".pattern")
    taken = [name for name, parameter in everything.items() if rule.takes(name, parameter.ndim)]
    first = {id(parameter): name for name, parameter in everything.items()}
    tied = [
        f"{name} is tied to {first[id(parameter)]}"
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if first.get(id(parameter), name) != name and rule.takes(name, parameter.ndim)
    ]
    if not taken and tied:
        must = f"must match a parameter: {name_some(tied)}, and tied weights count once, under their first name"
    elif not taken:
        must = f"must match a parameter: {rule.name} matches none of {name_some(list(everything))}"
    elif any(everything[name].requires_grad for name in taken):
        must = f"must match a parameter: earlier rules match all parameters of {rule.name}, {name_some(taken)}"
    else:
        must = f"must match a trainable parameter: {name_some(taken)} is frozen"
    return ConfigError(key, must, rule.pattern if rule.pattern is not None else {"max_ndim": rule.max_ndim})
