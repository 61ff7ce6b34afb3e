"""Batches of a batch-size schedule made by the loader, in place of gradient accumulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.data.tensor_loader import TensorLoader
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import schedulers_of
from lrkit.optim.scheduler import PlanScheduler
from lrkit.schedules.batch_sizes import BatchSizes

__all__ = ["JoinedBatches"]


class JoinedBatches(Callback):
    """Lets lrkit's own loader join the batches of each window, where the plan says ``batch.by=loader``.

    The windows are those of accumulation, so the samples of each step are the same, and so is the number of steps. How
    many batches an epoch has then depends on its steps: Lightning is told the number when an epoch begins. The steps
    are those that the optimizer has taken; none may be skipped, for the loader is asked for a batch before its step.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler = schedulers_of(trainer)[0]
        sizes = None if scheduler.track else scheduler.plan.horizon.batch_sizes
        if sizes is None or sizes.by != "loader":
            return
        loader: Any = trainer.train_dataloader
        if not isinstance(loader, TensorLoader):
            must = (
                f"needs data that lrkit holds in memory, and {type(loader).__name__} makes its batches by itself: use"
            )
            raise ConfigError("batch.by", f"{must} accumulation", "loader")

        def announce(batches: int) -> None:
            trainer.fit_loop.max_batches = batches
            if isinstance(trainer.val_check_interval, float):
                trainer.val_check_batch = max(1, int(batches * trainer.val_check_interval))

        loader.join_batches(lambda done: _list_windows(sizes, scheduler, done), announce)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler = schedulers_of(trainer)[0]
        sizes = None if scheduler.track else scheduler.plan.horizon.batch_sizes
        if sizes is not None and sizes.by == "loader":
            fetcher: Any = trainer.fit_loop._data_fetcher
            iter(fetcher)  # its length is that of an epoch without joined batches


def _list_windows(sizes: BatchSizes, scheduler: PlanScheduler, done: int) -> Sequence[int]:
    """The batches of each step until the end of an epoch of which ``done`` batches are done."""
    assert sizes.batches is not None
    windows, step, left = [], scheduler.applied, sizes.batches - done
    while left > 0:
        windows.append(min(sizes.window(step), left))
        step, left = step + 1, left - windows[-1]
    return windows
