"""Corrects the gradient of an incomplete accumulation window at the end of an epoch."""

from __future__ import annotations

from torch.optim import Optimizer

from lrkit.lightning.imports import Callback, LightningModule, Trainer

__all__ = ["IncompleteAccumulation"]


class IncompleteAccumulation(Callback):
    """Scales the gradient of the last accumulation window of an epoch by its number of batches.

    Lightning divides every loss by ``accumulate_grad_batches``, even if the epoch ends before the window is complete:
    the gradient of that step is then too small, as with a smaller learning rate. This callback corrects it.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if trainer.accumulate_grad_batches == 1 or not pl_module.automatic_optimization:
            return
        batches = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches
        if batches == 0:
            return
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for grad in grads:
            grad.mul_(trainer.accumulate_grad_batches / batches)
