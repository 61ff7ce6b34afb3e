"""The training loss of a module that logs none: seen anyway, so it goes to TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lrkit.lightning import Callback, LightningModule, Trainer
from lrkit.supervised import Supervised

__all__ = ["TrainLoss"]


class TrainLoss(Callback):
    """Logs ``train/loss`` where nothing that the module logs in its training has ``loss`` in its name.

    What is logged is what ``training_step`` returned, at the last batch of an epoch and at each logging interval, as
    ``Supervised`` logs its own. A module that optimizes by itself and returns no loss shows none.
    """

    def __init__(self) -> None:
        self.logs = False
        self.theirs: Callable[..., None] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Supervised):
            return
        self.logs, self.theirs = True, pl_module.log

        def log(name: str, *args: Any, **options: Any) -> None:
            assert self.theirs is not None
            if trainer.training and "loss" in name.lower():
                self.logs = False
            self.theirs(name, *args, **options)

        pl_module.log = log  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.logs or self.theirs is None:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        if trainer.is_last_batch or trainer.global_step % every == 0:
            # Lightning has divided it by the batches of a step.
            loss = loss.detach().reshape(()) * trainer.accumulate_grad_batches
            self.theirs("train/loss", loss, batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.theirs is not None:
            del pl_module.log  # the class's own is there again
            self.theirs = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)
