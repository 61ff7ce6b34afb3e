"""Builds an optimizer from its config: finds the class, checks the options, chooses the fastest implementation."""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.config import trusted_targets
from lrkit.config.optimizer_options import IMPLEMENTATION, check_options
from lrkit.optim.fused import ParameterKind, fused_refusal, keep_fused, may_fuse
from lrkit.optim.late_state import create_late_state
from lrkit.planning.optimizer_traits import FAMILIES, option_name, traits_of

__all__ = [
    "build_optimizer",
    "check_optimizer",
    "evaluation_copy",
    "has_modes",
    "resolve_optimizer",
    "restore_weights",
    "switch_mode",
    "training_weights",
]

#: The packages of the extra ``lrkit[optim]``.
EXTRA = ("pytorch_optimizer", "schedulefree")


def build_optimizer(
    target: str,
    options: Mapping[str, Any],
    groups: list[dict[str, Any]],
    *,
    unfused: str | None = None,
) -> Optimizer:
    """Build the optimizer of a config.

    If the options contain neither ``fused`` nor ``foreach``, lrkit chooses the fastest implementation: fused, if the
    class supports it for the devices and dtypes of the parameters; otherwise, on a CPU, plain loops, which are two to
    four times as fast there as batched operations; otherwise the default of the class. The choice depends on the
    machine, so a loaded state dict does not change it. ``lrkit.optim.fused`` makes it correct for each step.

    Args:
        target: class path of a subclass of ``torch.optim.Optimizer``.
        options: its arguments, without the parameters and ``lr``.
        groups: parameter groups of ``torch.optim``: ``params``, ``name``, ``lr`` and, if a group has its own,
            ``weight_decay`` (``None`` counts as absent).
        unfused: the reason why the fused implementation is not allowed, if there is one: Lightning refuses it with
            gradient clipping under ``16-mixed``. With ``fused: true`` it is an error.

    Raises:
        ConfigError: the class would refuse an argument, or would silently ignore it.
    """
    cls, arguments = check_optimizer(target, options)
    groups = [{key: value for key, value in group.items() if value is not None} for group in groups]
    _check_groups(target, cls, groups)
    if unfused and arguments.get("fused"):
        raise ConfigError("optimizer.fused", f"must not be true: {unfused}")
    arguments["lr"] = groups[0]["lr"]
    chosen = arguments | _choose_implementation(cls, arguments, groups, allowed=not unfused)
    try:
        optimizer: Optimizer = cls(groups, **chosen)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("optimizer", f"is refused by {target}: {error}".rstrip(".")) from error
    _check_empty(cls, chosen, groups)
    optimizer.register_load_state_dict_pre_hook(_keep_implementation)
    create_late_state(optimizer, chosen)
    if chosen.get("fused"):
        keep_fused(optimizer, chosen, asked=bool(arguments.get("fused")))
    return optimizer


def check_optimizer(target: str, options: Mapping[str, Any]) -> tuple[type[Optimizer], dict[str, Any]]:
    """Return the class and its checked arguments, without building the optimizer.

    Each name must be an argument of the class, and each value must have its type and range. Lists become tuples.

    Raises:
        ConfigError: naming the key, such as ``optimizer.betas``.
    """
    cls = resolve_optimizer(target)
    return cls, check_options(target, options, _read_defaults(cls))


def resolve_optimizer(target: str) -> type[Optimizer]:
    """Return the class with the path ``target``. Imports its module, but calls nothing.

    Raises:
        ConfigError: the class does not exist, its package is not installed, or it is not an optimizer.
    """
    key = "optimizer._target_"
    module_name, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    package = module_name.partition(".")[0]
    # Python's standard library has no optimizer, and importing some of its modules has side effects.
    if not package or package in sys.stdlib_module_names:
        raise ConfigError(key, "must be the full path of a subclass of torch.optim.Optimizer", target)
    try:
        module = trusted_targets.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == package and package in EXTRA:
            raise ConfigError(
                f"optimizer={option_name(target)}", f"needs the package {package}: pip install 'lrkit[optim]'"
            ) from None
        missing = error.name or module_name
        kind = "package" if "." not in missing else "module"
        raise ConfigError(key, f"needs the {kind} {missing}, which cannot be found", target) from None
    found = getattr(module, name, None)
    if found is None:
        # The classes that lrkit knows, because pytorch_optimizer has 128; otherwise all optimizers in the module.
        known = [path.rpartition(".")[2] for path in FAMILIES if path.startswith(f"{module_name}.")]
        known = known or [each for each, value in vars(module).items() if _is_optimizer(value)]
        raise ConfigError(key, f"{module_name} has no {name}. {did_you_mean(name, known)}")
    if not _is_optimizer(found):
        raise ConfigError(key, "must be a subclass of torch.optim.Optimizer", target)
    cls: type[Optimizer] = found
    trusted_targets.check_origin(cls, target, key)
    return cls


def switch_mode(optimizer: Optimizer, training: bool) -> bool:
    """Put a schedule-free optimizer into training or evaluation mode. Do nothing to any other optimizer.

    In training mode, the weights are the point at which gradients are computed; in evaluation mode, they are the
    average to evaluate and save (Defazio et al. 2024, arXiv:2405.15682).

    Returns:
        Whether the optimizer was in training mode before.
    """
    if not has_modes(optimizer):
        return True
    before = bool(optimizer.param_groups[0].get("train_mode", True))
    optimizer.train() if training else optimizer.eval()  # type: ignore[attr-defined]
    return before


