"""One x axis for all logged values: the optimizer step, as for the learning rates.

Lightning counts the batches after which a step was due. That number differs from the applied steps after steps that
mixed precision or the guard skipped, with two steps in a batch, and after a resume with another batch size.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import schedulers_of
from lrkit.optim.scheduler import PlanScheduler

__all__ = ["StepAxisCallback"]


class StepAxisCallback(Callback):
    """Sets Lightning's x value to the last step of a batch, or to the next step for a batch without one.

    Several optimizers have different numbers of steps: with them x stays Lightning's count of batches.
    """

    def __init__(self) -> None:
        self.scheduler: PlanScheduler | None = None  # None for several optimizers
        self.applied_before = 0
        self.stepped = False  # whether a step of this batch was requested

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler = schedulers_of(trainer)[0]
        self.scheduler = None if scheduler.track else scheduler
        self._set_axis(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Whether the last step was skipped may not be known yet. It is corrected before anything is logged.
        self.stepped = False
        if self.scheduler is not None:
            self.applied_before = trainer.fit_loop.epoch_loop._batches_that_stepped = self.scheduler.steps.at_most

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self.stepped:
            self.stepped = True
            self._set_axis(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.stepped:
            self._set_axis(trainer)
        elif (
            self.scheduler is not None
            and self.scheduler.steps.at_most > self.applied_before + 1
            and self.scheduler.applied > self.applied_before + 1
        ):
            trainer.fit_loop.epoch_loop._batches_that_stepped = self.scheduler.applied - 1

    def _set_axis(self, trainer: Trainer) -> None:
        if self.scheduler is not None:
            self.applied_before = trainer.fit_loop.epoch_loop._batches_that_stepped = self.scheduler.applied
