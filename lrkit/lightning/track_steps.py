"""The steps that several optimizers take, held against their tracks batch by batch.

A module that takes its steps itself may take them when it likes; the plan has counted on ``every`` and ``offset``. A
step too many would run past the end of its curve, and is refused when it is taken. One too few leaves the curve
unfinished: that is said at once, and a run that has come to its end with fewer is not done; nor is one in which a track
took no step, or none with a gradient. Steps that mixed precision leaves out were asked for in time: none too few.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.lightning.classes import Callback, LightningModule, Trainer
from lrkit.lightning.module import schedulers_of
from lrkit.lightning.step_count import came_to_its_end
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.tracks import KEY, steps_in

__all__ = ["TrackStepCheck"]


class TrackStepCheck(Callback):
    """Compares, after each batch, the steps taken with those planned. Of a run with one optimizer it does nothing.

    Args:
        say: told, once for each track, that it has left out a step.
        command: whether the run is the command's, which asks for ``missing`` and says it.
    """

    def __init__(
        self, say: Callable[[str], None] = lambda line: warnings.warn(line, stacklevel=2), command: bool = False
    ) -> None:
        self.say, self.command = say, command
        self.counts: list[_Count] = []
        self.before: dict[str, int] = {}  # of each track the steps that were missed before this fit
        self.trainer: Trainer | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tracks = [each for each in schedulers_of(trainer) if each.track]
        self.trainer, self.counts = trainer, [_Count(each, self.before.get(each.track, 0)) for each in tracks]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for each in self.counts:
            if each.scheduler.optimizer is optimizer:
                each.asked += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for each in self.counts:
            track, plan = each.scheduler.track, each.scheduler.plan
            planned = steps_in(batch_idx, plan.every, plan.offset)
            taken, left_out = each.batch(planned)
            if taken > planned:
                raise _too_many(track, taken, planned, batch_idx, plan.every)
            if taken + left_out < planned and not each.told:
                each.told = True
                self.say(
                    f"note: {track} took no step in batch {batch_idx} of an epoch, where one is planned:"
                    f" {KEY}.{track}.every and .offset say where it does"
                )

    def missing(self) -> str:
        """What is wrong with the steps of a fit that has ended, as a sentence; empty where each track took its own."""
        if self.trainer is None:
            return ""
        through = came_to_its_end(self.trainer)
        return "; ".join(line for each in self.counts if (line := each.missing(through)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._let_go()
        if not self.command and (missing := self.missing()):
            warnings.warn(missing, stacklevel=2)  # an error would keep a script from what it does with the weights

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._let_go()

    @property
    def state_key(self) -> str:
        return "TrackSteps"  # the name in checkpoints, which outlives that of the class

    def state_dict(self) -> dict[str, Any]:
        return {each.scheduler.track: each.missed for each in self.counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = dict(state_dict)

    def _let_go(self) -> None:
        for each in self.counts:
            each.handle.remove()


class _Count:
    """The steps of one track in a fit.

    Args:
        scheduler: of the track.
        missed: steps that were planned, and neither taken nor left out, before this fit.
    """

    def __init__(self, scheduler: PlanScheduler, missed: int) -> None:
        self.scheduler, self.missed = scheduler, missed
        self.begun = self.applied = scheduler.applied
        self.due = self.asked = self.left_out = 0
        self.told = self.with_gradient = False
        self.outside: Any = torch.compiler.disable(self._look)  # type: ignore[no-untyped-call]
        self.handle = scheduler.optimizer.register_step_pre_hook(self._before_step)

    def batch(self, planned: int) -> tuple[int, int]:
        """A batch is done in which so many steps were planned: how many were taken, and how many left out."""
        taken = self.scheduler.applied - self.applied
        left_out = max(0, self.asked - (self.scheduler.applied - self.begun)) - self.left_out
        self.applied, self.left_out = self.scheduler.applied, self.left_out + left_out
        self.due += planned
        self.missed += max(0, planned - taken - left_out)
        return taken, left_out

    def missing(self, through: bool) -> str:
        """What is wrong: of a run that came ``through``, that there were too few; of any, that nothing was trained."""
        name, applied, none = self.scheduler.track, self.scheduler.applied, "so nothing of it was trained"
        if self.due and applied == 0:
            planned = self.scheduler.plan.horizon.steps or self.due
            return f"{name}: {planned} steps were planned, none was taken, {none}"
        if applied > self.begun and not self.with_gradient:
            return f"{name}: no parameter had a gradient at any step, {none}"
        if not through or not self.missed:
            return ""
        told = f" and {self.left_out} left out" if self.left_out else ""
        return (
            f"{name}: {applied + self.left_out + self.missed} steps were planned, {applied} were taken{told}: its"
            f" schedule did not come to its end. {KEY}.{name}.every and .offset say where it steps"
        )

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Of the optimizer itself, so that there is no way around it. A compiled one must not look inside."""
        if self.with_gradient:
            return
        if torch.compiler.is_compiling():
            self.outside(optimizer)
        else:
            self._look(optimizer)

    def _look(self, optimizer: Optimizer) -> None:
        self.with_gradient = any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def _too_many(track: str, taken: int, planned: int, batch: int, every: int) -> ConfigError:
    if planned:
        return ConfigError(f"{KEY}.{track}", f"must take at most one step in a batch; in batch {batch} it took {taken}")
    return ConfigError(
        f"{KEY}.{track}.every",
        f"must be how often it steps, and .offset where first: it took a step in batch {batch} of an epoch, where none"
        " is planned",
        every,
    )
