"""The steps that are really taken, held against the plan: one too many is refused, one too few is told at the end.

The number of steps is planned once. A callback that changes accumulation or the batch size, a module that steps twice
in a batch or in every other one, makes it another one; the schedule would then end early, with the rate of its end for
the rest, or never come to its end.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch.optim import Optimizer

from lrkit.callback_conflicts import conflict
from lrkit.errors import ConfigError, RunError
from lrkit.lightning import Callback, LightningModule, Trainer
from lrkit.module import schedulers_of

__all__ = ["StepCount"]

#: Where the number of steps is the module's affair, and the user says it.
_SAID = "if the module steps at other times than after each batch, say how often by horizon.steps"


class StepCount(Callback):
    """Counts the steps of a run with one optimizer; those of several are held by ``lrkit.tracksteps``.

    Steps that mixed precision or the divergence guard leave out count here, for they were asked for in time.

    Args:
        keys: whether callbacks are known by the keys of a config, and were looked at before.
    """

    def __init__(self, keys: bool = False) -> None:
        self.keys = keys
        self.done = self.taken = 0  # since the run began; in this fit
        self.left_out = 0  # of them, those that changed no weight
        self.planned: int | None = None
        self.with_gradient = False
        self.moved = False  # gone on with by other batches, where a part of an epoch is no whole number of them

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for callback in [] if self.keys or stage != "fit" else trainer.callbacks:  # type: ignore[attr-defined]
            if (why := conflict(type(callback))) is not None:
                raise ConfigError(type(callback).__name__, why)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler = schedulers_of(trainer)[0]
        self.planned = None if scheduler.track else scheduler.plan.horizon.steps
        self.done, self.taken = scheduler.applied + self.left_out, 0
        self.moved = not scheduler.track and pl_module.automatic_optimization and self.done != trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.planned is not None and self.done >= self.planned:
            raise RunError(
                f"the module takes step {self.done + 1}{_when(trainer)}, and {self.planned} are planned:"
                f" the schedule is at its end; {_SAID}"
            )
        self.done, self.taken = self.done + 1, self.taken + 1
        if not self.with_gradient:
            groups = optimizer.param_groups
            self.with_gradient = any(p.grad is not None for group in groups for p in group["params"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.left_out = self.done - schedulers_of(trainer)[0].applied
        if self.moved and self.planned is not None and self.done >= self.planned:
            trainer.should_stop = True

    def missing(self, trainer: Trainer) -> str:
        """What is wrong with the steps of a fit that came to its end, as a sentence; empty where all were taken."""
        if schedulers_of(trainer)[0].track:
            return ""
        if self.done == 0:
            return "no optimizer step was taken"
        if self.taken and not self.with_gradient:
            return "no parameter had a gradient at any step"
        if self.planned is not None and self.done < self.planned and not (trainer.should_stop or self.moved):
            return f"{self.planned} steps were planned, {self.done} were taken: the schedule is not at its end; {_SAID}"
        return ""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In plain Lightning nobody else would say it."""
        if not self.keys and (missing := self.missing(trainer)):
            warnings.warn(missing, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        return {"left_out": self.left_out}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.left_out = state_dict["left_out"]


def _when(trainer: Trainer) -> str:
    count: Any = trainer.fit_loop.batch_idx
    return f" (epoch {trainer.current_epoch + 1}, batch {count + 1})"
