"""Names of metrics: which is the validation loss, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["higher_is_better", "validation_loss"]


def validation_loss(logged: Iterable[str]) -> str | None:
    """The metric that is the validation loss, by its name; None where there is none.

    >>> validation_loss(["train/loss", "val_accuracy", "val_loss"])
    'val_loss'
    """
    names = sorted(logged)
    if "val/loss" in names:
        return "val/loss"
    losses = [name for name in names if name.startswith("val") and "loss" in name]
    return losses[0] if losses else None


def higher_is_better(monitor: str) -> bool:
    """Whether a metric is one to maximise, by its name.

    >>> higher_is_better("val/accuracy"), higher_is_better("val/F1"), higher_is_better("val/loss")
    (True, True, False)
    """
    return any(word in monitor.lower() for word in ("acc", "f1", "auc"))
