"""A fused implementation that was chosen for the user, kept to what it can do in every state of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrkit.errors import ConfigError

__all__ = ["keep_fused", "may_fuse"]


def may_fuse(cls: type[Optimizer], arguments: Mapping[str, Any]) -> bool:
    """Whether ``keep_fused`` can keep it: not of SGD whose momentum is dampened, see there."""
    return not (issubclass(cls, torch.optim.SGD) and arguments.get("momentum") and arguments.get("dampening"))


def keep_fused(optimizer: Optimizer, asked: bool = False) -> None:
    """Before each step, make the optimizer's state such that fused can take it; or take it by plain loops.

    torch's fused kernels take dense gradients only, and that of SGD wants a momentum buffer of all parameters or of
    none: a parameter whose first gradient comes late would end the training. So such a one is given a buffer of zeros.
    Its first step is then the one that it would have taken without, ``momentum * 0 + gradient``, to the bit (but with
    dampening it would not be). Where a gradient is sparse, its group goes by loops from there on.

    Args:
        asked: whether the user has asked for it; then it is never undone.

    Raises (from ``optimizer.step``):
        ConfigError: it was asked for, and cannot be done.
    """
    settled: dict[int, int] = {}  # by group: its parameters, once all of them have had a dense gradient

    def ready() -> None:
        for group in optimizer.param_groups:
            if group.get("fused") and settled.get(id(group)) != len(group["params"]):
                given = [p for p in group["params"] if p.grad is not None]
                _make_ready(optimizer, group, given, asked)
                if len(given) == len(group["params"]):
                    settled[id(group)] = len(given)

    def before_step(_: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Lightning hands over a closure, which computes the gradients within the step.
        inner = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if inner is None:
            ready()
            return None

        def closure() -> Any:
            loss = inner()
            ready()
            return loss

        return args[:1], {**kwargs, "closure": closure}

    optimizer.register_step_pre_hook(before_step)
    optimizer.register_load_state_dict_post_hook(lambda _: settled.clear())


def _make_ready(optimizer: Optimizer, group: dict[str, Any], given: list[Tensor], asked: bool) -> None:
    """Let fused be able to take a step of a group, given the parameters that have a gradient; or let loops take it."""
    if any(p.grad is not None and p.grad.layout != torch.strided for p in given):
        if asked:
            raise ConfigError("optimizer.fused", "must not be true where gradients are sparse: leave it out")
        group["fused"] = group["foreach"] = False
    elif isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
        without = [p for p in given if optimizer.state[p].get("momentum_buffer") is None]
        if not 0 < len(without) < len(given):
            return
        if group["dampening"]:
            must = "must not be true where gradients come late and momentum is dampened: leave it out"
            raise ConfigError("optimizer.fused", must)
        for p in without:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
