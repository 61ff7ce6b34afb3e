"""The training loss of a module that logs none: seen anyway, so it goes to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lrkit.lightning.classes import Callback, LightningModule, Trainer
from lrkit.lightning.logged_names import logged_names
from lrkit.lightning.module import batch_of
from lrkit.lightning.supervised import Supervised

__all__ = ["TrainLossLogger"]


class TrainLossLogger(Callback):
    """Logs ``train/loss`` where nothing that is logged in training has ``loss`` in its name.

    What is logged is what ``training_step`` returned, of this process, at the last batch of an epoch and at each
    logging interval, as ``Supervised`` logs its own. Whether, is decided when the first is due, and stays. A module
    that optimizes by itself and returns no loss shows none.
    """

    logs: bool | None = None  # not decided yet

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        silent = isinstance(pl_module, Supervised) or trainer.barebones  # which logs nothing at all
        self.logs = False if silent else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.logs is False:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # By itself a module may take any number of steps with a batch: Lightning then knows what it logs of them.
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
            if trainer.accumulate_grad_batches != 1:  # by which Lightning has divided it
                loss = loss * trainer.accumulate_grad_batches
            pl_module.log("train/loss", loss, batch_size=1)
