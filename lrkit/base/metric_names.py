"""Names of metrics: which is the validation loss, and which way is better."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["FIRST_LOADER", "higher_is_better", "validation_loss_name", "without_loader_index"]


#: What Lightning adds to the name of a metric that several loaders have.
FIRST_LOADER = "/dataloader_idx_0"

_USUAL = ("val/loss", "val_loss")
_OF_A_LOADER = re.compile(r"/dataloader_idx_\d+$")


def validation_loss_name(logged: Iterable[str]) -> str | None:
    """The metric that is the validation loss, by its name; None where there is none. Of several loaders, the first's.

    >>> validation_loss_name(["train/loss", "val_accuracy", "val_loss", "val_aux_loss"])
    'val_loss'
    >>> validation_loss_name(["val_loss/dataloader_idx_1", "val_loss/dataloader_idx_0"])
    'val_loss/dataloader_idx_0'
    """
    losses = [name for name in logged if name.startswith("val") and "loss" in name]
    return min(losses, key=lambda name: (_rank(without_loader_index(name)), name), default=None)


def without_loader_index(name: str) -> str:
    """The name of a metric without the number of the loader that it is of.

    >>> without_loader_index("val_loss/dataloader_idx_1"), without_loader_index("val_loss")
    ('val_loss', 'val_loss')
    """
    return _OF_A_LOADER.sub("", name)


def _rank(name: str) -> int:
    return _USUAL.index(name) if name in _USUAL else len(_USUAL)


def higher_is_better(monitor: str) -> bool:
    """Whether a metric is one to maximise, by its name.

    >>> higher_is_better("val/accuracy"), higher_is_better("val/F1"), higher_is_better("val/loss")
    (True, True, False)
    """
    return any(word in monitor.lower() for word in ("acc", "f1", "auc"))
