"""A fused implementation that was chosen for the user, kept to what it can do in every state of a training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.optim import SGD, Optimizer

from lrkit.base.errors import ConfigError

__all__ = ["ParameterKind", "fused_refusal", "keep_fused", "may_fuse"]


class ParameterKind(NamedTuple):
    """What decides whether a parameter can be updated by some implementation.

    Args:
        layout: of its gradient; ``torch.strided`` is the dense one.
    """

    device: torch.device
    dtype: torch.dtype
    layout: torch.layout = torch.strided

    def __str__(self) -> str:
        sparse = "" if self.layout is torch.strided else "sparse gradients of "
        return f"{sparse}{self.dtype} on {self.device}"


def may_fuse(cls: type[Optimizer], arguments: Mapping[str, Any]) -> bool:
    """Whether ``keep_fused`` can keep it: not of SGD whose momentum is dampened, see there."""
    return not (issubclass(cls, SGD) and arguments.get("momentum") and arguments.get("dampening"))


def fused_refusal(
    cls: type[Optimizer], arguments: Mapping[str, Any], kinds: Collection[ParameterKind], elements: int = 1
) -> Exception | None:
    """What a step on parameters of these kinds raises, found out by taking it on one number of each; None if nothing.

    torch has no public list of what a fused kernel can do, and its constructors accept ``fused=True`` for devices on
    which the first step raises.
    """
    probes = []
    for kind in kinds:
        probe = torch.zeros(elements, device=kind.device, dtype=kind.dtype)
        probe.grad = torch.zeros_like(probe)
        if kind.layout is not torch.strided:
            probe.grad = probe.grad.to_sparse()
        probes.append(probe)
    try:
        cls(probes, **arguments).step()
    except Exception as error:  # whatever it is: of other arguments, say, it will be said by the real one
        return error
    return None


def keep_fused(optimizer: Optimizer, arguments: Mapping[str, Any], asked: bool = False) -> None:
    """Before each step, make the optimizer's state such that fused can take it; or take it by plain loops.

    torch's fused kernels take dense gradients only, and not on each device and in each dtype, of which a group that
    joins may bring another. Where a gradient is such, its group goes by loops from there on, also under the scaler of
    16-bit gradients, which leaves the scaling to a fused optimizer.

    That of SGD wants a momentum buffer of all parameters or of none: a parameter whose first gradient comes late would
    end the training. And of none it makes buffers in memory that stays unwritten if the scaler leaves out this very
    step, as it does when the first scale is too large: the next step then moves by whatever was there. So each
    parameter is given a buffer of zeros with its first gradient. Its first step is then the one that it would have
    taken without, ``momentum * 0 + gradient``, to the bit (but with dampening it would not be).

    Args:
        arguments: what the optimizer was made with.
        asked: whether the user has asked for it; then it is never undone.

    Raises (from ``optimizer.step``):
        ConfigError: it was asked for, and cannot be done; or loops cannot do it either.
    """
    keeper = _Keeper(optimizer, arguments, asked)
    optimizer.register_step_pre_hook(keeper.before_step)
    optimizer.register_step_post_hook(keeper.after_step)
    optimizer.register_load_state_dict_post_hook(keeper.forget)


class _Keeper:
    def __init__(self, optimizer: Optimizer, arguments: Mapping[str, Any], asked: bool) -> None:
        self.arguments, self.asked = arguments, asked
        #: By group: which of its parameters had no gradient when it was made ready last. Where that is none, the group
        #: is settled, and only the number of its parameters is looked at.
        self.without: dict[int, list[bool]] = {}
        self.settled: dict[int, int] = {}
        self.able = {ParameterKind(p.device, p.dtype) for group in optimizer.param_groups for p in group["params"]}
        self.put_back: list[Callable[[], Any]] = []

    def forget(self, _: Optimizer) -> None:
        self.without.clear()
        self.settled.clear()

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_compiling():
            return None  # a compiler makes kernels of its own
        # Lightning hands over a closure, which computes the gradients within the step.
        inner = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if inner is None:
            self.make_ready(optimizer)
            return None

        def closure() -> Any:
            loss = inner()
            self.make_ready(optimizer)
            return loss

        return args[:1], {**kwargs, "closure": closure}

    def after_step(self, *_: Any) -> None:
        while self.put_back:
            self.put_back.pop()()

    def make_ready(self, optimizer: Optimizer) -> None:
        loops = False
        for group in optimizer.param_groups:
            if group.get("fused") and self.settled.get(id(group)) != len(group["params"]):
                without = [p.grad is None for p in group["params"]]
                if without != self.without.get(id(group)):
                    self.make_group_ready(optimizer, group, _with_gradient(group["params"]))
                    self.without[id(group)] = without
                if not any(without):
                    self.settled[id(group)] = len(without)
            loops = loops or not group.get("fused")
        if loops and getattr(optimizer, "found_inf", None) is not None:
            self.unscale(optimizer)

    def make_group_ready(self, optimizer: Optimizer, group: dict[str, Any], given: list[Any]) -> None:
        """Let fused be able to take a step of a group, given the parameters that have a gradient; or let loops."""
        new = {ParameterKind(p.device, p.dtype, p.grad.layout) for p in given} - self.able
        if new and fused_refusal(type(optimizer), self.arguments, new) is None:
            self.able |= new
        elif new:
            name, what = type(optimizer).__name__, ", ".join(sorted(map(str, new)))
            plain = {**self.arguments, "fused": False, "foreach": False}
            if (error := fused_refusal(type(optimizer), plain, new)) is not None:
                raise ConfigError("optimizer", f"cannot train {what}: {error}".rstrip("."))
            if self.asked:
                raise ConfigError("optimizer.fused", f"must not be true: {name} cannot do it for {what}; leave it out")
            group["fused"] = group["foreach"] = False
        if group["fused"] and isinstance(optimizer, SGD) and group["momentum"]:
            self.begin(optimizer, group, given)

    @staticmethod
    def begin(optimizer: Optimizer, group: Mapping[str, Any], given: list[Any]) -> None:
        without = [p for p in given if optimizer.state[p].get("momentum_buffer") is None]
        if not group["dampening"]:
            for p in without:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        elif without and (len(without) < len(given) or getattr(optimizer, "found_inf", None) is not None):
            must = "must not be true where gradients come late or scaled and momentum is dampened: leave it out"
            raise ConfigError("optimizer.fused", must)

    def unscale(self, optimizer: Any) -> None:
        """What ``GradScaler`` leaves to a fused optimizer: divide by the scale; where it was too large, take no step.

        For this step all groups go by loops, because the scale is one for them all.
        """
        scale, found_inf = optimizer.grad_scale, optimizer.found_inf
        optimizer.grad_scale = optimizer.found_inf = None
        self.put_back.append(partial(vars(optimizer).update, grad_scale=scale, found_inf=found_inf))
        too_large = bool(found_inf)
        for group in optimizer.param_groups:
            self.put_back.append(partial(group.update, fused=group.get("fused"), foreach=group.get("foreach")))
            group["fused"] = group["foreach"] = False
            for p in _with_gradient(group["params"]):
                if too_large:
                    self.put_back.append(partial(setattr, p, "grad", p.grad))
                    p.grad = None
                elif scale is not None:
                    p.grad.div_(scale.to(p.device))


def _with_gradient(parameters: Iterable[Any]) -> list[Any]:
    return [p for p in parameters if p.grad is not None]
