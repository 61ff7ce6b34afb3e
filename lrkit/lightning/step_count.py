"""The steps that are really taken, held against the plan: one too many is refused, one too few is told at the end.

The number of steps is planned once. A module that steps twice in a batch, or in every other one, or a callback that
changes accumulation, makes it another one: the schedule would end early, with the rate of its end for the rest, or
never come to its end. So it is looked at

    after the first batch   where the module steps itself: more steps than planned, while nothing is lost yet
    after the first epoch   where it does: half of its steps or fewer
    before each step        whether the plan has a rate for it
    at the end              whether that is the end of the plan too, and whether anything was trained at all

Steps that mixed precision or the divergence guard leave out were asked for in time, and are none too few.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError, RunError
from lrkit.config.callback_conflicts import conflict_of
from lrkit.lightning.classes import Callback, LightningModule, Trainer, is_overridden
from lrkit.lightning.module import schedulers_of
from lrkit.optim.scheduler import PlanScheduler

__all__ = ["StepCountCheck", "came_to_its_end", "uses_manual_optimization"]


class StepCountCheck(Callback):
    """Counts the steps of a run with one optimizer; those of several are held by ``lrkit.lightning.track_steps``.

    Args:
        command: whether the run is the command's, which has keys, asks for ``missing`` and says it.
        last: where a run that is ended by this leaves what it has come to; None leaves nothing.
    """

    def __init__(self, command: bool = False, last: Path | None = None) -> None:
        self.command, self.last = command, last
        self.run: tuple[Trainer, PlanScheduler] | None = None  # of a run with one optimizer
        self.planned: int | None = None
        self.begun = self.asked = 0  # steps applied before this fit; asked for in it
        self.whole = (0, 0)  # batches that are done, and the steps in them
        self.before = 0  # steps that were left out before this fit
        self.early = self.ending = self.with_gradient = False
        self.handle: Any = None
        self.outside: Any = torch.compiler.disable(self._check)  # type: ignore[no-untyped-call]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Those of a config were looked at by their keys; here are a trainer's own, and the module's.
        for callback in trainer.callbacks if stage == "fit" else []:  # type: ignore[attr-defined]
            if (why := conflict_of(type(callback))) is not None:
                raise ConfigError(type(callback).__name__, why)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scheduler = schedulers_of(trainer)[0]
        if scheduler.track:
            return
        self.run, self.planned = (trainer, scheduler), scheduler.plan.horizon.steps
        self.begun, self.asked, self.whole = scheduler.applied, 0, (0, 0)
        own, left = uses_manual_optimization(pl_module), _windows_left(trainer)
        if self.planned is not None and left is not None and not own:
            self.before = max(self.before, self.planned - self.begun - left)
        # Whether it is Lightning's number that was planned, one step a window of accumulation, and nobody's own.
        expected = self.planned == trainer.estimated_stepping_batches != trainer.max_steps
        self.early = own and expected and self.begun == 0
        self.handle = scheduler.optimizer.register_step_pre_hook(self._before_step)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.asked += 1
        self._look(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.whole = batches, taken = self.whole[0] + 1, self._taken()
        if not self.early:
            return
        windows = math.ceil(batches / trainer.accumulate_grad_batches)
        if taken > windows:
            must = (
                f"must be set, for {_name(trainer)} takes {taken} steps in {_counted(batches)}, and {self.planned} are"
            )
            raise ConfigError("horizon.steps" if self.command else "steps", f"{must} planned. {self._advice()}")
        if trainer.is_last_batch:
            self.early = False
            if 2 * (taken + self._left_out()) <= windows:
                told = f"{windows} steps were planned for the first epoch, {taken} were taken"
                raise RunError(f"{told}: the schedule would not come to its end. {self._advice()}")

    @property
    def accounted(self) -> int:
        """Steps that were taken since the run began, and those that were left out."""
        return 0 if self.run is None else self.run[1].applied + self.before + self._left_out()

    def missing(self) -> str:
        """What is wrong with the steps of a fit that has ended, as a sentence; empty where all were taken."""
        if self.run is None:
            return ""
        trainer, scheduler = self.run
        if scheduler.applied == 0:
            return "no optimizer step was taken: nothing was trained"
        if self._taken() and not self.with_gradient:
            return "no parameter had a gradient at any step: nothing was trained"
        if self.planned is None or self.accounted >= self.planned or not came_to_its_end(trainer):
            return ""
        left_out = self.before + self._left_out()
        told = f" and {left_out} left out" if left_out else ""
        return (
            f"{self.planned} steps were planned, {scheduler.applied} were taken{told}: the schedule did not come to its"
            f" end. {self._advice(scheduler.applied)}"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._let_go()
        if not self.command and (missing := self.missing()):
            warnings.warn(missing, stacklevel=2)  # an error would keep a script from what it does with the weights

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._let_go()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.ending:  # the batch under way is not done: a longer run would go on with it
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for count in (progress["total"], progress["current"]):
                count["ready"] = count["started"] = count["processed"] = count["completed"]

    @property
    def state_key(self) -> str:
        return "StepCount"  # the name in checkpoints, which outlives that of the class

    def state_dict(self) -> dict[str, Any]:
        return {"left_out": self.before + self._left_out()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict["left_out"]

    def _taken(self) -> int:
        return 0 if self.run is None else self.run[1].applied - self.begun

    def _left_out(self) -> int:
        """Steps of this fit that were asked for, and that mixed precision or the guard left out."""
        return max(0, self.asked - self._taken())

    def _look(self, optimizer: Optimizer) -> None:
        if not self.with_gradient:
            self.with_gradient = any(p.grad is not None for group in optimizer.param_groups for p in group["params"])

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Of the optimizer itself, so that there is no way around it. A compiled one must not look inside."""
        if torch.compiler.is_compiling():
            self.outside(optimizer)
        else:
            self._check(optimizer)

    def _check(self, optimizer: Optimizer) -> None:
        assert self.run is not None
        trainer, scheduler = self.run
        self._look(optimizer)
        if self.planned is None or scheduler.applied < self.planned:
            return
        kept = ""
        if self.last is not None:
            self.ending = True
            trainer.save_checkpoint(self.last)
            kept = f" What it has come to is in {self.last}"
        raise RunError(
            f"{self.planned} steps were planned, and {_name(trainer)} takes step {self.planned + 1}{_where(trainer)},"
            f" for which the schedule has no rate. {self._advice()}{kept}"
        )

    def _advice(self, steps: int | None = None) -> str:
        """What to type so that the plan has the steps that are taken: ``steps``, or so many as there will be."""
        assert self.run is not None
        trainer, _ = self.run
        say = "horizon.steps={}" if self.command else "lrkit.configure(..., steps={})"
        if not uses_manual_optimization(trainer.lightning_module):
            if trainer.num_training_batches == math.inf:
                ends = f"trainer.max_steps={self.planned} ends there" if steps is None else f"say {say.format(steps)}"
                return f"The data do not say how many there are: {ends}."
            return "Something changes the batches of an epoch, or their accumulation, during the run."
        (batches, taken), epochs = self.whole, trainer.max_epochs or -1
        if steps is None and (batches == 0 or epochs < 1 or trainer.num_training_batches == math.inf):
            return f"It decides itself when to step: say how often by {say.format('...')}."
        steps = steps or round(taken / batches * int(trainer.num_training_batches) * epochs)
        return f"It decides itself when to step: if {taken} in {_counted(batches)} are meant, say {say.format(steps)}."

    def _let_go(self) -> None:
        if self.handle is not None:
            self.handle.remove()
            self.handle = None


