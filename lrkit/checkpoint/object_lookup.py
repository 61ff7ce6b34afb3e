"""Where a checkpoint has a text for an object, the object of the running program that stands in the same place.

A checkpoint cannot make objects, and a module's ``on_load_checkpoint`` may want them: its loss, its metrics, a fitted
scaler. The program that goes on was made from the same config, and has them. Found they are

    hyper_parameters.a.b            in ``module.hparams``, or else as the module's attribute
    key.a.b                         as the module's attribute ``key``, or else ``a``; ``b`` is in it
    callbacks.<which>.a             as the callback's attribute, of which Lightning makes a copy
    datamodule_hyper_parameters.a   as those of the data module; so is what its ``state_dict`` has

and only where type, class or function are the ones that the text says. Nothing is imported or made for it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from lrkit.checkpoint.object_text import is_text_of
from lrkit.checkpoint.plain_data_format import Path
from lrkit.lightning.classes import Trainer

__all__ = ["live_object"]


def live_object(trainer: Trainer, at: Path, text: Any) -> tuple[Any] | None:
    """The object that a text in a checkpoint stands for, alone in a tuple; None where there is none.

    Args:
        at: the keys that lead to the text.
        text: what stands there.
    """
    for owner, path in _places(trainer, at):
        for name in path:
            owner = _part(owner, name)
            if owner is None:
                break
        if owner is not None and is_text_of(text, owner) and (at[0] != "callbacks" or _can_be_copied(owner)):
            return (owner,)
    return None


def _can_be_copied(value: Any) -> bool:
    """As Lightning does with the state of a callback before it hands it over."""
    try:
        copy.deepcopy(value)
    except Exception:  # from a method of the user's class
        return False
    return True


def _places(trainer: Trainer, at: Path) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Where to begin to look, and the way from there."""
    module, data = trainer.lightning_module, getattr(trainer, "datamodule", None)
    first, rest = at[0], at[1:]
    if first == "callbacks" and rest:
        yield from ((c, rest[1:]) for c in trainer.callbacks if c.state_key == rest[0])  # type: ignore[attr-defined]
        return
    owner = (
        data if data is not None and first in (data.CHECKPOINT_HYPER_PARAMS_KEY, type(data).__qualname__) else module
    )
    if first == owner.CHECKPOINT_HYPER_PARAMS_KEY:
        yield owner.hparams, rest
    else:
        yield owner, at
    yield owner, rest


def _part(owner: Any, name: Any) -> Any:
    """An item or an attribute, without calling a method of the user's class."""
    if isinstance(owner, type | ModuleType):
        return None
    if isinstance(owner, dict):
        return dict.get(owner, name)
    if isinstance(owner, list | tuple):
        return owner[name] if type(name) is int and 0 <= name < len(owner) else None
    held = getattr(owner, "__dict__", {})
    found = held.get(name)
    if found is None and isinstance(owner, nn.Module):
        found = next(
            (inner[name] for key in ("_modules", "_parameters", "_buffers") if name in (inner := held[key])), None
        )
    return found
