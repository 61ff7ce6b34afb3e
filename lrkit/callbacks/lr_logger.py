"""Logs the learning rates that the optimizer uses."""

from __future__ import annotations

from torch.optim import Optimizer

from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import batch_of, plan_of, scheduler_for, schedulers_of
from lrkit.planning.batch_rendering import BATCH_TAG
from lrkit.planning.optimizer_tracks import track_tag
from lrkit.planning.plan import Plan

__all__ = ["LearningRateLogger"]


class LearningRateLogger(Callback):
    """Logs ``lr/<group>``, and ``momentum/<group>``, ``gain`` and ``batch/effective`` if they change; x is the step.

    Its interval does not depend on that of the losses. It logs the first step, every edge of a curve or of the batch
    size, the last step, every change of the gain, and a few hundred steps between. With several optimizers the tags are
    ``lr/<track>/<group>``, and x is the batch, as for the losses, because each optimizer counts its own steps.
    """

    points = 400

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.intervals = {each.track: _LoggingInterval(each.plan, self.points) for each in schedulers_of(trainer)}
        per_epoch = plan_of(trainer).horizon.shortest_epoch
        if per_epoch is not None:  # at least one training loss an epoch
            every = min(trainer.log_every_n_steps, per_epoch)  # type: ignore[attr-defined]
            trainer.log_every_n_steps = every  # type: ignore[attr-defined]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        scheduler = scheduler_for(trainer, optimizer)
        t, gain = scheduler.applied, scheduler.total_gain
        if not self.intervals[scheduler.track].is_due(t, gain):
            return
        scheduler.write()
        groups = {group.get("name", f"group_{i}"): group for i, group in enumerate(optimizer.param_groups)}
        values = {f"lr/{name}": float(group["lr"]) for name, group in groups.items()}
        values |= scheduler.plan.hyper(t)
        if (sizes := scheduler.plan.horizon.batch_sizes) is not None:
            values[BATCH_TAG] = float(sizes.at(t))
        if scheduler.plan.plateau is not None or gain != 1.0:
            values["gain"] = gain
        if scheduler.track:
            values = {track_tag(tag, scheduler.track): value for tag, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=batch_of(trainer) if scheduler.track else t)


class _LoggingInterval:
    """Decides at which steps the rates of one optimizer are logged."""

    def __init__(self, plan: Plan, points: int) -> None:
        steps, end = plan.horizon.steps, plan.horizon.end
        self.edges = frozenset(edge for curve, _ in plan.on_curves() for edge in curve.edges) | {*plan.stages}
        self.last = None if end is None else end - 1
        self.every = 50 if steps is None else max(1, steps // points)
        self.previous: tuple[int, float] | None = None

    def is_due(self, t: int, gain: float) -> bool:
        """Whether the rates of step ``t`` are logged."""
        previous, self.previous = self.previous, (t, gain)
        changed = previous is None or previous[1] != gain
        if previous is not None and previous[0] == t:  # mixed precision skipped a step: the same rate again
            return False
        return changed or t in self.edges or t == self.last or t % self.every == 0
