"""The rules for the weight decay that the optimizer gets.

An optimizer with decoupled weight decay shrinks each weight by ``lr[group, t] x weight_decay`` of it in a step:

    rule           a step shrinks a weight by                the optimizer gets
    coupled        lr[group, t] x weight_decay               weight_decay
    independent    weight_decay x curve(t) x gain(t)         weight_decay / base(group)
    timescale      1 / timescale x curve(t) x gain(t)        1 / (timescale x base(group))

where ``base(group) = base_lr x batch_scale x group_scale[group]``, the constant part of ``lr[group, t]``. The divisor
is never the learning rate of a step: a step at a learning rate of 0 shrinks no weight.

Sources: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, where only the schedule multiplier scales the decay;
Wang and Aitchison 2024, arXiv:2405.13698: under AdamW the weights are an average of updates, with a timescale of
``1 / (lr x weight_decay)`` steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.planning.optimizer_traits import FAMILIES, option_name, traits_of
from lrkit.schedules.durations import Duration, Length
from lrkit.schedules.horizon import Horizon

__all__ = ["COUPLED", "RULES", "WeightDecayRule", "check_decoupled", "resolve_rule"]

KEY = "weight_decay_rule"
RULES = ("coupled", "independent", "timescale")
_STRONG = 1e-3  # share of each weight in a step: it halves a weight in 700 steps


@dataclass(frozen=True)
class WeightDecayRule:
    """A rule, and the optimizer steps of ``timescale``.

    >>> rule = WeightDecayRule("timescale", 1000)
    >>> rule.handed(0.01, 0.001), rule.handed(0.0, 0.001), WeightDecayRule().handed(0.01, 0.001)
    (1.0, 0.0, 0.01)
    """

    rule: str = "coupled"
    timescale: int | None = None

    def a_step(self, weight_decay: float | None) -> float:
        """Return the share by which a step shrinks a weight if curve and gain are 1; 0 without weight decay.

        ``weight_decay``: that of the group; None: the group does not set it, and the timescale does.
        """
        if self.timescale is None:
            return weight_decay or 0.0
        return 0.0 if weight_decay == 0.0 else 1 / self.timescale

    def handed(self, weight_decay: float | None, base: float) -> float:
        """Return the weight decay that the optimizer gets for a group whose rate has the constant part ``base``."""
        if self.rule == "coupled":
            return weight_decay or 0.0
        return self.a_step(weight_decay) / base if base else 0.0  # a group at a rate of 0 is frozen

    def line(self, weight_decay: float) -> str:
        """Return the rule with its number, as a line; empty for ``coupled``."""
        said = {
            "independent": f"{weight_decay:g} x curve(t) of each weight a step, whatever the base learning rate",
            "timescale": f"curve(t) / {self.timescale} of each weight a step: a timescale of {self.timescale} steps;"
            " optimizer.weight_decay is not used",
        }
        return f"weight decay: {said[self.rule]}" if self.rule in said else ""

    def warnings(self, weight_decay: float, base: float) -> list[str]:
        """Return a warning if the rule shrinks the weights much more than ``coupled`` does."""
        if self.rule != "independent" or weight_decay < _STRONG:
            return []
        return [
            f"weight_decay_rule=independent shrinks each weight by {weight_decay:g} of it in a step, coupled by"
            f" {weight_decay * base:.3g}: optimizer.weight_decay is usually as small under independent"
        ]


COUPLED = WeightDecayRule()


def resolve_rule(rule: str, timescale: Length | None, horizon: Horizon) -> WeightDecayRule:
    """Return the rule by its name, with its timescale in optimizer steps.

    Raises:
        ConfigError: an unknown name, or a timescale that is missing, without effect, or too short.
    """
    if rule not in RULES:
        raise ConfigError(f"{KEY}.rule", f"is not a rule. {did_you_mean(str(rule), RULES)}", rule)
    key = f"{KEY}.timescale"
    if rule != "timescale":
        if timescale is not None:
            raise ConfigError(key, f"has no effect under {KEY}={rule}: choose {KEY}=timescale", timescale)
        return WeightDecayRule(rule)
    if timescale is None:
        raise ConfigError(key, f"must be set with {KEY}=timescale: a duration, such as 5ep")
    steps = Duration.parse(timescale, key).steps(horizon, key)
    if steps < 2:
        raise ConfigError(key, "must be longer than one optimizer step", timescale)
    return WeightDecayRule(rule, steps)


def check_decoupled(
    rule: WeightDecayRule, target: str, options: Mapping[str, Any], groups: Sequence[tuple[str, float | None]]
) -> None:
    """Refuse a rule for an optimizer without decoupled weight decay.

    Args:
        rule: the rule.
        target: class path of the optimizer.
        options: the options of the optimizer, with the defaults of the class.
        groups: name and weight decay of each parameter group with its own weight decay.

    Raises:
        ConfigError: with the rule, and the optimizer or the parameter group.
    """
    if rule.rule == "coupled":
        return
    key, name, known = f"{KEY}={rule.rule}", target.rpartition(".")[2], traits_of(target)
    if known is None or known.decoupled is None:
        able = sorted({option_name(path) for path, traits in FAMILIES.items() if traits.decoupled is not None})
        must = f"needs an optimizer with decoupled weight decay ({', '.join(able)}), and {name} has none"
        raise ConfigError(key, must)
    for option, value in known.decoupled:
        if options.get(option) is not value:
            must = f"needs decoupled weight decay: set optimizer.{option}={str(value).lower()}, or another optimizer"
            raise ConfigError(key, must)
    for group, weight_decay in groups:
        if rule.rule == "timescale" and weight_decay:
            must = f"and the weight decay {weight_decay:g} of the group {group} cannot be used together"
            raise ConfigError(key, f"{must}: only 0, for a group without weight decay")
    own = [options.get("weight_decay") or 0.0, *(weight_decay for _, weight_decay in groups if weight_decay)]
    if rule.rule == "independent" and not any(own):
        raise ConfigError(key, f"needs weight decay: optimizer.weight_decay is 0 for {name}")
    if rule.rule == "independent" and max(own) >= 1.0:
        raise ConfigError(
            "optimizer.weight_decay", f"must be below 1 with {key}: 1 removes the whole weight in a step", max(own)
        )
