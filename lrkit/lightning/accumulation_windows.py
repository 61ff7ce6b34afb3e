"""Gradient accumulation over windows of batches that follow a batch-size schedule.

Lightning asks for each batch whether a window begins (``batch_idx % trainer.accumulate_grad_batches == 0``), whether it
is complete (the same of the next batch), and divides the loss by that number. The number is a public attribute of the
trainer. Here it is, in each window, an ``int`` whose remainders count from the first batch of the window; so Lightning,
and every callback that asks as Lightning does, sees the windows of the plan. No private name of Lightning is used.
"""

from __future__ import annotations

import math
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import schedulers_of
from lrkit.optim.scheduler import PlanScheduler
from lrkit.schedules.batch_sizes import KEY, BatchSizes
from lrkit.schedules.horizon import Horizon

__all__ = ["AccumulationWindows", "Window", "count_steps"]


class Window(int):
    """The number of batches in a window; a remainder by it counts from the window's first batch.

    >>> window = Window(4, start=6)
    >>> [batch % window == 0 for batch in (6, 7, 8, 9, 10)], window + 1
    ([True, False, False, False, True], 5)
    """

    start: int

    def __new__(cls, size: int, start: int) -> Window:
        window = super().__new__(cls, size)
        window.start = start
        return window

    def __rmod__(self, count: int) -> int:
        return (count - self.start) % int(self)

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.start


class AccumulationWindows(Callback):
    """Sets ``trainer.accumulate_grad_batches`` at the first batch of each window, by the optimizer steps taken.

    A window has the batches of the step that it leads to, so its batch size and its learning rate are those of one step
    of the plan, whatever steps were skipped. An epoch begins with a new window. Without a batch-size schedule the
    number stays, unless a resumed run was stopped between two windows of one.
    """

    def __init__(self) -> None:
        self.start = 0  # the first batch of the window
        self.size = 0  # its number of batches; 0: no window has begun
        self.usual: int | None = None  # the trainer's own number; None: it is not replaced
        self.sizes: BatchSizes | None = None
        self.scheduler: PlanScheduler | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scheduler = schedulers_of(trainer)[0]
        self.sizes = None if self.scheduler.track else self.scheduler.plan.horizon.batch_sizes
        if self.sizes is not None and self.sizes.by == "loader":  # a step is a batch
            return
        if self.sizes is None and not self.size:
            return
        if self.sizes is not None and trainer.strategy.handles_gradient_accumulation:
            must = f"and {KEY} cannot be used together: {type(trainer.strategy).__name__} accumulates by itself"
            raise ConfigError("trainer.strategy", must)
        self.usual = trainer.accumulate_grad_batches
        if self.size:
            trainer.accumulate_grad_batches = Window(self.size, self.start)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.usual is None or (self.size and self.start < batch_idx < self.start + self.size):
            return
        assert self.scheduler is not None
        self.start = batch_idx
        self.size = self.usual if self.sizes is None else self._window_length(self.sizes)
        trainer.accumulate_grad_batches = Window(self.size, self.start)

    def _window_length(self, sizes: BatchSizes) -> int:
        assert self.scheduler is not None
        steps = self.scheduler.steps
        if sizes.window(steps.at_most) == sizes.window(max(0, steps.at_most - 1)):
            return sizes.window(steps.at_most)
        return sizes.window(self.scheduler.applied)  # which may wait for the device

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._restore(trainer)

    @property
    def state_key(self) -> str:
        return "AccumulationWindows"

    def state_dict(self) -> dict[str, Any]:
        return {} if self.usual is None else {"start": self.start, "size": self.size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start, self.size = state_dict["start"], state_dict["size"]

    def _restore(self, trainer: Trainer) -> None:
        if self.usual is not None:
            trainer.accumulate_grad_batches = self.usual
            self.usual = None


def count_steps(trainer: Trainer, horizon: Horizon) -> float:
    """Return the optimizer steps that a trainer will take: Lightning's number, or that of a batch-size schedule.

    Raises:
        ConfigError: the schedule needs the samples of a batch, which are not known.
    """
    sizes = horizon.batch_sizes
    if sizes is None:
        return float(trainer.estimated_stepping_batches)
    if sizes.micro is None:
        raise ConfigError("data.batch_size", f"must be set with {KEY}: the data does not say it")
    epochs, most = trainer.max_epochs or -1, trainer.max_steps
    whole = math.inf if sizes.batches is None or epochs < 1 else sizes.steps_after(epochs * sizes.batches)
    return whole if most == -1 else min(whole, most)
