"""One axis: what Lightning logs lies at the optimizer step that it belongs to, as the rates do.

Lightning counts the batches after which there was to be a step. Steps that mixed precision or the guard left out, two
steps in a batch, a run that goes on with another batch size: each makes that another number than the steps applied.
"""

from __future__ import annotations

from typing import Any

from lrkit.lightning.classes import Callback, LightningModule, Trainer
from lrkit.lightning.module import schedulers_of
from lrkit.optim.scheduler import PlanScheduler

__all__ = ["StepAxisCallback"]


class StepAxisCallback(Callback):
    """Sets the number that Lightning takes for x: the last step of a batch that has one, else the step to come.

    Of several optimizers each has steps of its own, and x is the batch, as Lightning has it.
    """

    def __init__(self) -> None:
        self.scheduler: PlanScheduler | None = None  # of a run with one optimizer
        self.before = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler = schedulers_of(trainer)[0]
        self.scheduler = None if scheduler.track else scheduler
        self._set(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._set(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.scheduler is not None and self.scheduler.applied > self.before + 1:
            trainer.fit_loop.epoch_loop._batches_that_stepped = self.scheduler.applied - 1

    def _set(self, trainer: Trainer) -> None:
        if self.scheduler is not None:
            self.before = trainer.fit_loop.epoch_loop._batches_that_stepped = self.scheduler.applied
