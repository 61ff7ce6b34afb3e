"""The traits of optimizers, known without importing them.

The table is keyed by the full class path, as written under ``optimizer._target_``: a test for "adam" inside a name
would take ``AdamG``, which needs no learning rate, for one of Adam's kind. A class that is not in the table can be
trained with all the same; only what must know it (``batch_scaling=auto``, a curve for the momentum) refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FAMILIES", "OptimizerTraits", "finds_rate", "lr_warnings", "momentum_of", "option_name", "traits_of"]

Kind = Literal["sgd", "adaptive", "lr_free"]


@dataclass(frozen=True)
class OptimizerTraits:
    """The relation of an optimizer to its learning rate.

    Args:
        kind: what a larger batch does to the best rate. ``sgd``: grows linearly (Goyal et al. 2017,
            arXiv:1706.02677); ``adaptive``: grows as its square root (Malladi et al. 2022, arXiv:2205.10287), the
            gradient's size being divided out; ``lr_free``: nothing, for the optimizer finds the rate itself.
        schedule_free: whether an average of the weights stands in for a decaying rate (Defazio et al. 2024,
            arXiv:2405.15682); it has ``train()`` and ``eval()`` modes.
        momentum: the hyper-parameter that plays the momentum: ``momentum``, or ``betas``, of which it is the first
            entry. ``None`` where there is none, or where moving it would break the method.
        one_rate: whether the groups cannot have rates of their own.
        decoupled: the options, and their values, with which a step shrinks a weight by exactly ``lr x weight_decay``
            of it; empty where it always does, and None where it never does: an L2 penalty, or within a trust ratio.
    """

    kind: Kind
    schedule_free: bool = False
    momentum: str | None = None
    one_rate: bool = False
    decoupled: tuple[tuple[str, bool], ...] | None = None


_BY_FLAG = (("decoupled_weight_decay", True),)
_BY_TWO_FLAGS = (("weight_decouple", True), ("fixed_decay", False))
_HEAVY_BALL = OptimizerTraits("sgd", momentum="momentum")
_ADAM = OptimizerTraits("adaptive", momentum="betas")
_ADAM_BY_FLAG = OptimizerTraits("adaptive", momentum="betas", decoupled=_BY_FLAG)
_ADAM_BY_TWO_FLAGS = OptimizerTraits("adaptive", momentum="betas", decoupled=_BY_TWO_FLAGS)
_MATRIX = OptimizerTraits("adaptive", momentum="momentum", decoupled=())
_NO_MOMENTUM = OptimizerTraits("adaptive")
# The momentum of a schedule-free method is the point between two sequences of weights at which the gradient is
# taken, and train() and eval() move the weights by it: it must stay what it was.
_FREE_SGD = OptimizerTraits("sgd", schedule_free=True)
_FREE_ADAM = OptimizerTraits("adaptive", schedule_free=True)
# The distance that it estimates is one number for the whole model, and so is the rate: the first group's.
_PRODIGY = OptimizerTraits("lr_free", momentum="betas", one_rate=True)

# Its final rate, which is all that counts after a while, is one for all groups, whatever their own rates.
_ONE_FINAL_RATE = OptimizerTraits("adaptive", momentum="betas", one_rate=True)

FAMILIES: dict[str, OptimizerTraits] = {
    # LBFGS is left out: how its rate depends on the batch is not known, and it evaluates the loss many times a step.
    "torch.optim.ASGD": OptimizerTraits("sgd"),
    "torch.optim.Adadelta": _NO_MOMENTUM,
    "torch.optim.Adafactor": OptimizerTraits("adaptive", decoupled=()),
    "torch.optim.Adagrad": _NO_MOMENTUM,
    "torch.optim.Adam": _ADAM_BY_FLAG,
    "torch.optim.AdamW": OptimizerTraits("adaptive", momentum="betas", decoupled=()),
    "torch.optim.Adamax": _ADAM,
    "torch.optim.Muon": _MATRIX,
    "torch.optim.NAdam": _ADAM_BY_FLAG,
    "torch.optim.RAdam": _ADAM_BY_FLAG,
    "torch.optim.RMSprop": OptimizerTraits("adaptive", momentum="momentum"),
    "torch.optim.Rprop": _NO_MOMENTUM,
    "torch.optim.SGD": _HEAVY_BALL,
    "torch.optim.SparseAdam": _ADAM,
    "lrkit.optim.adabound.AdaBound": _ADAM,
    "lrkit.optim.lamb.Lamb": _ADAM,
    "lrkit.optim.muon.Muon": _MATRIX,
    "pytorch_optimizer.AdaBelief": _ADAM,
    "pytorch_optimizer.AdaBound": _ONE_FINAL_RATE,
    "pytorch_optimizer.AdaFactor": _ADAM,
    "pytorch_optimizer.Adan": _ADAM,
    "pytorch_optimizer.AdEMAMix": _ADAM,
    "pytorch_optimizer.CAME": _ADAM,
    "pytorch_optimizer.LARS": _HEAVY_BALL,
    "pytorch_optimizer.Lamb": _ADAM,
    "pytorch_optimizer.Lion": _ADAM_BY_TWO_FLAGS,
    "pytorch_optimizer.Muon": OptimizerTraits("adaptive", momentum="momentum"),
    "pytorch_optimizer.Prodigy": _PRODIGY,
    "pytorch_optimizer.RAdam": _ADAM,
    "pytorch_optimizer.Ranger": _ADAM_BY_TWO_FLAGS,
    "pytorch_optimizer.SOAP": _ADAM,
    "pytorch_optimizer.ScheduleFreeAdamW": _FREE_ADAM,
    "pytorch_optimizer.ScheduleFreeRAdam": _FREE_ADAM,
    "pytorch_optimizer.ScheduleFreeSGD": _FREE_SGD,
    "schedulefree.AdamWScheduleFree": _FREE_ADAM,
    "schedulefree.RAdamScheduleFree": _FREE_ADAM,
    "schedulefree.SGDScheduleFree": _FREE_SGD,
}


def traits_of(target: str) -> OptimizerTraits | None:
    """The traits of the class ``target``; ``None`` if it is unknown.

    >>> traits_of("torch.optim.AdamW").kind
    'adaptive'
    """
    return FAMILIES.get(target)


def finds_rate(target: str) -> bool:
    """Whether an optimizer finds the learning rate itself.

    >>> finds_rate("pytorch_optimizer.Prodigy"), finds_rate("torch.optim.AdamW")
    (True, False)
    """
    known = traits_of(target)
    return known is not None and known.kind == "lr_free"


def option_name(target: str) -> str:
    """The name under ``conf/optimizer`` that a class has or would have.

    >>> option_name("pytorch_optimizer.AdaBound"), option_name("schedulefree.SGDScheduleFree")
    ('adabound', 'schedule_free_sgd')
    """
    name = target.rpartition(".")[2]
    core = name.removesuffix("ScheduleFree")
    return ("" if core == name else "schedule_free_") + core.lower()


def lr_warnings(target: str, lr: float, decays: bool) -> list[str]:
    """Warnings about an optimizer whose learning rate makes little sense, a line each.

    Args:
        target: the class path.
        lr: the base learning rate.
        decays: whether the curve ends lower than its peak.

    >>> lr_warnings("torch.optim.AdamW", 1e-3, decays=True)
    []
    """
    known, name = traits_of(target), target.rpartition(".")[2]
    found = []
    if known and known.schedule_free and decays:
        found.append(
            f"{name} replaces a decaying learning rate by an average of the weights, and would now get both:"
            " choose schedule=constant"
        )
    if finds_rate(target) and lr != 1:
        found.append(
            f"{name} finds the learning rate itself, and optimizer.lr multiplies it: leave it at 1. Received: {lr:g}"
        )
    return found


def momentum_of(target: str, options: Mapping[str, Any]) -> float | None:
    """An optimizer's momentum: its option ``momentum``, or the first of ``betas``; None where it has none."""
    known = traits_of(target)
    name = known.momentum if known else next((n for n in ("momentum", "betas") if n in options), None)
    value = options.get(name) if name else None
    if name == "betas":
        value = value[0] if isinstance(value, list | tuple) and value else 0.9  # every Adam's own default
    return float(value) if isinstance(value, int | float) else None
