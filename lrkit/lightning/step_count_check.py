"""Compares the steps taken with the plan: too many are refused, too few are reported at the end.

The number of steps is planned once. A module that steps twice in a batch, or in every second batch, or a callback that
changes accumulation, makes another number: the schedule would end early and hold its end rate, or
never reach its end. So these are checked:

    after the first batch   with manual optimization: more steps than planned, before training time is lost
    after the first epoch   with manual optimization: half of the planned steps or fewer
    before each step        that the plan has a rate for it
    at the end              that the plan has ended too, and that at least one parameter was trained

Steps that mixed precision or the divergence guard skip were requested in time, and do not count as missing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError, RunError
from lrkit.config.callback_conflicts import find_conflict
from lrkit.lightning.imports import Callback, LightningModule, Trainer, is_overridden
from lrkit.lightning.module import schedulers_of
from lrkit.optim.scheduler import PlanScheduler

__all__ = ["StepCountCheck", "has_reached_its_end", "uses_manual_optimization"]


class StepCountCheck(Callback):
    """Checks the steps of a run with one optimizer; ``lrkit.lightning.track_step_check`` checks those of several.

    Args:
        command: whether the run is one of the command, which has keys, calls ``missing`` and reports it.
        last: the file of the checkpoint of a run that this check ends; None: no checkpoint is saved.
    """

    def __init__(self, command: bool = False, last: Path | None = None) -> None:
        self.command, self.last = command, last
        self.run: tuple[Trainer, PlanScheduler] | None = None  # None for several optimizers
        self.planned: int | None = None
        self.applied_before = self.requested = 0  # steps applied before this fit; steps requested in it
        # Batches that are complete, and a function that returns the steps applied by their end.
        self.finished: tuple[int, Callable[[], int]] = (0, lambda: 0)
        self.skipped_before = 0  # steps that were skipped before this fit
        self.checks_start = self.is_ending = self.with_gradient = False
        self.hook_handle: Any = None
        self.check_uncompiled: Any = torch.compiler.disable(self._check_step)  # type: ignore[no-untyped-call]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # The callbacks of a config were checked by their keys. These are the callbacks of the trainer and the module.
        for callback in trainer.callbacks if stage == "fit" else []:  # type: ignore[attr-defined]
            if (why := find_conflict(type(callback))) is not None:
                raise ConfigError(type(callback).__name__, why)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler = schedulers_of(trainer)[0]
        if scheduler.track:
            return
        horizon = scheduler.plan.horizon
        self.run, self.planned = (trainer, scheduler), horizon.end
        self.applied_before, self.requested, self.finished = scheduler.applied, 0, (0, scheduler.steps.ask_later())
        manual, left = uses_manual_optimization(pl_module), _remaining_windows(trainer, scheduler)
        if self.planned is not None and left is not None and not manual:
            self.skipped_before = max(self.skipped_before, self.planned - self.applied_before - left)
        # Whether the plan has Lightning's number, one step for each window of accumulation, and not the user's.
        expected = horizon.steps == trainer.estimated_stepping_batches != trainer.max_steps
        if horizon.stop_after is not None:  # the number of the trainer without the stop is not known any more
            expected = horizon.sources.get("steps") not in ("horizon.steps", "trainer.max_steps", "steps")
        self.checks_start = manual and expected and self.applied_before == 0
        self.hook_handle = scheduler.optimizer.register_step_pre_hook(self._before_step)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.requested += 1
        self._note_gradient(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.run is None:
            return
        steps = self.run[1].steps
        self.finished = batches, _ = self.finished[0] + 1, steps.ask_later()
        if not self.checks_start:
            return
        windows = math.ceil(batches / trainer.accumulate_grad_batches)
        if steps.at_most - self.applied_before > windows and (taken := self._steps_taken()) > windows:
            must = f"must be set: {_module_name(trainer)} takes {taken} steps in {_count_batches(batches)}"
            key = "horizon.steps" if self.command else "steps"
            raise ConfigError(key, f"{must}, and the plan has {self.planned} steps. {self._describe_remedy()}")
        if trainer.is_last_batch:
            self.checks_start, taken = False, self._steps_taken()
            if 2 * (taken + self._steps_skipped()) <= windows:
                counts = f"{windows} steps were planned for the first epoch, {taken} were taken"
                raise RunError(f"{counts}: the schedule would not reach its end. {self._describe_remedy()}")

    @property
    def accounted(self) -> int:
        """The number of steps taken and skipped since the run began."""
        if self.run is None:
            return 0
        trainer, scheduler = self.run
        skipped = self.skipped_before + self._steps_skipped()
        if skipped and scheduler.plan.horizon.batch_sizes is not None and has_reached_its_end(trainer):
            return max(scheduler.applied, self.planned or 0)  # a skipped step of a large batch has the data of several
        return scheduler.applied + skipped

    def missing(self) -> str:
        """A sentence on the missing steps of a fit that has ended; empty if none is missing."""
        if self.run is None:
            return ""
        trainer, scheduler = self.run
        if scheduler.applied == 0:
            return "no optimizer step was taken: nothing was trained"
        if self._steps_taken() and not self.with_gradient:
            return "no parameter had a gradient at any step: nothing was trained"
        if self.planned is None or self.accounted >= self.planned or not has_reached_its_end(trainer):
            return ""
        skipped = self.skipped_before + self._steps_skipped()
        also = f" and {skipped} skipped" if skipped else ""
        return (
            f"{self.planned} steps were planned, {scheduler.applied} were taken{also}: the schedule did not reach its"
            f" end. {self._describe_remedy(scheduler.applied)}"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove_hook()
        if not self.command and (missing := self.missing()):
            warnings.warn(missing, stacklevel=2)  # not an error: the script may still use the weights

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_hook()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.is_ending:  # the current batch is not complete: a longer run would resume with it
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for count in (progress["total"], progress["current"]):
                count["ready"] = count["started"] = count["processed"] = count["completed"]

    @property
    def state_key(self) -> str:
        return "StepCount"  # the key in existing checkpoints, from an earlier name of the class

    def state_dict(self) -> dict[str, Any]:
        return {"left_out": self.skipped_before + self._steps_skipped()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped_before = state_dict["left_out"]

    def _steps_taken(self) -> int:
        return 0 if self.run is None else self.run[1].applied - self.applied_before

    def _steps_skipped(self) -> int:
        """The number of steps of this fit that were requested, and that mixed precision or the guard skipped."""
        return max(0, self.requested - self._steps_taken())

    def _note_gradient(self, optimizer: Optimizer) -> None:
        if not self.with_gradient:
            self.with_gradient = any(p.grad is not None for group in optimizer.param_groups for p in group["params"])

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """A hook of the optimizer itself, so each of its steps calls it. Compiled code must not trace the check."""
        if torch.compiler.is_compiling():
            self.check_uncompiled(optimizer)
        else:
            self._check_step(optimizer)

    def _check_step(self, optimizer: Optimizer) -> None:
        assert self.run is not None
        trainer, scheduler = self.run
        self._note_gradient(optimizer)
        if self.planned is None or scheduler.applied < self.planned or scheduler.creates_state:
            return
        saved = ""
        if self.last is not None:
            self.is_ending = True
            trainer.save_checkpoint(self.last)
            saved = f" Its checkpoint is {self.last}"
        takes = f"{_module_name(trainer)} takes step {self.planned + 1}{_describe_position(trainer)}"
        if scheduler.plan.horizon.stop_after is not None:
            key = "horizon.stop_after" if self.command else "stop_after"
            raise RunError(f"{key}={self.planned} is between two steps of one batch: {takes} too.{saved}")
        raise RunError(
            f"{self.planned} steps were planned, and {takes}, for which the schedule has no rate."
            f" {self._describe_remedy()}{saved}"
        )

    def _describe_remedy(self, steps: int | None = None) -> str:
        """The option that plans the steps taken: ``steps``, or the number expected from the batches so far."""
        assert self.run is not None
        trainer, _ = self.run
        option = "horizon.steps={}" if self.command else "lrkit.configure(..., steps={})"
        if not uses_manual_optimization(trainer.lightning_module):
            if trainer.num_training_batches == math.inf:
                ends = (
                    f"trainer.max_steps={self.planned} ends the run there"
                    if steps is None
                    else f"set {option.format(steps)}"
                )
                return f"The length of the data is unknown: {ends}."
            return "The number of batches in an epoch, or their accumulation, changes during the run."
        batches, taken, epochs = self.finished[0], self.finished[1]() - self.applied_before, trainer.max_epochs or -1
        if steps is None and (batches == 0 or epochs < 1 or trainer.num_training_batches == math.inf):
            return f"The module takes its own steps: set their number by {option.format('...')}."
        steps = steps or round(taken / batches * int(trainer.num_training_batches) * epochs)
        counts = f"{taken} in {_count_batches(batches)}"
        return f"The module takes its own steps: if {counts} are intended, set {option.format(steps)}."

    def _remove_hook(self) -> None:
        if self.hook_handle is not None:
            self.hook_handle.remove()
            self.hook_handle = None


def uses_manual_optimization(module: LightningModule) -> bool:
    """Whether a module decides itself when to take a step, so that Lightning cannot know their number."""
    return not module.automatic_optimization or is_overridden("optimizer_step", module)


def _remaining_windows(trainer: Trainer, scheduler: PlanScheduler) -> int | None:
    """The number of windows of accumulation that remain at the start of a fit; None for a fit without an end."""
    batches, epochs, left = trainer.num_training_batches, trainer.max_epochs or -1, math.inf
    if epochs > 0 and batches != math.inf:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready % int(batches)
        every, sizes = trainer.accumulate_grad_batches, scheduler.plan.horizon.batch_sizes
        if sizes is None or sizes.batches is None:
            left = math.ceil(batches / every) * (epochs - trainer.current_epoch) - done // every
        else:
            here = trainer.current_epoch * sizes.batches + done
            here = here if sizes.by == "accumulation" else sizes.batches_at(scheduler.applied)
            left = sizes.steps_after(epochs * sizes.batches, scheduler.applied, here) - scheduler.applied
    if trainer.max_steps != -1:
        left = min(left, trainer.max_steps - trainer.global_step)
    return None if left == math.inf else int(left)


def has_reached_its_end(trainer: Trainer) -> bool:
    """Whether a fit ended at its planned length, and not because of a stop that was requested."""
    epochs, progress = trainer.max_epochs or -1, trainer.fit_loop.epoch_progress.current
    # A loader may end before its length: then no batch is the last one, and no callback requested a stop.
    ended = trainer.is_last_batch or not trainer.should_stop
    through = 0 < epochs <= progress.processed and ended  # type: ignore[attr-defined]
    return through or (trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps)


def _module_name(trainer: Trainer) -> str:
    return type(trainer.lightning_module).__name__


def _count_batches(batches: int) -> str:
    return "its first batch" if batches == 1 else f"{batches} batches"


def _describe_position(trainer: Trainer) -> str:
    count: Any = trainer.fit_loop.batch_idx
    return f" (epoch {trainer.current_epoch + 1}, batch {count + 1})"
