"""Finds the object of the running program for a text in a checkpoint.

A checkpoint contains no objects, but a module's ``on_load_checkpoint`` may need them: its loss, its metrics, a fitted
scaler. The program that resumes the run was built from the same config and has these objects:

    text in the checkpoint          object
    hyper_parameters.a.b            in ``module.hparams``, otherwise the module's attribute
    key.a.b                         in the module's attribute ``key``, otherwise in its attribute ``a``
    callbacks.<state_key>.a         the callback's attribute, which Lightning copies
    datamodule_hyper_parameters.a   in the data module's ``hparams``; the same for the keys of its ``state_dict``

The type, class or function must be the one in the text. Nothing is imported or created.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from lrkit.checkpoint.object_placeholder import is_placeholder_of
from lrkit.checkpoint.plain_data_format import Path
from lrkit.lightning.imports import Trainer

__all__ = ["find_live_object"]


def find_live_object(trainer: Trainer, at: Path, text: Any) -> tuple[Any] | None:
    """Return the object for a text in a checkpoint, in a tuple of one; None if there is none.

    Args:
        at: the keys on the way to the text.
        text: the value at that place.
    """
    for owner, path in _find_places(trainer, at):
        for name in path:
            owner = _get_part(owner, name)
            if owner is None:
                break
        if owner is not None and is_placeholder_of(text, owner) and (at[0] != "callbacks" or _can_be_copied(owner)):
            return (owner,)
    return None


def _can_be_copied(value: Any) -> bool:
    """Return whether a value can be copied: Lightning copies the state of a callback before it restores it."""
    try:
        copy.deepcopy(value)
    except Exception:  # raised by the user's class
        return False
    return True


def _find_places(trainer: Trainer, at: Path) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield the objects that may contain the value, and the rest of the keys."""
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


def _get_part(owner: Any, name: Any) -> Any:
    """Return an item or an attribute, without calling a method of the user's class."""
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
