"""Parameter groups: which parameters get which factor of the learning rate, and which weight decay.

Every trainable parameter falls into exactly one group: that of the first rule that takes it. What no rule takes goes
to its layer (``layer_decay``) or to ``default``, and there, with ``no_decay``, biases and the weights of norms go to
a group of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lrkit.errors import ConfigError
from lrkit.rules import DEFAULT, NO_DECAY, Rule, Rules, parse

__all__ = ["Group", "layers", "split"]

#: The outermost numbered part of a dotted name, and what is before it: ``blocks.3`` of ``blocks.3.mlp.0.weight``.
_NUMBERED = re.compile(r"((?:[^.]+\.)*?\d+)\.")


@dataclass(frozen=True)
class Group:
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


def split(
    module: nn.Module,
    node: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    among: Collection[str] | None = None,
) -> list[Group]:
    """Split a module's trainable parameters into groups.

    A parameter that is used in several places (tied weights) counts once, under its first name; one that does not
    require a gradient is in no group.

    Args:
        module: its parameters must exist: run a batch through lazy layers first.
        node: ``param_groups``, or just its list of rules; see ``lrkit.rules.Rules``.
        among: names of the parameters that there are, where an optimizer has not the whole module.

    Returns:
        The groups of the rules, in order, then the others in the model's order. None is empty.

    Raises:
        ConfigError: if a rule is wrong or takes nothing, or there is nothing to train.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> for group in split(model, {"rules": [{"name": "head", "pattern": "^1", "lr_scale": 10}], "no_decay": True}):
    ...     print(group.name, group.lr_scale, group.weight_decay, *group.names)
    head 10.0 None 1.weight 1.bias
    default 1.0 None 0.weight
    no_decay 1.0 0.0 0.bias
    """
    rules = parse(node)
    everything = {name: p for name, p in module.named_parameters() if among is None or name in among}
    lazy = [name for name, parameter in everything.items() if isinstance(parameter, UninitializedParameter)]
    if lazy:
        raise ConfigError("model", f"must be run on one batch first: {_some(lazy)} has no shape yet")
    trainable = {name: parameter for name, parameter in everything.items() if parameter.requires_grad}
    if not trainable:
        why = "every one of them is frozen" if everything else "it has no parameters"
        raise ConfigError("model", f"has no trainable parameters: {why}")

    rest = _rest(rules, list(everything))
    members: dict[Rule, list[str]] = {rule: [] for rule in rules.rules}
    for name, parameter in trainable.items():
        first = next((rule for rule in rules.rules if rule.takes(name, parameter.ndim)), None)
        members.setdefault(first or rest(name, parameter.ndim), []).append(name)
    for i, rule in enumerate(rules.rules):
        if not members[rule]:
            raise _takes_nothing(i, rule, everything)
    return [
        Group(rule.name, rule.lr_scale, rule.weight_decay, tuple(names), tuple(trainable[name] for name in names))
        for rule, names in members.items()
    ]


def layers(names: Sequence[str]) -> dict[str, int]:
    """The layer of each parameter, from 0 at the bottom, by the order in which a module has them.

    A layer is a numbered block (``blocks.3``, or the child ``2`` of a ``Sequential``); numbers inside of a block do
    not count. What is before the first block (embeddings) is the bottom layer, what is after the last one (final norm,
    head) is the top layer, and what is between two of them belongs to the earlier one. ELECTRA and BEiT count alike.

    >>> list(layers(["embed.weight", "blocks.0.weight", "blocks.1.mlp.0.weight", "head.weight"]).values())
    [0, 1, 2, 3]
    >>> list(layers(["0.weight", "0.bias", "2.weight"]).values())
    [0, 0, 1]
    """
    blocks = [match and match[1] for match in map(_NUMBERED.match, names)]
    last = max((i for i, block in enumerate(blocks) if block), default=-1)
    level, here = 0, ""
    result: dict[str, int] = {}
    for i, name in enumerate(names):
        block = blocks[i] or (here if i < last else "top")
        if result and block != here:
            level += 1
        here = block
        result[name] = level
    return result


def _rest(rules: Rules, names: Sequence[str]) -> Callable[[str, int], Rule]:
    """What falls to a parameter, by name and number of dimensions, that no rule takes."""
    level = layers(names) if rules.layer_decay is not None else {}
    top = max(level.values(), default=0)
    if level and not top:
        must = f"must be null: layers are numbered blocks, such as blocks.3, and there are not two in {_some(names)}"
        raise ConfigError("param_groups.layer_decay", must, rules.layer_decay)

    def rest(name: str, ndim: int) -> Rule:
        spared = rules.no_decay and ndim <= 1
        weight_decay = 0.0 if spared else None
        if rules.layer_decay is None:
            return Rule(NO_DECAY if spared else DEFAULT, weight_decay=weight_decay)
        layer = f"layer_{level[name]:0{len(str(top))}d}"  # of one width, so that they sort
        scale = rules.layer_decay ** (top - level[name])
        return Rule(f"{layer}_{NO_DECAY}" if spared else layer, lr_scale=scale, weight_decay=weight_decay)

    return rest


def _takes_nothing(i: int, rule: Rule, everything: Mapping[str, nn.Parameter]) -> ConfigError:
    """Why a rule is left without parameters."""
    key = f"param_groups.rules[{i}]" + ("" if rule.pattern is None else ".pattern")
    taken = [name for name, parameter in everything.items() if rule.takes(name, parameter.ndim)]
    if not taken:
        must = f"must take a parameter: {rule.name} takes none of {_some(list(everything))}"
    elif any(everything[name].requires_grad for name in taken):
        must = f"must take a parameter: earlier rules have all that {rule.name} would take, {_some(taken)}"
    else:
        must = f"must take a parameter that is trained: {_some(taken)} is frozen"
    return ConfigError(key, must, rule.pattern if rule.pattern is not None else {"max_ndim": rule.max_ndim})


def _some(names: Sequence[str], n: int = 4) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
