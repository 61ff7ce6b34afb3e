"""The loss of a training batch, and the number of its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lrkit.lightning.imports import Trainer

__all__ = ["count_samples", "read_loss"]


def read_loss(trainer: Trainer, outputs: Any) -> Tensor | None:
    """Return the loss of a batch on its device, as ``training_step`` computed it; None if it returned none.

    With manual optimization a module need not return its loss.

    Args:
        trainer: the trainer; Lightning has divided the loss by its number of accumulated batches.
        outputs: the argument of ``on_train_batch_end``.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        return None
    if loss.requires_grad or loss.ndim:
        loss = loss.detach().reshape(())
    return loss if trainer.accumulate_grad_batches == 1 else loss * trainer.accumulate_grad_batches


def count_samples(batch: Any) -> int:
    """Return the number of samples in a batch: the length of its first tensor; 1 if it has none.

    >>> import torch
    >>> count_samples({"x": [torch.zeros(8, 3), torch.zeros(2)]}), count_samples("text"), count_samples(None)
    (8, 1, 1)
    """
    return _find_length(batch) or 1


def _find_length(batch: Any) -> int | None:
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if not isinstance(batch, list | tuple):
        return None
    return next((length for each in batch if (length := _find_length(each)) is not None), None)