def has_modes(optimizer: Optimizer) -> bool:
    """Return whether an optimizer has different weights for training and for evaluation."""
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")


def training_weights(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Return each parameter with a copy, to restore after an evaluation; empty if the optimizer has no modes.

    The optimizer's own switch rounds: ``lerp(lerp(y, z, 1 - 1/beta), z, 1 - beta)`` equals ``y`` only approximately.
    """
    if not has_modes(optimizer) or not optimizer.param_groups[0].get("train_mode", True):
        return []
    return [(p, p.detach().clone()) for group in optimizer.param_groups for p in group["params"]]


@torch.no_grad()
def restore_weights(weights: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Restore the copied values of parameters."""
    for parameter, value in weights:
        parameter.copy_(value)


def evaluation_copy(optimizer: Optimizer) -> Optimizer:
    """Return a copy of the optimizer in evaluation mode, with copies of the weights.

    The optimizer and the training weights do not change, so nothing must be restored.
    """
    twin: Optimizer = object.__new__(type(optimizer))
    twin.__dict__.update(vars(optimizer))
    copies = {p: p.detach().clone() for group in optimizer.param_groups for p in group["params"]}
    groups = [{**group, "params": [copies[p] for p in group["params"]]} for group in optimizer.param_groups]
    twin.param_groups = groups
    twin.state = defaultdict(dict, {copies.get(p, p): dict(state) for p, state in optimizer.state.items()})
    switch_mode(twin, training=False)
    return twin


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer


def _read_defaults(cls: type[Optimizer]) -> dict[str, Any]:
    """Return the named arguments of a class. ``**kwargs`` does not count, because it accepts a misspelt name."""
    named = list(inspect.signature(cls).parameters.values())[1:]  # the first one is the parameters
    return {each.name: each.default for each in named if each.kind is not each.VAR_KEYWORD and each.name != "lr"}


def _check_groups(target: str, cls: type[Optimizer], groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse options of groups that a class would accept and ignore."""
    known = traits_of(target)
    rates = {group["name"]: group["lr"] for group in groups}
    if known and known.one_rate and len(set(rates.values())) > 1:
        must = f"must give every group the same lr_scale: {cls.__name__} has one rate for all groups"
        raise ConfigError("param_groups", must, rates)
    own = [group["name"] for group in groups if group.get("weight_decay")]
    if own and "weight_decay" not in _read_defaults(cls):
        raise ConfigError("param_groups", f"must set no weight_decay: {cls.__name__} has none", own)


def _check_empty(cls: type[Optimizer], arguments: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a parameter without elements if the class would fail on it, for example by a division by their number."""
    kinds = {ParameterKind.of(p) for group in groups for p in group["params"] if p.numel() == 0}
    if (
        kinds
        and fused_refusal(cls, arguments, kinds) is None
        and (error := fused_refusal(cls, arguments, kinds, elements=0))
    ):
        raise ConfigError("optimizer", f"cannot train a parameter without elements: {cls.__name__} says {error}")


def _choose_implementation(
    cls: type[Optimizer], arguments: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], *, allowed: bool
) -> dict[str, bool]:
    """Return the arguments for the fastest implementation; empty for the default of the class."""
    accepted = _read_defaults(cls)
    kinds = {ParameterKind.of(parameter) for group in groups for parameter in group["params"]}
    asked = [name for name in IMPLEMENTATION if arguments.get(name) is not None]
    if asked:
        if arguments.get("fused") and not arguments.get("foreach") and fused_refusal(cls, arguments, kinds) is not None:
            where = ", ".join(sorted(map(str, kinds)))
            raise ConfigError("optimizer.fused", f"must not be true: {cls.__name__} does not support it for {where}")
        return {}
    allowed = allowed and "fused" in accepted and may_fuse(cls, arguments)
    if allowed and fused_refusal(cls, {**arguments, "fused": True}, kinds) is None:
        return {"fused": True}
    if "foreach" in accepted and all(kind.device.type == "cpu" for kind in kinds):
        return {"foreach": False}
    return {}


def _keep_implementation(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Before a state dict is loaded, keep this machine's implementation, and compare the names of the groups.

    A checkpoint from another device could name a kernel that this device does not have, or a fused step that
    ``unfused`` excludes. torch matches groups by position, and could confuse them.
    """
    saved, here = state["param_groups"], optimizer.param_groups
    names = [group.get("name") for group in here]
    # A group without a name was added during the run; the user's code has created it again.
    alike = len(saved) == len(here) and all(a in (None, b.get("name")) for a, b in zip(names, saved, strict=True))
    if all("name" in group for group in saved) and not alike:
        must = f"must make the groups of the checkpoint: {', '.join(group['name'] for group in saved)}"
        raise ConfigError("param_groups", must, names)
    if len(saved) != len(here):
        return state  # torch reports the error
    how = [{name: group[name] for name in IMPLEMENTATION if name in group} for group in here]
    return state | {"param_groups": [theirs | ours for theirs, ours in zip(saved, how, strict=True)]}
