"""The steps that several optimizers take, held against their tracks batch by batch.

A module that takes its steps itself may take them when it likes; the plan has counted on ``every`` and ``offset``. A
step too many would run past the end of its curve, and is refused when it is taken. One too few leaves the curve
unfinished: that is said at once, and again by how the run ends.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from lrkit.errors import ConfigError
from lrkit.lightning import Callback, LightningModule, Trainer
from lrkit.module import schedulers_of
from lrkit.tracks import KEY, steps_in

__all__ = ["TrackSteps", "unfinished"]


class TrackSteps(Callback):
    """Compares, after each batch, the steps taken with those planned. Of a run with one optimizer it does nothing.

    Args:
        say: told, once for each track, that it has left out a step.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: warnings.warn(line, stacklevel=2)) -> None:
        self.say = say
        self.told: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tracks = [each for each in schedulers_of(trainer) if each.track]
        self.before = [each.applied for each in self.tracks]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for i, scheduler in enumerate(self.tracks):
            taken, self.before[i] = scheduler.applied - self.before[i], scheduler.applied
            plan = scheduler.plan
            planned = steps_in(batch_idx, plan.every, plan.offset)
            if taken > planned:
                raise _too_many(scheduler.track, taken, planned, batch_idx, plan.every)
            if taken < planned and not _may_skip(trainer) and scheduler.track not in self.told:
                self.told.add(scheduler.track)
                self.say(
                    f"note: {scheduler.track} took no step in batch {batch_idx} of an epoch, where one is planned:"
                    f" {KEY}.{scheduler.track}.every and .offset say where it does"
                )


def unfinished(trainer: Trainer) -> str:
    """Which tracks have taken fewer steps than planned, and how many; empty where all have taken theirs."""
    if _may_skip(trainer):
        return ""
    return ", ".join(
        f"{each.track} took {each.applied} of {steps} steps"
        for each in schedulers_of(trainer)
        if each.track and (steps := each.plan.horizon.steps) is not None and each.applied < steps
    )


def _may_skip(trainer: Trainer) -> bool:
    """Whether mixed precision leaves out steps whose gradients are infinite."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _too_many(track: str, taken: int, planned: int, batch: int, every: int) -> ConfigError:
    if planned:
        return ConfigError(f"{KEY}.{track}", f"must take at most one step in a batch; in batch {batch} it took {taken}")
    return ConfigError(
        f"{KEY}.{track}.every",
        f"must be how often it steps, and .offset where first: it took a step in batch {batch} of an epoch, where none"
        " is planned",
        every,
    )
