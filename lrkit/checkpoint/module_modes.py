"""What a module is set to, beside its weights: which parts are evaluated, which parameters are frozen.

A module or a callback may set that at any time, and often does where an epoch begins: a backbone that is only used, a
block that is trained from the third epoch on. Lightning does not call that hook again if a run is resumed within an
epoch, and a module is made anew. So a checkpoint holds, by name:

    eval         the modules in evaluation mode, as the training had them (a validation puts all of them there)
    frozen       the parameters without ``requires_grad``
    attributes   numbers and truth values that ``on_train_epoch_start`` has set on the module, its parts or callbacks
    unknown      what else it has set: no plain number, so it is told and not kept

and a run that goes on has them again before its first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from inspect import getattr_static
from typing import Any

from torch import nn

from lrkit.lightning.classes import Callback, LightningModule, Trainer

__all__ = ["KEY", "ModuleModes"]

#: Where a checkpoint keeps them.
KEY = "lrkit.modes"

_NUMBERS = (bool, int, float, type(None))
#: Whose callbacks keep their own state.
_KEEP_THEIRS = ("lrkit", "pytorch_lightning", "lightning")
_MISSING = object()


class ModuleModes(Callback):
    """Puts what a module is set to into every checkpoint, and sets a module to it that goes on.

    Args:
        say: takes a line, before training, about what cannot be as it was.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self.say = say
        self.saved: Mapping[str, Any] | None = None
        self.within = False  # an epoch
        self.training: dict[str, bool] | None = None  # the modes of the training, while there is a validation
        self.set: dict[str, dict[str, None]] = {}  # owner -> attributes that an epoch's beginning has set
        self.installed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self.installed:
            return
        self.installed = True
        loop: Any = trainer.fit_loop
        for owner, name, method in (
            (loop, "on_advance_start", self._on_epoch),
            (loop.epoch_loop.val_loop, "run", self._on_validation),
        ):
            setattr(owner, name, partial(method, trainer, getattr(owner, name)))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit":
            self.saved, self.within = checkpoint.get(KEY), checkpoint["lrkit"]["mid_epoch"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        modes = self.training or _modes(pl_module)
        owners = dict(_owners(trainer))
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

    def _on_epoch(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        """An epoch begins or is resumed: after all hooks that prepare a training."""
        if self.saved is not None:
            self._restore(trainer, self.saved)
            self.saved = None
        before = {name: (owner, dict(vars(owner))) for name, owner in _owners(trainer)}
        usual()
        for name, (owner, were) in before.items():
            for attribute, value in vars(owner).items():
                if attribute not in _known() and not _same(were.get(attribute, _MISSING), value):
                    self.set.setdefault(name, {})[attribute] = None

    def _on_validation(self, trainer: Trainer, usual: Callable[[], Any]) -> Any:
        self.training = _modes(trainer.lightning_module)
        try:
            return usual()
        finally:
            self.training = None

    def _restore(self, trainer: Trainer, saved: Mapping[str, Any]) -> None:
        module = trainer.lightning_module
        evaluated, frozen = set(saved["eval"]), set(saved["frozen"])
        for name, part in module.named_modules():
            if part.training == (name in evaluated):
                part.training = name not in evaluated
        for name, parameter in module.named_parameters():
            if parameter.requires_grad == (name in frozen):
                parameter.requires_grad_(name not in frozen)
        owners = dict(_owners(trainer))
        for name, attributes in saved["attributes"].items():
            for attribute, value in attributes.items():
                # A number, for a number or for nothing: never in the place of a method, or of an object.
                if name in owners and type(value) in _NUMBERS and _takes_a_number(owners[name], attribute):
                    self.set.setdefault(name, {})[attribute] = None
                    vars(owners[name])[attribute] = value
        if saved["unknown"] and self.within:
            self.say(
                f"on_train_epoch_start has set {', '.join(saved['unknown'][:6])}, which no checkpoint holds:"
                " these values are those of a new module until the next epoch begins"
            )


def _modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


def _owners(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    """The module, its parts and the user's callbacks, by name; those that keep their own state are left to it."""
    yield from ((name, part) for name, part in trainer.lightning_module.named_modules() if not _is_metric(part))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        kind = type(callback)
        if kind.__module__.partition(".")[0] not in _KEEP_THEIRS and kind.state_dict is Callback.state_dict:
            yield f"callbacks.{callback.state_key}", callback


def _is_metric(part: nn.Module) -> bool:
    """Whether it is one of torchmetrics, which count on states that they keep or forget together."""
    return any(base.__module__.partition(".")[0] == "torchmetrics" for base in type(part).__mro__)


@cache
def _known() -> frozenset[str]:
    """Attributes of a module that are Lightning's and torch's own."""
    return frozenset(vars(LightningModule()))


def _same(before: Any, after: Any) -> bool:
    """Whether an attribute was left alone; a number or a text that is set to what it was is the same."""
    return before is after or (type(before) is type(after) and type(after) in (*_NUMBERS, str) and before == after)


def _takes_a_number(owner: Any, attribute: str) -> bool:
    held = vars(owner).get(attribute, _MISSING)
    if held is not _MISSING:
        return attribute not in _known() and type(held) in _NUMBERS
    inner = [vars(owner).get(name, {}) for name in ("_parameters", "_buffers", "_modules")]
    default = getattr_static(type(owner), attribute, None)  # of the class
    return type(default) in _NUMBERS and not any(attribute in each for each in inner)