def uses_manual_optimization(module: LightningModule) -> bool:
    """Whether a module decides when a step is taken, so that Lightning cannot know how many there will be."""
    return not module.automatic_optimization or is_overridden("optimizer_step", module)


def _windows_left(trainer: Trainer) -> int | None:
    """The windows of accumulation that a fit is going to have from where it begins; None where that has no end."""
    batches, epochs, left = trainer.num_training_batches, trainer.max_epochs or -1, math.inf
    if epochs > 0 and batches != math.inf:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready % int(batches)
        every = trainer.accumulate_grad_batches
        left = math.ceil(batches / every) * (epochs - trainer.current_epoch) - done // every
    if trainer.max_steps != -1:
        left = min(left, trainer.max_steps - trainer.global_step)
    return None if left == math.inf else int(left)


def came_to_its_end(trainer: Trainer) -> bool:
    """Whether a fit ended because it was as long as it was to be, and not because somebody asked for it."""
    epochs, done = trainer.max_epochs or -1, trainer.fit_loop.epoch_progress.current
    through = 0 < epochs <= done.processed and trainer.is_last_batch  # type: ignore[attr-defined]
    return through or (trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps)


def _name(trainer: Trainer) -> str:
    return type(trainer.lightning_module).__name__


def _counted(batches: int) -> str:
    return "its first batch" if batches == 1 else f"{batches} batches"


def _where(trainer: Trainer) -> str:
    count: Any = trainer.fit_loop.batch_idx
    return f" (epoch {trainer.current_epoch + 1}, batch {count + 1})"
