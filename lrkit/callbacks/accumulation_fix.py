"""Gradient accumulation whose last window in an epoch has its full weight."""

from __future__ import annotations

from torch.optim import Optimizer

from lrkit.lightning.classes import Callback, LightningModule, Trainer

__all__ = ["AccumulationFix"]


class AccumulationFix(Callback):
    """Gives the last window of accumulation its full weight, however few batches it has.

    Lightning divides every loss by ``accumulate_grad_batches``, also where the epoch ends before the window is full:
    the gradient of that step is then too small, as if its learning rate were. It is scaled up again here.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if trainer.accumulate_grad_batches == 1 or not pl_module.automatic_optimization:
            return
        gathered = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches
        if gathered == 0:
            return
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for grad in grads:
            grad.mul_(trainer.accumulate_grad_batches / gathered)
