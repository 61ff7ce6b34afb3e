"""The traits of optimizers, known without an import of their classes.

The keys of the table are full class paths, as in ``optimizer._target_``: a search for "adam" in the name would find
``AdamG`` too, which needs no learning rate. A class that is not in the table can train; only options that need its
traits refuse it (``batch_scaling=auto``, a curve of the momentum).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "FAMILIES",
    "OptimizerTraits",
    "finds_rate",
    "lr_warnings",
    "momentum_of",
    "option_name",
    "refuses_shards",
    "traits_of",
    "uses_whole_tensors",
]

Kind = Literal["sgd", "adaptive", "lr_free"]


@dataclass(frozen=True)
class OptimizerTraits:
    """The relation of an optimizer to its learning rate.

    Args:
        kind: the growth of the best rate with the batch size. ``sgd``: linear (Goyal et al. 2017, arXiv:1706.02677);
            ``adaptive``: as the square root, because the step is divided by the size of the gradient (Malladi et al.
            2022, arXiv:2205.10287); ``lr_free``: none, because the optimizer finds the rate itself.
        schedule_free: whether an average of the weights replaces a decaying rate (Defazio et al. 2024,
            arXiv:2405.15682); such an optimizer has ``train()`` and ``eval()`` modes.
        momentum: the option with the momentum: ``momentum``, or ``betas``, whose first member it is. ``None`` if there
            is no momentum, or if a change of it would break the method.
        one_rate: whether all groups must have the same rate.
        decoupled: the options with which a step shrinks a weight by exactly ``lr x weight_decay`` of it; empty: it
            always does; None: it never does, because of an L2 penalty or a trust ratio.
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
# The momentum of a schedule-free method sets the point between two sequences of weights at which the gradient is
# taken, and train() and eval() move the weights by it: it must not change.
_FREE_SGD = OptimizerTraits("sgd", schedule_free=True)
_FREE_ADAM = OptimizerTraits("adaptive", schedule_free=True)
# Its estimated distance is one number for the whole model, so it uses only the rate of the first group.
_PRODIGY = OptimizerTraits("lr_free", momentum="betas", one_rate=True)

# After some time it uses one final rate for all groups, and ignores their own rates.
_ONE_FINAL_RATE = OptimizerTraits("adaptive", momentum="betas", one_rate=True)

FAMILIES: dict[str, OptimizerTraits] = {
    # LBFGS is left out: it evaluates the loss many times in a step, and no rule for its rate and batch is known.
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

#: An update of one weight depends on others, by norms, means or products of matrices. Such an optimizer would take the
#: flat part of a tensor that FSDPStrategy gives to a process for the whole tensor.
_WHOLE_TENSORS = frozenset(
    (
        "torch.optim.Adafactor", "torch.optim.Muon", "lrkit.optim.lamb.Lamb", "lrkit.optim.muon.Muon",
        "pytorch_optimizer.AdaFactor", "pytorch_optimizer.CAME", "pytorch_optimizer.LARS", "pytorch_optimizer.Lamb",
        "pytorch_optimizer.Muon", "pytorch_optimizer.Prodigy", "pytorch_optimizer.Ranger", "pytorch_optimizer.SOAP",
    )
)  # fmt: skip
#: Their first step fails on sharded tensors that know their parts, as FSDP2 makes them (torch 2.13).
_NO_SHARDS = frozenset(
    (
        "torch.optim.Adafactor", "torch.optim.Muon", "torch.optim.Rprop", "pytorch_optimizer.AdaFactor",
        "pytorch_optimizer.CAME", "pytorch_optimizer.Lamb", "pytorch_optimizer.Prodigy",
        "pytorch_optimizer.SOAP",
    )
)  # fmt: skip


def traits_of(target: str) -> OptimizerTraits | None:
    """Return the traits of the class ``target``; ``None`` if it is unknown.

    >>> traits_of("torch.optim.AdamW").kind
    'adaptive'
    """
    return FAMILIES.get(target)


def finds_rate(target: str) -> bool:
    """Return whether an optimizer finds the learning rate itself.

    >>> finds_rate("pytorch_optimizer.Prodigy"), finds_rate("torch.optim.AdamW")
    (True, False)
    """
    known = traits_of(target)
    return known is not None and known.kind == "lr_free"


def uses_whole_tensors(target: str) -> bool:
    """Return whether an optimizer computes with whole tensors, so that it cannot train a flat part of them."""
    return target in _WHOLE_TENSORS


def refuses_shards(target: str) -> bool:
    """Return whether an optimizer fails on tensors that are divided among processes (``DTensor``).

    >>> refuses_shards("torch.optim.Adafactor"), refuses_shards("torch.optim.AdamW")
    (True, False)
    """
    return target in _NO_SHARDS


def option_name(target: str) -> str:
    """Return the name of a class as an option of ``conf/optimizer``.

    >>> option_name("pytorch_optimizer.AdaBound"), option_name("schedulefree.SGDScheduleFree")
    ('adabound', 'schedule_free_sgd')
    """
    name = target.rpartition(".")[2]
    core = name.removesuffix("ScheduleFree")
    return ("" if core == name else "schedule_free_") + core.lower()


def lr_warnings(target: str, lr: float, decays: bool) -> list[str]:
    """Return warnings about a learning rate that contradicts the optimizer, a line each.

    Args:
        target: class path of the optimizer.
        lr: the base learning rate.
        decays: whether the curve ends lower than its peak.

    >>> lr_warnings("torch.optim.AdamW", 1e-3, decays=True)
    []
    """
    known, name = traits_of(target), target.rpartition(".")[2]
    found = []
    if known and known.schedule_free and decays:
        found.append(
            f"{name} replaces a decaying learning rate by an average of the weights; this run has both:"
            " choose schedule=constant"
        )
    if finds_rate(target) and lr != 1:
        found.append(
            f"{name} finds the learning rate itself, and optimizer.lr multiplies it: leave it at 1. Received: {lr:g}"
        )
    return found


def momentum_of(target: str, options: Mapping[str, Any]) -> float | None:
    """Return an optimizer's momentum: its option ``momentum``, or the first of ``betas``; None if it has none."""
    known = traits_of(target)
    name = known.momentum if known else next((n for n in ("momentum", "betas") if n in options), None)
    value = options.get(name) if name else None
    if name == "betas":
        value = value[0] if isinstance(value, list | tuple) and value else 0.9  # the default of each variant of Adam
    return float(value) if isinstance(value, int | float) else None
