"""The training loss of a module that does not log it: lrkit sees each loss anyway, and logs it as ``train/loss``.

A module that logs anything with ``loss`` in its name during training has a curve of its own, and gets no second one.
Which of the two it is, is decided when the first loss is due, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lrkit.lightning import Callback, LightningModule, Trainer
from lrkit.logged import names_logged
from lrkit.supervised import Supervised

__all__ = ["TrainingLoss"]


class TrainingLoss(Callback):
    """Logs ``train/loss`` when ``Supervised`` would: each ``log_every_n_steps``, and with the last batch of an epoch.

    The loss is what ``training_step`` returned, of this process; without one, as manual optimization may be, nothing
    is logged.
    """

    logs: bool | None = None  # not decided yet

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.logs = False if isinstance(pl_module, Supervised) or trainer.barebones else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.logs is False:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not (trainer.is_last_batch or trainer.global_step % every == 0):
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        if self.logs is None:
            self.logs = not any("loss" in name.lower() for name in names_logged(trainer))
        if self.logs:
            loss = loss.detach().reshape(())
            if trainer.accumulate_grad_batches != 1:  # by which Lightning has divided it
                loss = loss * trainer.accumulate_grad_batches
            pl_module.log("train/loss", loss, batch_size=1)
