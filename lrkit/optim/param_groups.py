"""Parameter groups: which parameters get which factor of the learning rate, and which weight decay.

Every trainable parameter falls into exactly one group. The factor of its rate is that of the first rule that takes
it, where the rule sets ``lr_scale``, else its layer's (``layer_decay``). Its weight decay is the rule's, where the rule
sets one, else 0 where ``no_decay`` spares it, else the optimizer's. So a rule that sets one of the two leaves the other
as it would be without the rule.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lrkit.base.errors import ConfigError, name_some
from lrkit.optim.blocks import UnclearLayers
from lrkit.optim.layer_decay import LayerLevels, find_layers
from lrkit.planning.group_rules import DEFAULT, NO_DECAY, Rule, Rules, parse_rules

__all__ = ["ParamGroup", "group_remarks", "split_parameters"]


@dataclass(frozen=True)
class ParamGroup:
    """A named group of parameters.

    Args:
        name: its tag in TensorBoard is ``lr/<name>``.
        lr_scale: factor of the learning rate.
        weight_decay: the group's own; ``None`` leaves it at the optimizer's.
        names: dotted parameter names, in the model's order.
        params: the parameters of those names.
    """

    name: str
    lr_scale: float
    weight_decay: float | None
    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]

    def options(self, lr: float) -> dict[str, Any]:
        """The group as ``torch.optim`` wants it, at the rate ``lr``."""
        own = {} if self.weight_decay is None else {"weight_decay": self.weight_decay}
        return {"params": list(self.params), "name": self.name, "lr": lr, **own}


def split_parameters(
    module: nn.Module,
    node: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    among: Collection[str] | None = None,
) -> list[ParamGroup]:
    """Split a module's trainable parameters into groups.

    A parameter that is used in several places (tied weights) counts once, under its first name; one that does not
    require a gradient is in no group. A rule makes more than one group where its parameters differ in what it leaves
    open: ``<rule>_no_decay`` has those that ``no_decay`` spares, and ``<rule>_layer_<level>`` those of a layer.

    Args:
        module: its parameters must exist: run a batch through lazy layers first.
        node: ``param_groups``, or just its list of rules; see ``lrkit.planning.group_rules.Rules``.
        among: names of the parameters that there are, where an optimizer has not the whole module.

    Returns:
        The groups of the rules, in order, then the others in the model's order. None is empty.

    Raises:
        ConfigError: if a rule is wrong or takes nothing, there is nothing to train, or there are no layers to tell.

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

    layers, spared = _layers(module, rules, among), _spared(module) if rules.no_decay else set[str]()
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
            raise _takes_nothing(i, each, everything, module)
    return [
        ParamGroup(
            _name(rule, place, places, 0 if layers is None else layers.top),
            _scale(rule, place, rules, layers),
            0.0 if place.spared else None if rule is None else rule.weight_decay,
            tuple(names),
            tuple(trainable[name] for name in names),
        )
        for rule, places in members.items()
        for place, names in places.items()
    ]


def group_remarks(
    module: nn.Module,
    node: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    among: Collection[str] | None = None,
) -> list[str]:
    """What ``split_parameters`` made of a module beyond what the rules say: its layers, and what it wants without
    weight decay.
    """
    rules, lines = parse_rules(node), list[str]()
    if (layers := _layers(module, rules, among)) is not None:
        lines.append(layers.line)
    if rules.no_decay:
        asked = [
            name for name in _asked(module) if module.get_parameter(name).ndim > 1 and (among is None or name in among)
        ]
        lines += [f"without weight decay, as the model asks: {name_some(asked)}"] if asked else []
    return lines


@dataclass(frozen=True)
class _Place:
    """What a parameter has of its own, where no rule says otherwise: a layer's rate, and no weight decay."""

    level: int | None
    spared: bool


def _layers(module: nn.Module, rules: Rules, among: Collection[str] | None) -> LayerLevels | None:
    """The layers of a module, where they have rates of their own."""
    if rules.layer_decay is None:
        return None
    try:
        return find_layers(module, among)
    except UnclearLayers as error:
        must = f"must be null, with rates by param_groups.rules: {error}"
        raise ConfigError("param_groups.layer_decay", must, rules.layer_decay) from None


def _name(rule: Rule | None, place: _Place, places: Iterable[_Place], top: int) -> str:
    """The name of a group: the rule's, with the layer where it has several, and what is spared weight decay."""
    layer = "" if place.level is None else f"layer_{place.level:0{len(str(top))}d}"  # of one width, so that they sort
    if rule is not None and len({each.level for each in places}) == 1:
        layer = ""
    parts = (rule.name if rule is not None else "", layer, NO_DECAY if place.spared else "")
    return "_".join(filter(None, parts)) or DEFAULT


def _scale(rule: Rule | None, place: _Place, rules: Rules, layers: LayerLevels | None) -> float:
    if rule is not None and rule.lr_scale is not None:
        return rule.lr_scale
    if place.level is None or layers is None or rules.layer_decay is None:
        return 1.0
    return rules.layer_decay ** (layers.top - place.level)


def _spared(module: nn.Module) -> set[str]:
    """The parameters that ``no_decay`` spares: of at most one dimension, or as the model asks."""
    return {name for name, parameter in module.named_parameters() if parameter.ndim <= 1} | set(_asked(module))


def _asked(module: nn.Module) -> list[str]:
    """The parameters that a model asks to spare the weight decay, in its order.

    It asks by a method ``no_weight_decay`` of its own or of a part, which gives names or ends of names (timm), by
    ``no_weight_decay_keywords``, which gives parts of names (Swin), or by a mark on the parameter (Mamba).
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


def _takes_nothing(i: int, rule: Rule, everything: Mapping[str, nn.Parameter], module: nn.Module) -> ConfigError:
    """Why a rule is left without parameters."""
    key = f"param_groups.rules[{i}]" + ("" if rule.pattern is None else ".pattern")
    taken = [name for name, parameter in everything.items() if rule.takes(name, parameter.ndim)]
    first = {id(parameter): name for name, parameter in everything.items()}
    tied = [
        f"{name} is tied to {first[id(parameter)]}"
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if first.get(id(parameter), name) != name and rule.takes(name, parameter.ndim)
    ]
    if not taken and tied:
        must = f"must take a parameter: {name_some(tied)}, and tied weights count once, under their first name"
    elif not taken:
        must = f"must take a parameter: {rule.name} takes none of {name_some(list(everything))}"
    elif any(everything[name].requires_grad for name in taken):
        must = f"must take a parameter: earlier rules have all that {rule.name} would take, {name_some(taken)}"
    else:
        must = f"must take a parameter that is trained: {name_some(taken)} is frozen"
    return ConfigError(key, must, rule.pattern if rule.pattern is not None else {"max_ndim": rule.max_ndim})
