"""Logs the training loss of a module that logs none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.logged_names import logged_names
from lrkit.lightning.module import batch_of
from lrkit.lightning.supervised import Supervised

__all__ = ["TrainLossLogger"]


class TrainLossLogger(Callback):
    """Logs ``train/loss`` if no metric that the module logs in training has ``loss`` in its name.

    The value is the loss that ``training_step`` returned in this process, at the last batch of an epoch and at each
    logging interval, as for ``Supervised``. The decision is made at the first such batch, for the whole run. A module
    with manual optimization that returns no loss has none to log.
    """

    logs: bool | None = None  # not decided yet

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        silent = isinstance(pl_module, Supervised) or trainer.barebones  # a barebones trainer logs nothing
        self.logs = False if silent else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.logs is False:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # With manual optimization a module may take any number of steps in a batch: Lightning then decides what it logs
        # of them.
        counts = pl_module.automatic_optimization
        if counts and not (trainer.is_last_batch or (batch_of(trainer) + 1) % every == 0):
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        if self.logs is None:
            self.logs = not any("loss" in name.lower() for name in logged_names(trainer))
        if self.logs:
            loss = loss.detach().reshape(())
            if trainer.accumulate_grad_batches != 1:  # Lightning has divided the loss by it
                loss = loss * trainer.accumulate_grad_batches
            pl_module.log("train/loss", loss, batch_size=1)
