"""Logs the training loss as a mean over all samples since the last logged value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrkit.lightning.batch_loss import count_samples, read_loss
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.logged_names import logged_names
from lrkit.lightning.module import batch_of, schedulers_of
from lrkit.lightning.supervised import Supervised
from lrkit.optim.scheduler import PlanScheduler

__all__ = ["TRAIN_LOSS", "TrainLossLogger"]

TRAIN_LOSS = "train/loss"


class SampleMean:
    """The mean of a loss over samples; the sum stays on its device, and nothing waits for it until it is read."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None
        self.samples = 0

    def add(self, loss: Tensor, samples: int) -> None:
        """Add the mean loss of some samples."""
        if self.sum is None:
            self.sum = torch.zeros((), device=loss.device)
        elif self.sum.device != loss.device:  # restored from a checkpoint
            self.sum = self.sum.to(loss.device)
        self.sum.add_(loss, alpha=samples)
        self.samples += samples

    def join(self, other: SampleMean) -> None:
        """Add the samples of another mean, which is empty then."""
        if other.sum is not None:
            self.add(other.sum, 1)
            self.samples += other.samples - 1
        other.clear()

    def clear(self) -> None:
        self.sum, self.samples = None, 0

    def total(self, trainer: Trainer) -> tuple[Tensor, float]:
        """The sum of the losses, and the number of samples, of all processes."""
        assert self.sum is not None
        if trainer.world_size == 1:
            return self.sum, self.samples
        both = torch.stack([self.sum, torch.full_like(self.sum, self.samples)]).to(trainer.strategy.root_device)
        both = trainer.strategy.reduce(both, reduce_op="sum")
        return both[0], float(both[1])


class TrainLossLogger(Callback):
    """Logs ``train/loss``, the mean of the loss over all samples of all processes since it was logged last.

    It is logged at Lightning's logging interval, at the end of an epoch, before each validation, and at the end of the
    run; x is the optimizer step. A step that the guard left out does not count. A checkpoint within an interval has
    the sum, so that the next value of a resumed run is that of an uninterrupted one.

    A module that logs a training loss by itself is left alone: one that has logged a name with ``loss`` in it when
    the first value is due. A module with manual optimization that returns no loss has none to log.
    """

    def __init__(self) -> None:
        self.logs: bool | None = None  # None: not decided yet
        self.interval, self.window = SampleMean(), SampleMean()  # since the last value; of an unfinished optimizer step
        self.trainer: Trainer | None = None
        self.scheduler: PlanScheduler | None = None  # None for several optimizers
        self.taken: Callable[[], int] = lambda: 0  # waits, but not after the next step
        self.left_out = self.x = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer = trainer
        scheduler = schedulers_of(trainer)[0]
        self.scheduler = None if scheduler.track else scheduler
        self.taken, self.left_out = self._ask_steps(trainer), scheduler.left_out
        if trainer.barebones:  # it logs nothing
            self.logs = False
        else:
            self.logs = True if isinstance(pl_module, Supervised) else None
        if self.interval.sum is not None and not trainer.is_global_zero:  # a checkpoint has the sum of all processes
            self.interval.sum, self.interval.samples = torch.zeros(()), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.logs is False:
            return
        loss = read_loss(trainer, outputs)
        accumulates = trainer.accumulate_grad_batches != 1
        if accumulates and loss is not None:
            self.window.add(loss, count_samples(batch))
        if accumulates and pl_module.automatic_optimization and trainer.fit_loop._should_accumulate():
            return
        if self.scheduler is not None and self.scheduler.left_out > self.left_out:
            self.left_out = self.scheduler.left_out
            self.window.clear()
        elif accumulates:
            self.interval.join(self.window)
        elif loss is not None:
            self.interval.add(loss, count_samples(batch))
        self.x, before = batch_of(trainer), self.taken()
        self.taken = self._ask_steps(trainer)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.is_last_batch or (every and self._has_passed(trainer, every, before)):
            self._log_mean(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._log_mean(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log_mean(trainer)  # of a run that ends within an epoch

    @property
    def state_key(self) -> str:
        return "TrainLoss"

    def state_dict(self) -> dict[str, Any]:
        if self.interval.sum is None or self.trainer is None or self.logs is False:
            return {}
        total, samples = self.interval.total(self.trainer)
        return {"sum": float(total), "samples": int(samples)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.interval.sum, self.interval.samples = torch.tensor(state_dict["sum"]), state_dict["samples"]

    def _ask_steps(self, trainer: Trainer) -> Callable[[], int]:
        """A function that returns the optimizer steps taken by now; for several optimizers, the batches."""
        if self.scheduler is not None:
            return self.scheduler.steps.ask_later()
        batches: int = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        return lambda: batches

    def _has_passed(self, trainer: Trainer, every: int, before: int) -> bool:
        """Whether a multiple of ``every`` lies between ``before`` and the steps taken; only then it may wait."""
        if self.scheduler is not None and self.scheduler.steps.at_most // every <= before // every:
            return False
        return self.taken() // every > before // every

    def _log_mean(self, trainer: Trainer) -> None:
        """Log the mean of the interval, if there is one, and begin the next interval."""
        if self.logs is None and trainer.training:
            self.logs = not any("loss" in name.lower() for name in logged_names(trainer))
        if not self.logs or self.interval.sum is None:
            return
        total, samples = self.interval.total(trainer)
        self.interval.clear()
        mean = total / samples
        # Not by the module's log: the value must also be there in a validation within an epoch.
        trainer.callback_metrics[TRAIN_LOSS] = mean
        if not trainer.loggers or not trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        values = {TRAIN_LOSS: float(mean), "epoch": float(trainer.current_epoch)}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=self.x)
            logger.save()
