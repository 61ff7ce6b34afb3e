"""The options of optimizers: the names of each class, the range of each option, and their contradictions.

This file records the signatures of the shipped optimizers, so that `lrkit show` refuses the same values as a training,
without torch. ``tests/config/test_optimizer_options.py`` compares them with the installed classes. An option has the
type of its default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.validation import is_list, is_number
from lrkit.planning.group_rules import CURVE_PARTS, Rules
from lrkit.planning.optimizer_traits import traits_of

__all__ = ["IMPLEMENTATION", "SIGNATURES", "check", "check_groups", "check_options"]

#: Options that choose the implementation of an optimizer, and do not change its result.
IMPLEMENTATION = ("fused", "foreach")

_TORCH = {"foreach": None, "maximize": False}
_FUSED = {**_TORCH, "differentiable": False, "fused": None}
_CAPTURABLE = {**_TORCH, "differentiable": False, "capturable": False}
_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
_DECOUPLED = {"weight_decouple": True, "fixed_decay": False}
_FREE = {"weight_decay": 0.0, "warmup_steps": 0, "r": 0.0, "weight_lr_power": 2.0, "foreach": True}

_MUON = "lrkit.optim.muon.Muon"

#: Class path -> option -> default, without the parameters and the rate, for each class in ``conf/optimizer``.
SIGNATURES: dict[str, dict[str, Any]] = {
    "torch.optim.SGD": {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, **_FUSED},
    "torch.optim.Adam": {
        **_ADAM, "amsgrad": False, **_FUSED, "capturable": False, "decoupled_weight_decay": False,
    },
    "torch.optim.AdamW": {**_ADAM, "weight_decay": 0.01, "amsgrad": False, **_FUSED, "capturable": False},
    "torch.optim.NAdam": {**_ADAM, "momentum_decay": 4e-3, "decoupled_weight_decay": False, **_CAPTURABLE},
    "torch.optim.RAdam": {**_ADAM, "decoupled_weight_decay": False, **_CAPTURABLE},
    "torch.optim.RMSprop": {
        "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False, **_CAPTURABLE,
    },
    "torch.optim.Adagrad": {
        "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10, **_FUSED,
    },
    "torch.optim.Adafactor": {"beta2_decay": -0.8, "eps": (None, 1e-3), "d": 1.0, "weight_decay": 0.0, **_TORCH},
    "lrkit.optim.adabound.AdaBound": {**_ADAM, "final_lr": 0.1, "final_lr_at": 1e-3, "gamma": 1e-3},
    "lrkit.optim.lamb.Lamb": {**_ADAM, "eps": 1e-6, "weight_decay": 0.01},
    _MUON: {
        "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "ns_steps": 5, "adamw_betas": (0.9, 0.95),
        "adamw_eps": 1e-8,
    },
    "pytorch_optimizer.LARS": {
        "weight_decay": 0.0, "momentum": 0.9, "dampening": 0.0, "trust_coefficient": 1e-3, "nesterov": False, **_TORCH,
    },
    "pytorch_optimizer.Lion": {"betas": (0.9, 0.99), "weight_decay": 0.0, **_DECOUPLED, **_TORCH},
    "pytorch_optimizer.Prodigy": {
        **_ADAM, "beta3": None, "d0": 1e-6, "d_coef": 1.0, "growth_rate": math.inf, **_DECOUPLED,
        "bias_correction": False, "safeguard_warmup": False, **_TORCH,
    },
    "pytorch_optimizer.Ranger": {
        "betas": (0.95, 0.999), "alpha": 0.5, "k": 6, "n_sma_threshold": 5, "degenerated_to_sgd": False,
        "weight_decay": 0.0, **_DECOUPLED, "use_gc": True, "gc_conv_only": False, "eps": 1e-5, **_TORCH,
    },
    "schedulefree.AdamWScheduleFree": {"betas": (0.9, 0.999), "eps": 1e-8, **_FREE},
    "schedulefree.SGDScheduleFree": {"momentum": 0.9, **_FREE},
}  # fmt: skip

#: The range of an option, for every optimizer. Options without a range are checked for their type, then by the class.
_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    **dict.fromkeys(("betas", "adamw_betas", "momentum", "dampening", "rho", "beta3"),
                    (" in [0, 1)", lambda x: 0 <= x < 1)),
    **dict.fromkeys(("weight_decay", "lr_decay", "momentum_decay", "initial_accumulator_value", "weight_lr_power", "r"),
                    (" >= 0", lambda x: 0 <= x < math.inf)),
    **dict.fromkeys(("eps", "adamw_eps", "d0", "d_coef", "final_lr", "final_lr_at", "gamma", "trust_coefficient"),
                    (" > 0", lambda x: 0 < x < math.inf)),
    **dict.fromkeys(("k", "ns_steps"), (" that is whole and >= 1", lambda x: isinstance(x, int) and x >= 1)),
    "n_sma_threshold": (" that is whole and >= 0", lambda x: isinstance(x, int) and x >= 0),
    "alpha": (" in [0, 1]", lambda x: 0 <= x <= 1),
    "d": (" >= 1", lambda x: 1 <= x < math.inf),
    "growth_rate": (" >= 1", lambda x: x >= 1),
    "beta2_decay": (" <= 0", lambda x: -math.inf < x <= 0),
}  # fmt: skip


def check(node: Mapping[str, Any]) -> None:
    """Refuse the options of a node ``optimizer`` that its class refuses, or accepts without an effect.

    A class without a recorded signature is not checked here.

    Raises:
        ConfigError: with the key of the option.

    >>> check({"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 1})
    Traceback (most recent call last):
    lrkit.base.errors.ConfigError: optimizer.momentum must be a number in [0, 1). Received: 1
    """
    target = str(node.get("_target_"))
    if target in SIGNATURES:
        options = {name: value for name, value in node.items() if name not in ("_target_", "lr")}
        check_options(target, options, SIGNATURES[target])


def check_options(target: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an optimizer, checked, with tuples in place of lists.

    Args:
        target: class path of the optimizer.
        options: the options, without the parameters and the rate.
        defaults: the defaults of all options of the class.

    Raises:
        ConfigError: with the key of the option, such as ``optimizer.betas``.
    """
    name = target.rpartition(".")[2]
    for each in options:
        if each not in defaults:
            must = f"is unknown to {name}. {did_you_mean(str(each), [*defaults, 'lr'])}"
            raise ConfigError(f"optimizer.{each}", must)
    if options.get("warmup_steps"):  # of schedulefree: it would multiply the rate outside of the plan
        raise ConfigError("optimizer.warmup_steps", "must stay 0: choose warmup=linear", options["warmup_steps"])
    checked = {each: _check_value(each, value, defaults[each]) for each, value in options.items()}
    _check_together(target, {**defaults, **checked})
    return checked


def check_groups(target: str, rates: Sequence[tuple[str, float, float | None]], rules: Rules = Rules()) -> None:  # noqa: B008
    """Refuse options of groups that the class of the optimizer accepts without an effect.

    Args:
        target: class path of the optimizer.
        rates: name, factor of the rate and weight decay of each group, by
            ``lrkit.planning.group_rules.group_rates``.
        rules: the rules of the groups.

    Raises:
        ConfigError: with the key of the rule.
    """
    known, name = traits_of(target), target.rpartition(".")[2]
    scales = {group: scale for group, scale, _ in rates}
    if known and known.one_rate:
        if len(set(scales.values())) > 1:
            must = f"must give every group the same lr_scale: {name} has one rate for all groups"
            raise ConfigError("param_groups", must, scales)
        if rules.layer_decay not in (None, 1):
            must = f"must be null: {name} has one rate for all layers"
            raise ConfigError("param_groups.layer_decay", must, rules.layer_decay)
    for i, rule in enumerate(rules.rules):
        if rule.adamw and target != _MUON:
            must = f"needs optimizer=muon: {name} updates matrices and vectors by the same rule"
            raise ConfigError(f"param_groups.rules[{i}].adamw", must)
        for part in CURVE_PARTS:
            if getattr(rule, part) is None:
                continue
            key = f"param_groups.rules[{i}].{part}"
            if known and known.one_rate:
                raise ConfigError(key, f"must not be set: {name} has one rate for all groups")
            if known and known.schedule_free and part in ("schedule", "cooldown"):
                must = f"must not be set: {name} replaces a schedule by an average of the weights"
                raise ConfigError(key, must)
    own = [group for group, _, decay in rates if decay]
    if own and target in SIGNATURES and "weight_decay" not in SIGNATURES[target]:
        raise ConfigError("param_groups", f"must set no weight_decay: {name} has none", own)


def _check_value(name: str, value: Any, default: Any) -> Any:
    """Return ``value``; refuse another type than that of the default, and a value out of the option's range."""
    limits, holds = _RANGES.get(name, ("", lambda x: True))
    many = is_list(value)
    if isinstance(default, tuple):
        # A member may be None if that of the default is: eps of Adafactor.
        fine = many and len(value) == len(default) and all(
            (x is None and y is None) or (is_number(x) and holds(x)) for x, y in zip(value, default, strict=True)
        )  # fmt: skip
        must = f"be {({2: 'two', 3: 'three'}).get(len(default), len(default))} numbers{limits}"
    elif value is None and default is None:
        fine, must = True, ""
    elif isinstance(default, bool) or name in IMPLEMENTATION:
        fine, must = isinstance(value, bool), "be true or false"
    elif isinstance(default, (int, float)) or name in _RANGES:
        fine, must = is_number(value) and holds(value), f"be a number{limits}"
    else:
        fine, must = True, ""
    if not fine:
        raise ConfigError(f"optimizer.{name}", f"must {must}", value)
    return tuple(None if x is None else float(x) for x in value) if many else value  # torch refuses whole numbers here


def _check_together(target: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the class refuses together, or that have no effect together."""
    if target not in SIGNATURES:
        return
    name, given = target.rpartition(".")[2], options.get
    if given("fused") and given("foreach"):
        raise ConfigError("optimizer.fused", "and optimizer.foreach choose two implementations: set only one of them")
    if given("differentiable"):
        must = "must be false: a training takes no gradient through the optimizer's step"
        raise ConfigError("optimizer.differentiable", must, True)
    still = given("momentum") == 0
    if target in ("torch.optim.SGD", "pytorch_optimizer.LARS"):
        for option in ("nesterov", "dampening"):
            if given(option) and still:
                must = f"needs optimizer.momentum > 0, which is 0 for {name}"
                raise ConfigError(f"optimizer.{option}", must, given(option))
    if target == "torch.optim.SGD" and given("nesterov") and given("dampening"):
        raise ConfigError("optimizer.nesterov", "needs optimizer.dampening=0", given("dampening"))
    if given("gc_conv_only") and not given("use_gc"):
        raise ConfigError("optimizer.gc_conv_only", "needs optimizer.use_gc=true", True)
    # schedulefree divides by this number between its two sequences of weights.
    if target.startswith("schedulefree."):
        option = "momentum" if "momentum" in options else "betas"
        if options[option] == 0 or (option == "betas" and options[option][0] == 0):
            raise ConfigError(f"optimizer.{option}", f"needs a momentum > 0: {name} divides by it", options[option])
