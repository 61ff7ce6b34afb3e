"""Compares the steps of several optimizers with their tracks after each batch.

A module with manual optimization may take its steps at any batch; the plan expects them by ``every`` and ``offset``.
An extra step would pass the end of its curve, and is refused after its batch. A missing step leaves the curve
incomplete: it is reported at once, and a run that reaches its end with missing steps has failed. So has a run in which
a track took no step, or none with a gradient. Steps that mixed precision skips were requested, and are not missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import plan_of, schedulers_of
from lrkit.lightning.planned_stop import has_reached_stop
from lrkit.lightning.step_count_check import has_reached_its_end
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.optimizer_tracks import KEY, steps_in

__all__ = ["TrackStepCheck"]


class TrackStepCheck(Callback):
    """Compares, after each batch, the steps taken with those planned; it has no effect with one optimizer.

    Args:
        report: is called with a line at the first missing step of each track.
        command: whether the run is one of the command, which calls ``missing`` and reports it.
    """

    def __init__(
        self, report: Callable[[str], None] = lambda line: warnings.warn(line, stacklevel=2), command: bool = False
    ) -> None:
        self.report, self.command = report, command
        self.counts: list[_TrackCount] = []
        self.missed_before: dict[str, int] = {}  # the missing steps of each track before this fit
        self.trainer: Trainer | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tracks = [each for each in schedulers_of(trainer) if each.track]
        self.trainer, self.counts = (
            trainer,
            [_TrackCount(each, self.missed_before.get(each.track, 0)) for each in tracks],
        )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for each in self.counts:
            if each.scheduler.optimizer is optimizer:
                each.requested += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for each in self.counts:
            track, plan = each.scheduler.track, each.scheduler.plan
            planned = steps_in(batch_idx, plan.every, plan.offset)
            taken, skipped = each.count_batch(planned)
            if taken > planned:
                raise _extra_step_error(track, taken, planned, batch_idx, plan.every)
            if taken + skipped < planned and not each.reported:
                each.reported = True
                self.report(
                    f"note: {track} took no step in batch {batch_idx} of an epoch, where the plan has one:"
                    f" {KEY}.{track}.every and .offset set its batches"
                )

    def missing(self) -> str:
        """A sentence on the missing steps of a fit that has ended; empty if none is missing."""
        if self.trainer is None:
            return ""
        through = has_reached_its_end(self.trainer) or has_reached_stop(self.trainer, plan_of(self.trainer))
        return "; ".join(line for each in self.counts if (line := each.missing(through)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove_hooks()
        if not self.command and (missing := self.missing()):
            warnings.warn(missing, stacklevel=2)  # not an error: the script may still use the weights

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    @property
    def state_key(self) -> str:
        return "TrackSteps"  # the key in existing checkpoints, from an earlier name of the class

    def state_dict(self) -> dict[str, Any]:
        return {each.scheduler.track: each.missed for each in self.counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.missed_before = dict(state_dict)

    def _remove_hooks(self) -> None:
        for each in self.counts:
            each.handle.remove()


class _TrackCount:
    """Counts the steps of one track in a fit.

    Args:
        scheduler: of the track.
        missed: steps before this fit that were planned, and neither taken nor skipped.
    """

    def __init__(self, scheduler: PlanScheduler, missed: int) -> None:
        self.scheduler, self.missed = scheduler, missed
        self.applied_before = self.applied = scheduler.applied
        self.due = self.requested = self.skipped = 0
        self.reported = self.with_gradient = False
        self.note_uncompiled: Any = torch.compiler.disable(self._note_gradient)  # type: ignore[no-untyped-call]
        self.handle = scheduler.optimizer.register_step_pre_hook(self._before_step)

    def count_batch(self, planned: int) -> tuple[int, int]:
        """Count a batch with ``planned`` planned steps; return the number of steps taken, and of steps skipped."""
        taken = self.scheduler.applied - self.applied
        skipped = max(0, self.requested - (self.scheduler.applied - self.applied_before)) - self.skipped
        self.applied, self.skipped = self.scheduler.applied, self.skipped + skipped
        self.due += planned
        self.missed += max(0, planned - taken - skipped)
        return taken, skipped

    def missing(self, through: bool) -> str:
        """A sentence if nothing was trained, or if steps are missing in a run that reached its end (``through``)."""
        name, applied, none = self.scheduler.track, self.scheduler.applied, "so none of its parameters was trained"
        if self.due and applied == 0:
            planned = self.scheduler.plan.horizon.steps or self.due
            return f"{name}: {planned} steps were planned, none was taken, {none}"
        if applied > self.applied_before and not self.with_gradient:
            return f"{name}: no parameter had a gradient at any step, {none}"
        if not through or not self.missed:
            return ""
        also = f" and {self.skipped} skipped" if self.skipped else ""
        return (
            f"{name}: {applied + self.skipped + self.missed} steps were planned, {applied} were taken{also}: its"
            f" schedule did not reach its end. {KEY}.{name}.every and .offset set its batches"
        )

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """A hook of the optimizer itself, so each of its steps calls it. Compiled code must not trace the check."""
        if self.with_gradient:
            return
        if torch.compiler.is_compiling():
            self.note_uncompiled(optimizer)
        else:
            self._note_gradient(optimizer)

    def _note_gradient(self, optimizer: Optimizer) -> None:
        self.with_gradient = any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def _extra_step_error(track: str, taken: int, planned: int, batch: int, every: int) -> ConfigError:
    if planned:
        return ConfigError(f"{KEY}.{track}", f"must take at most one step in a batch; in batch {batch} it took {taken}")
    return ConfigError(
        f"{KEY}.{track}.every",
        f"must be the batches from one step to the next, and .offset the first: it took a step in batch {batch} of"
        " an epoch, where the plan has none",
        every,
    )
