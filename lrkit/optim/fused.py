"""A fused optimizer that lrkit chose by itself: it falls back to plain loops wherever the fused kernel would fail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.optim import SGD, Optimizer

from lrkit.base.errors import ConfigError

__all__ = ["ParameterKind", "fused_refusal", "keep_fused", "may_fuse"]


class ParameterKind(NamedTuple):
    """The properties of a parameter on which the support of an implementation depends.

    Args:
        device: the device of the parameter.
        dtype: its dtype.
        layout: the layout of its gradient; ``torch.strided`` is dense.
        is_sharded: whether it is divided among processes (``DTensor``).
    """

    device: torch.device
    dtype: torch.dtype
    layout: torch.layout = torch.strided
    is_sharded: bool = False

    @classmethod
    def of(cls, parameter: torch.Tensor, layout: torch.layout = torch.strided) -> ParameterKind:
        """Return the kind of a parameter whose gradients have a layout."""
        return cls(parameter.device, parameter.dtype, layout, hasattr(parameter, "device_mesh"))

    def __str__(self) -> str:
        sparse = "" if self.layout is torch.strided else "sparse gradients of "
        shards = "shards of " if self.is_sharded else ""
        return f"{shards}{sparse}{self.dtype} on {self.device}"


def may_fuse(cls: type[Optimizer], arguments: Mapping[str, Any]) -> bool:
    """Return whether ``keep_fused`` supports an optimizer: not SGD with dampened momentum."""
    return not (issubclass(cls, SGD) and arguments.get("momentum") and arguments.get("dampening"))


def fused_refusal(
    cls: type[Optimizer], arguments: Mapping[str, Any], kinds: Collection[ParameterKind], elements: int = 1
) -> Exception | None:
    """Return the error of a step on a tensor of each kind; None if there is none.

    torch has no public list of the supported kinds, and its constructors accept ``fused=True`` for devices on which
    the first step fails. For sharded parameters torch has the fused kernels of two classes.
    """
    shards = next((kind for kind in kinds if kind.is_sharded), None)
    if shards is not None and arguments.get("fused") and not issubclass(cls, torch.optim.Adam):
        return NotImplementedError(f"no fused kernel for {shards}")
    probes = []
    for kind in kinds:
        probe = torch.zeros(elements, device=kind.device, dtype=kind.dtype)
        probe.grad = torch.zeros_like(probe)
        if kind.layout is not torch.strided:
            probe.grad = probe.grad.to_sparse()
        probes.append(probe)
    try:
        cls(probes, **arguments).step()
    except Exception as error:  # an error of other arguments is reported by the real optimizer
        return error
    return None


def keep_fused(optimizer: Optimizer, arguments: Mapping[str, Any], asked: bool = False) -> None:
    """Before each step, prepare the optimizer's state for the fused kernel, or let a group use plain loops.

    torch's fused kernels support only dense gradients, and only some devices and dtypes; a group that is added during
    the run may have others. Such a group uses plain loops from then on. ``GradScaler`` leaves the unscaling to a fused
    optimizer, so this class also does that for the loops.

    The fused kernel of SGD needs a momentum buffer for all parameters or for none: a parameter that gets its first
    gradient later would end the training. If there are none, it allocates buffers without writing to them when
    ``GradScaler`` skips that step (the first scale is often too large); the next step would use undefined memory. Each
    parameter therefore gets a buffer of zeros with its first gradient. The first step is the same to the bit,
    ``momentum * 0 + gradient`` (not so with dampening).

    Args:
        optimizer: the optimizer.
        arguments: its arguments.
        asked: whether the user set ``fused: true``; then loops are an error.

    Raises (from ``optimizer.step``):
        ConfigError: the user set ``fused: true`` and a group does not support it; or loops fail too.
    """
    fallback = _FusedFallback(optimizer, arguments, asked)
    optimizer.register_step_pre_hook(fallback.before_step)
    optimizer.register_step_post_hook(fallback.after_step)
    optimizer.register_load_state_dict_post_hook(fallback.forget)


class _FusedFallback:
    def __init__(self, optimizer: Optimizer, arguments: Mapping[str, Any], asked: bool) -> None:
        self.arguments, self.asked = arguments, asked
        #: For each group, the parameters without a gradient at the last preparation. If all had one, the group is
        #: complete, and later only the number of its parameters is compared.
        self.without: dict[int, list[bool]] = {}
        self.complete: dict[int, int] = {}
        self.supported = {ParameterKind.of(p) for group in optimizer.param_groups for p in group["params"]}
        self.restores: list[Callable[[], Any]] = []

    def forget(self, _: Optimizer) -> None:
        self.without.clear()
        self.complete.clear()

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_compiling():
            return None  # a compiler generates its own kernels
        # Lightning passes a closure, which computes the gradients within the step.
        inner = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if inner is None:
            self.prepare_groups(optimizer)
            return None

        def closure() -> Any:
            loss = inner()
            self.prepare_groups(optimizer)
            return loss

        return args[:1], {**kwargs, "closure": closure}

    def after_step(self, *_: Any) -> None:
        while self.restores:
            self.restores.pop()()

    def prepare_groups(self, optimizer: Optimizer) -> None:
        loops = False
        for group in optimizer.param_groups:
            if group.get("fused") and self.complete.get(id(group)) != len(group["params"]):
                without = [p.grad is None for p in group["params"]]
                if without != self.without.get(id(group)):
                    self.prepare_group(optimizer, group, _with_gradient(group["params"]))
                    self.without[id(group)] = without
                if not any(without):
                    self.complete[id(group)] = len(without)
            loops = loops or not group.get("fused")
        if loops and getattr(optimizer, "found_inf", None) is not None:
            self.unscale_gradients(optimizer)

    def prepare_group(self, optimizer: Optimizer, group: dict[str, Any], given: list[Any]) -> None:
        """Prepare a group for the fused kernel, or for loops; ``given`` are its parameters with a gradient."""
        new = {ParameterKind.of(p, p.grad.layout) for p in given} - self.supported
        if new and fused_refusal(type(optimizer), self.arguments, new) is None:
            self.supported |= new
        elif new:
            name, what = type(optimizer).__name__, ", ".join(sorted(map(str, new)))
            plain = {**self.arguments, "fused": False, "foreach": False}
            if (error := fused_refusal(type(optimizer), plain, new)) is not None:
                raise ConfigError("optimizer", f"cannot train {what}: {error}".rstrip("."))
            if self.asked:
                must = f"must not be true: {name} does not support it for {what}; leave it out"
                raise ConfigError("optimizer.fused", must)
            group["fused"] = group["foreach"] = False
        if group["fused"] and isinstance(optimizer, SGD) and group["momentum"]:
            self.create_momentum_buffers(optimizer, group, given)

    @staticmethod
    def create_momentum_buffers(optimizer: Optimizer, group: Mapping[str, Any], given: list[Any]) -> None:
        without = [p for p in given if optimizer.state[p].get("momentum_buffer") is None]
        if not group["dampening"]:
            for p in without:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        elif without and (len(without) < len(given) or getattr(optimizer, "found_inf", None) is not None):
            must = "must not be true with dampened momentum and late or scaled gradients: leave it out"
            raise ConfigError("optimizer.fused", must)

    def unscale_gradients(self, optimizer: Any) -> None:
        """Divide the gradients by the scale, as a fused optimizer must; take no step if the scale was too large.

        All groups use loops for this step, because they share the scale.
        """
        scale, found_inf = optimizer.grad_scale, optimizer.found_inf
        optimizer.grad_scale = optimizer.found_inf = None
        self.restores.append(partial(vars(optimizer).update, grad_scale=scale, found_inf=found_inf))
        too_large = bool(found_inf)
        for group in optimizer.param_groups:
            self.restores.append(partial(group.update, fused=group.get("fused"), foreach=group.get("foreach")))
            group["fused"] = group["foreach"] = False
            for p in _with_gradient(group["params"]):
                if too_large:
                    self.restores.append(partial(setattr, p, "grad", p.grad))
                    p.grad = None
                elif scale is not None:
                    p.grad.div_(scale.to(p.device))


def _with_gradient(parameters: Iterable[Any]) -> list[Any]:
    return [p for p in parameters if p.grad is not None]
