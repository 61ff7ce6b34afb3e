"""From a node of YAML to an optimizer: found, checked, and in the fastest implementation that the device has."""

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
    """Build the optimizer that a configuration describes.

    Where the options name neither ``fused`` nor ``foreach``, the fastest implementation is chosen: fused if the
    class has it and it works on the devices and dtypes at hand; otherwise, on a CPU, plain loops, which are two to
    four times as fast there as batched operations; otherwise the class's own default. The choice is the machine's,
    so loading a state dict does not undo it; and it is right in every state of a training, see ``lrkit.optim.fused``.

    Args:
        target: class path of a subclass of ``torch.optim.Optimizer``.
        options: its arguments, but for the parameters and ``lr``.
        groups: what ``torch.optim`` calls parameter groups: ``params``, ``name``, ``lr`` and, where a group has its
            own, ``weight_decay`` (``None`` counts as absent).
        unfused: why the fused implementation must not be used, if it must not. Lightning refuses it with gradient
            clipping under ``16-mixed``. It is an error to have set ``fused: true`` then.

    Raises:
        ConfigError: for anything the class would refuse, and for arguments it would silently swallow.
    """
    cls, arguments = check_optimizer(target, options)
    groups = [{key: value for key, value in group.items() if value is not None} for group in groups]
    _check_groups(target, cls, groups)
    if unfused and arguments.get("fused"):
        raise ConfigError("optimizer.fused", f"must not be true: {unfused}")
    arguments["lr"] = groups[0]["lr"]
    chosen = arguments | _implementation(cls, arguments, groups, allowed=not unfused)
    try:
        optimizer: Optimizer = cls(groups, **chosen)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("optimizer", f"is refused by {target}: {error}".rstrip(".")) from error
    _check_empty(cls, chosen, groups)
    optimizer.register_load_state_dict_pre_hook(_keep_implementation)
    if chosen.get("fused"):
        keep_fused(optimizer, chosen, asked=bool(arguments.get("fused")))
    return optimizer


def check_optimizer(target: str, options: Mapping[str, Any]) -> tuple[type[Optimizer], dict[str, Any]]:
    """The class and its arguments, checked as ``build_optimizer`` checks them, which needs no parameters.

    Names must be the class's own, values of the right kind and in the usual range, lists become tuples.

    Raises:
        ConfigError: naming the key, such as ``optimizer.betas``.
    """
    cls = resolve_optimizer(target)
    return cls, check_options(target, options, _defaults(cls))


def resolve_optimizer(target: str) -> type[Optimizer]:
    """The class that ``target`` names. Modules are imported for it, but nothing is called.

    Raises:
        ConfigError: if there is no such class, its package is not installed, or it is not an optimizer.
    """
    key = "optimizer._target_"
    module_name, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    package = module_name.partition(".")[0]
    # Nothing in Python's own library is an optimizer, and importing some of it does things.
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
        # What lrkit knows of the module, for pytorch_optimizer has 128 optimizers; else whatever is there.
        known = [path.rpartition(".")[2] for path in FAMILIES if path.startswith(f"{module_name}.")]
        known = known or [each for each, value in vars(module).items() if _is_optimizer(value)]
        raise ConfigError(key, f"{module_name} has no {name}. {did_you_mean(name, known)}")
    if not _is_optimizer(found):
        raise ConfigError(key, "must be a subclass of torch.optim.Optimizer", target)
    cls: type[Optimizer] = found
    trusted_targets.check_origin(cls, target, key)
    return cls


def switch_mode(optimizer: Optimizer, training: bool) -> bool:
    """Put a schedule-free optimizer into training or evaluation mode; do nothing to any other.

    Such an optimizer moves the weights between the point where gradients are taken and their average, which is what
    is to be evaluated and saved (Defazio et al. 2024, arXiv:2405.15682).

    Returns:
        Whether it was in training mode before.
    """
    if not has_modes(optimizer):
        return True
    before = bool(optimizer.param_groups[0].get("train_mode", True))
    optimizer.train() if training else optimizer.eval()  # type: ignore[attr-defined]
    return before


def has_modes(optimizer: Optimizer) -> bool:
    """Whether an optimizer has weights for training and others for evaluation."""
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")


