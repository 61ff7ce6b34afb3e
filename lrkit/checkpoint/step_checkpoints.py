"""The moment at which a ``ModelCheckpoint`` of every so many steps, or of a time interval, saves.

Lightning saves right after the batch, also where a validation or the end of the epoch follows. A run that resumes from
such a file goes on with the next batch: the validation is never run, the hooks of the epoch's end are never called, and
reduce-on-plateau or early stopping miss a value of their metric. So there lrkit saves later, at the same step: at the
end of the validation, or at the end of the epoch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lrkit.lightning.imports import LightningModule, ModelCheckpoint, Trainer
from lrkit.lightning.preemption import validation_follows

__all__ = ["save_after_validation"]


def save_after_validation(checkpoint: ModelCheckpoint) -> None:
    """Let a callback save after the validation, or after the hooks of the epoch's end, that follow its step.

    Args:
        checkpoint: changed in place; its class is kept, because the class names its state in a checkpoint.
    """
    waiting: list[tuple[Any, ...]] = []
    for name, hook in (
        ("on_train_batch_end", _save_or_wait),
        ("on_validation_end", _save_after_validation),
        ("on_train_epoch_end", _save_after_epoch),
    ):
        setattr(checkpoint, name, partial(hook, checkpoint, waiting))


def _save_or_wait(
    checkpoint: ModelCheckpoint, waiting: list[Any], trainer: Trainer, pl_module: LightningModule, *batch: Any
) -> None:
    waiting.clear()
    if trainer.is_last_batch or validation_follows(trainer):
        waiting.append(batch)
    else:
        type(checkpoint).on_train_batch_end(checkpoint, trainer, pl_module, *batch)


def _save_after_validation(
    checkpoint: ModelCheckpoint, waiting: list[Any], trainer: Trainer, pl_module: LightningModule
) -> None:
    # At the end of an epoch, Lightning saves by a monitored metric only when the validation ends.
    if waiting and (checkpoint.monitor is not None or not trainer.is_last_batch):
        type(checkpoint).on_train_batch_end(checkpoint, trainer, pl_module, *waiting.pop())
    type(checkpoint).on_validation_end(checkpoint, trainer, pl_module)


def _save_after_epoch(
    checkpoint: ModelCheckpoint, waiting: list[Any], trainer: Trainer, pl_module: LightningModule
) -> None:
    if waiting:
        type(checkpoint).on_train_batch_end(checkpoint, trainer, pl_module, *waiting.pop())
    type(checkpoint).on_train_epoch_end(checkpoint, trainer, pl_module)
