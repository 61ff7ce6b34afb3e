"""Rules for names of metrics: which one is the validation loss, and whether higher is better."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["AVERAGED", "FIRST_LOADER", "higher_is_better", "validation_loss_name", "without_loader_index"]


#: The suffix that Lightning adds to a metric of the first of several data loaders.
FIRST_LOADER = "/dataloader_idx_0"

#: The prefix of the metrics of averaged weights.
AVERAGED = "averaged/"

_USUAL = ("val/loss", "val_loss")
_OF_A_LOADER = re.compile(r"/dataloader_idx_\d+$")


def validation_loss_name(logged: Iterable[str], *, averaged: bool = False) -> str | None:
    """Return the name of the validation loss, of the first data loader if there are several; None if there is none.

    Args:
        logged: names of metrics.
        averaged: whether that of averaged weights is preferred; else it is never taken.

    >>> validation_loss_name(["train/loss", "val_accuracy", "val_loss", "val_aux_loss"])
    'val_loss'
    >>> validation_loss_name(["val_loss/dataloader_idx_1", "val_loss/dataloader_idx_0"])
    'val_loss/dataloader_idx_0'
    >>> validation_loss_name(["averaged/val_loss", "val_loss"], averaged=True)
    'averaged/val_loss'
    """
    if averaged:
        names = [name.removeprefix(AVERAGED) for name in logged if name.startswith(AVERAGED)]
        if (name := validation_loss_name(names)) is not None:
            return AVERAGED + name
    losses = [name for name in logged if name.startswith("val") and "loss" in name]
    return min(losses, key=lambda name: (_rank_name(without_loader_index(name)), name), default=None)


def without_loader_index(name: str) -> str:
    """Return the name of a metric without the index of its data loader.

    >>> without_loader_index("val_loss/dataloader_idx_1"), without_loader_index("val_loss")
    ('val_loss', 'val_loss')
    """
    return _OF_A_LOADER.sub("", name)


def _rank_name(name: str) -> int:
    return _USUAL.index(name) if name in _USUAL else len(_USUAL)


def higher_is_better(monitor: str) -> bool:
    """Return whether a metric is to be maximised, by its name.

    >>> higher_is_better("val/accuracy"), higher_is_better("val/F1"), higher_is_better("val/loss")
    (True, True, False)
    """
    return any(word in monitor.lower() for word in ("acc", "f1", "auc"))