def training_weights(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Each parameter with a copy of it, to be put back after an evaluation; none where nothing will be switched.

    The optimizer's own way back computes: ``lerp(lerp(y, z, 1 - 1/beta), z, 1 - beta)`` is ``y`` but for the rounding.
    """
    if not has_modes(optimizer) or not optimizer.param_groups[0].get("train_mode", True):
        return []
    return [(p, p.detach().clone()) for group in optimizer.param_groups for p in group["params"]]


@torch.no_grad()
def restore_weights(weights: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give parameters the values that were copied."""
    for parameter, value in weights:
        parameter.copy_(value)


def evaluation_copy(optimizer: Optimizer) -> Optimizer:
    """A twin of the optimizer in evaluation mode, which owns copies of the weights.

    The optimizer itself and the weights that train are not touched, so that there is nothing to be put back.
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


def _defaults(cls: type[Optimizer]) -> dict[str, Any]:
    """The arguments that a class spells out. A ``**kwargs`` is none: it would swallow a misspelt name."""
    named = list(inspect.signature(cls).parameters.values())[1:]  # the first one is the parameters
    return {each.name: each.default for each in named if each.kind is not each.VAR_KEYWORD and each.name != "lr"}


def _check_groups(target: str, cls: type[Optimizer], groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what a class would take without a word and then not do."""
    known = traits_of(target)
    rates = {group["name"]: group["lr"] for group in groups}
    if known and known.one_rate and len(set(rates.values())) > 1:
        must = f"must give every group the same lr_scale: {cls.__name__} has one rate for them all"
        raise ConfigError("param_groups", must, rates)
    own = [group["name"] for group in groups if group.get("weight_decay")]
    if own and "weight_decay" not in _defaults(cls):
        raise ConfigError("param_groups", f"must set no weight_decay: {cls.__name__} has none", own)


def _check_empty(cls: type[Optimizer], arguments: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a parameter without elements where the class would divide by their number, at its first step."""
    kinds = {ParameterKind(p.device, p.dtype) for group in groups for p in group["params"] if p.numel() == 0}
    if (
        kinds
        and fused_refusal(cls, arguments, kinds) is None
        and (error := fused_refusal(cls, arguments, kinds, elements=0))
    ):
        raise ConfigError("optimizer", f"cannot train a parameter without elements: {cls.__name__} says {error}")


def _implementation(
    cls: type[Optimizer], arguments: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], *, allowed: bool
) -> dict[str, bool]:
    """The fastest implementation, as arguments; empty for the class's default."""
    accepted = _defaults(cls)
    kinds = {ParameterKind(parameter.device, parameter.dtype) for group in groups for parameter in group["params"]}
    asked = [name for name in IMPLEMENTATION if arguments.get(name) is not None]
    if asked:
        if arguments.get("fused") and not arguments.get("foreach") and fused_refusal(cls, arguments, kinds) is not None:
            where = ", ".join(sorted(map(str, kinds)))
            raise ConfigError("optimizer.fused", f"must not be true: {cls.__name__} cannot do it for {where}")
        return {}
    allowed = allowed and "fused" in accepted and may_fuse(cls, arguments)
    if allowed and fused_refusal(cls, {**arguments, "fused": True}, kinds) is None:
        return {"fused": True}
    if "foreach" in accepted and all(kind.device.type == "cpu" for kind in kinds):
        return {"foreach": False}
    return {}


def _keep_implementation(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Before a state dict is loaded: leave how to compute as this machine has it, and compare the groups' names.

    Otherwise a checkpoint written on another device could ask for a kernel that this one lacks, or bring back a
    fused step that ``unfused`` ruled out; and torch, which goes by position, would take one group for another.
    """
    saved, here = state["param_groups"], optimizer.param_groups
    names = [group.get("name") for group in here]
    # A group without a name joined during the run; the user's code has made it again.
    alike = len(saved) == len(here) and all(a in (None, b.get("name")) for a, b in zip(names, saved, strict=True))
    if all("name" in group for group in saved) and not alike:
        must = f"must make the groups that the checkpoint has: {', '.join(group['name'] for group in saved)}"
        raise ConfigError("param_groups", must, names)
    if len(saved) != len(here):
        return state  # torch says what is wrong
    how = [{name: group[name] for name in IMPLEMENTATION if name in group} for group in here]
    return state | {"param_groups": [theirs | ours for theirs, ours in zip(saved, how, strict=True)]}
