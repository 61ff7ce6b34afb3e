"""Ends a run that is the first part of a longer plan: after ``horizon.stop_after`` optimizer steps.

Lightning's ``max_steps`` becomes this number, after the plan was resolved by the length that the trainer has without
it. With several optimizers Lightning would count the steps of all, so there the run is asked to stop after as many
batches.
"""

from __future__ import annotations

from typing import Any

from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import plan_of, step_of
from lrkit.planning.plan import Plan

__all__ = ["PlannedStop", "has_reached_stop"]


class PlannedStop(Callback):
    """Ends a fit after ``plan.horizon.stop_after`` steps; after the fit the trainer has its own ``max_steps`` again."""

    def __init__(self) -> None:
        self.plan: Plan | None = None  # of a run with several optimizers that stops early
        self.max_steps: int | None = None  # of the trainer, before this fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        plan = plan_of(trainer)
        if plan.horizon.stop_after is None:
            return
        if plan.tracks:
            self.plan = plan
            return
        self.max_steps = trainer.max_steps
        trainer.fit_loop.epoch_loop.max_steps = plan.horizon.stop_after

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.plan is not None and not trainer.is_last_batch:
            trainer.should_stop = trainer.should_stop or has_reached_stop(trainer, self.plan)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.plan is not None:
            trainer.should_stop = trainer.should_stop or has_reached_stop(trainer, self.plan)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            if self.max_steps is not None:
                trainer.fit_loop.epoch_loop.max_steps = self.max_steps
            self.plan = self.max_steps = None


def has_reached_stop(trainer: Trainer, plan: Plan) -> bool:
    """Whether a run has taken the steps after which its plan lets it stop early."""
    stop = plan.horizon.stop_after
    return stop is not None and (step_of(trainer) if plan.tracks else trainer.global_step) >= stop
