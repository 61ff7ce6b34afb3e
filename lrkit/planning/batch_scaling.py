"""Batch-size scaling: the factor of the base learning rate for an effective batch.

    lr = base_lr * rule(batch / base_batch_size)

With a batch-size schedule the factor is that of each step's own batch.

A pure function of two numbers: every product of batch per device, devices, nodes and accumulation with the same
effective batch gives the same rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.validation import whole
from lrkit.planning.optimizer_traits import traits_of

__all__ = ["RULES", "BatchScale", "batch_scale"]

#: Rule -> the factor of the learning rate for k = effective batch / base batch.
RULES: dict[str, Callable[[float], float]] = {
    "none": lambda k: 1.0,
    "linear": lambda k: k,  # SGD: Goyal et al. 2017, arXiv:1706.02677, section 2.1
    "sqrt": math.sqrt,  # Adam and similar: Malladi et al. 2022, arXiv:2205.10287
}

_RULE_OF_KIND = {"sgd": "linear", "adaptive": "sqrt", "lr_free": "none"}


@dataclass(frozen=True)
class BatchScale:
    """The factor ``batch_scale`` of the learning rate, and its origin."""

    rule: str = "none"
    factor: float = 1.0
    batch: int | None = None
    base: int | None = None

    def of_batch(self, batch: int) -> float:
        """The factor for another batch.

        >>> batch_scale("sqrt", 256, 1024).of_batch(4096)
        4.0
        """
        return 1.0 if self.base is None else RULES[self.rule](batch / self.base)

    def __str__(self) -> str:
        if self.rule == "none":
            return "1 (no batch-size scaling)"
        return f"{self.factor:g} ({self.rule}: batch {self.batch} / base {self.base})"


def batch_scale(rule: str, base: int | None, batch: int | None, optimizer: str = "") -> BatchScale:
    """Apply a rule.

    Args:
        rule: ``none``, ``linear``, ``sqrt``, or ``auto``: the rule for the kind of the optimizer.
        base: the batch size at which the factor is 1.
        batch: samples in one optimizer step.
        optimizer: class path of the optimizer; only ``auto`` reads it.

    >>> str(batch_scale("linear", 256, 1024))
    '4 (linear: batch 1024 / base 256)'
    >>> batch_scale("auto", 256, 1024, "torch.optim.AdamW").factor
    2.0
    """
    if rule not in (*RULES, "auto"):
        raise ConfigError("batch_scaling.rule", f"is not a rule. {did_you_mean(str(rule), (*RULES, 'auto'))}", rule)
    if rule == "auto":
        known = traits_of(optimizer)
        if known is None:
            raise ConfigError(
                "batch_scaling",
                f"must not be auto: no rule is known for {optimizer}; choose batch_scaling=linear (as for SGD), sqrt"
                " (as for Adam) or none",
            )
        rule = _RULE_OF_KIND[known.kind]
    if rule == "none":
        return BatchScale()
    whole(1).check("batch_scaling.base_batch_size", base)
    assert isinstance(base, int)
    if batch is None:
        raise ConfigError(
            "batch_scaling", "needs the batch size, which is not known: set data.batch_size or horizon.batch_size"
        )
    return BatchScale(rule, RULES[rule](batch / base), batch, base)
