"""Saves and restores the modes of a module: its parts in evaluation mode, and its frozen parameters.

A module or a callback may change them at any time, and often does at the start of an epoch: it freezes a backbone, or
trains a block from the third epoch. If a run is resumed within an epoch, the module is new and Lightning does not call
the hook again. A checkpoint therefore contains, by name:

    eval         the modules in evaluation mode during training (a validation puts all modules into it)
    frozen       the parameters without ``requires_grad``
    attributes   the numbers and booleans that ``on_train_epoch_start`` set on the module, its parts or callbacks
    unknown      the other attributes that it set: lrkit reports them and does not save them

A resumed run restores them before its first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from inspect import getattr_static
from typing import Any

from torch import nn

from lrkit.lightning.imports import Callback, LightningModule, Trainer

__all__ = ["KEY", "ModuleModes"]

#: The checkpoint's key for the modes.
KEY = "lrkit.modes"

_NUMBERS = (bool, int, float, type(None))
#: Packages whose callbacks save their own state.
_KEEP_THEIRS = ("lrkit", "pytorch_lightning", "lightning")
_MISSING = object()


class ModuleModes(Callback):
    """Saves the modes of a module in each checkpoint, and restores them in a resumed run.

    Args:
        say: called before training with a line about the values that cannot be restored.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self.say = say
        self.saved: Mapping[str, Any] | None = None
        self.within = False  # whether the checkpoint was written within an epoch
        self.training: dict[str, bool] | None = None  # the modes in training, during a validation
        self.set: dict[str, dict[str, None]] = {}  # owner -> the attributes that on_train_epoch_start has set
        self.installed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self.installed:
            return
        self.installed = True
        loop: Any = trainer.fit_loop
        for owner, name, method in (
            (loop, "on_advance_start", self._wrap_epoch_start),
            (loop.epoch_loop.val_loop, "run", self._wrap_validation),
        ):
            setattr(owner, name, partial(method, trainer, getattr(owner, name)))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit":
            self.saved, self.within = checkpoint.get(KEY), checkpoint["lrkit"]["mid_epoch"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        modes = self.training or _read_modes(pl_module)
        owners = dict(_list_owners(trainer))
        attributes: dict[str, dict[str, Any]] = {}
        unknown: list[str] = []
        for owner, names in self.set.items():
            for name in names:
                value = vars(owners[owner]).get(name, _MISSING) if owner in owners else _MISSING
                if type(value) in _NUMBERS:
                    attributes.setdefault(owner, {})[name] = value
                elif value is not _MISSING:
                    unknown.append(f"{owner}.{name}" if owner else name)
        checkpoint[KEY] = {
            "eval": [name for name, training in modes.items() if not training],
            "frozen": [name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad],
            "attributes": attributes,
            "unknown": unknown,
        }

    def _wrap_epoch_start(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        """Restore the modes when an epoch starts or is resumed, and record the attributes that its hooks set."""
        if self.saved is not None:
            self._restore_modes(trainer, self.saved)
            self.saved = None
        before = {name: (owner, dict(vars(owner))) for name, owner in _list_owners(trainer)}
        usual()
        for name, (owner, were) in before.items():
            for attribute, value in vars(owner).items():
                if attribute not in _list_base_attributes() and not _is_unchanged(were.get(attribute, _MISSING), value):
                    self.set.setdefault(name, {})[attribute] = None

    def _wrap_validation(self, trainer: Trainer, usual: Callable[[], Any]) -> Any:
        self.training = _read_modes(trainer.lightning_module)
        try:
            return usual()
        finally:
            self.training = None

    def _restore_modes(self, trainer: Trainer, saved: Mapping[str, Any]) -> None:
        module = trainer.lightning_module
        evaluated, frozen = set(saved["eval"]), set(saved["frozen"])
        for name, part in module.named_modules():
            if part.training == (name in evaluated):
                part.training = name not in evaluated
        for name, parameter in module.named_parameters():
            if parameter.requires_grad == (name in frozen):
                parameter.requires_grad_(name not in frozen)
        owners = dict(_list_owners(trainer))
        for name, attributes in saved["attributes"].items():
            for attribute, value in attributes.items():
                # A number replaces only a number or a missing attribute, never a method or an object.
                if name in owners and type(value) in _NUMBERS and _accepts_number(owners[name], attribute):
                    self.set.setdefault(name, {})[attribute] = None
                    vars(owners[name])[attribute] = value
        if saved["unknown"] and self.within:
            self.say(
                f"on_train_epoch_start has set {', '.join(saved['unknown'][:6])}, which a checkpoint does not"
                " contain: they have the values of a new module until the next epoch starts"
            )


def _read_modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


def _list_owners(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    """Yield the module, its parts and the user's callbacks, by name, except callbacks that save their own state."""
    yield from ((name, part) for name, part in trainer.lightning_module.named_modules() if not _is_metric(part))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        kind = type(callback)
        if kind.__module__.partition(".")[0] not in _KEEP_THEIRS and kind.state_dict is Callback.state_dict:
            yield f"callbacks.{callback.state_key}", callback


def _is_metric(part: nn.Module) -> bool:
    """Return whether a module is a metric of torchmetrics, whose states must be saved or dropped together."""
    return any(base.__module__.partition(".")[0] == "torchmetrics" for base in type(part).__mro__)


@cache
def _list_base_attributes() -> frozenset[str]:
    """Return the names of the attributes that Lightning and torch set on each module."""
    return frozenset(vars(LightningModule()))


def _is_unchanged(before: Any, after: Any) -> bool:
    """Return whether an attribute is the same object, or an equal number or string."""
    return before is after or (type(before) is type(after) and type(after) in (*_NUMBERS, str) and before == after)


def _accepts_number(owner: Any, attribute: str) -> bool:
    """Return whether a number may be assigned to an attribute: it is a number now, or is missing."""
    held = vars(owner).get(attribute, _MISSING)
    if held is not _MISSING:
        return attribute not in _list_base_attributes() and type(held) in _NUMBERS
    inner = [vars(owner).get(name, {}) for name in ("_parameters", "_buffers", "_modules")]
    default = getattr_static(type(owner), attribute, None)  # the default of the class
    return type(default) in _NUMBERS and not any(attribute in each for each in inner)
