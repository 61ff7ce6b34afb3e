"""Records the curves of a run for its diagnosis, with any logger or none.

The training loss is averaged over at most 400 windows. When all are complete, neighbours are joined
and windows are twice as long from then on, so the length of the run need not be known. Sums stay on their
device; only joining, which becomes rarer, and a checkpoint wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrkit.base.metric_names import validation_loss_name
from lrkit.lightning.batch_loss import read_loss
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import scheduler_of
from lrkit.runs.diagnosis import Curves
from lrkit.runs.event_reader import Series

__all__ = ["LossRecorder"]


class LossRecorder(Callback):
    """Records the mean training loss and the rate of each window, and every validation loss, of this process."""

    most = 400

    def __init__(self) -> None:
        self.first: Tensor | None = None  # the loss of the first batch
        self.losses: list[Tensor] = []
        self.rates: list[float] = []
        self.steps: list[int] = []
        self.size = 1  # batches in a window
        self.sum: tuple[Tensor, int] | None = None  # sum of losses and number of batches of the current window
        self.lost = False
        self.validated = Series()
        self.late: Callable[[], None] = lambda: None  # adds the last batch, once its step is known without waiting

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = read_loss(trainer, outputs)
        if loss is None:
            return
        self._add_late()
        scheduler = scheduler_of(trainer)
        if loss.dtype != torch.float32:
            loss = loss.float()
        plan, gain, taken = scheduler.plan, scheduler.total_gain, scheduler.steps.ask_later()
        self.late = lambda: self.add(loss, lambda: plan.lr(plan.main_group, max(taken() - 1, 0), gain), taken())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name = validation_loss_name(trainer.callback_metrics)
        if not trainer.sanity_checking and name is not None:
            self.validated.join(Series([scheduler_of(trainer).applied], [float(trainer.callback_metrics[name])]))

    def _add_late(self) -> None:
        late, self.late = self.late, lambda: None
        late()

    def add(self, loss: Tensor, rate: Callable[[], float], step: int) -> None:
        """Add the loss of a batch, the rate of its step (called at the end of a window), and the steps taken."""
        if self.lost:
            return
        self.first = loss if self.first is None else self.first
        self.sum = (loss, 1) if self.sum is None else (self.sum[0] + loss, self.sum[1] + 1)
        if self.sum[1] < self.size:
            return
        self.losses.append(self.sum[0] / self.size)
        self.rates.append(rate())
        self.steps.append(step)
        self.sum = None
        if len(self.losses) == self.most:
            self._join_windows()

    def curves(self) -> Curves:
        """The curves recorded so far."""
        self._add_late()
        first = math.nan if self.first is None else float(self.first)
        return Curves(first, Series([*self.steps], self._window_means()), [*self.rates], self.validated)

    def _join_windows(self) -> None:
        """Join pairs of windows; if the loss is not finite, stop recording instead, so that its step is kept."""
        if not math.isfinite(float(self.losses[-1])):
            self.lost = True
            return
        self.losses = [(a + b) / 2.0 for a, b in zip(self.losses[0::2], self.losses[1::2], strict=True)]
        self.rates = [(a + b) / 2.0 for a, b in zip(self.rates[0::2], self.rates[1::2], strict=True)]
        self.steps = self.steps[1::2]
        self.size *= 2

    def _window_means(self) -> list[float]:
        """The losses of all windows, read from the device at once."""
        if not self.losses:
            return []
        device = self.losses[-1].device
        values: list[float] = torch.stack([loss.to(device) for loss in self.losses]).tolist()
        return values

    @property
    def state_key(self) -> str:
        return "Trace"  # the key in existing checkpoints, from an earlier name of the class

    def state_dict(self) -> dict[str, Any]:
        self._add_late()
        return {
            "first": None if self.first is None else float(self.first),
            "losses": self._window_means(), "rates": [*self.rates], "steps": [*self.steps], "size": self.size,
            "sum": None if self.sum is None else [float(self.sum[0]), self.sum[1]],
            "lost": self.lost, "validated": [[*self.validated.steps], [*self.validated.values]],
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = state_dict
        self.first = None if state["first"] is None else torch.tensor(state["first"])
        self.losses = [*torch.tensor(state["losses"])]
        self.rates, self.steps, self.size = [*state["rates"]], [*state["steps"]], state["size"]
        self.sum = None if state["sum"] is None else (torch.tensor(state["sum"][0]), state["sum"][1])
        self.lost, self.validated = state["lost"], Series(*map(list, state["validated"]))
