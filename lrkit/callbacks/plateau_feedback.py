"""Passes the monitored metric to reduce-on-plateau."""

from __future__ import annotations

from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.logged_names import logged_names
from lrkit.lightning.module import schedulers_of

__all__ = ["PlateauFeedback"]


class PlateauFeedback(Callback):
    """Passes each new value of the metric, averaged over all ranks so that all decide alike, to reduce-on-plateau."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.from_validation = False

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.from_validation = self.monitor in logged_names(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and (self.from_validation or self.monitor.startswith("val")):
            self.from_validation = True
            self._observe_metric(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.from_validation:
            self._observe_metric(trainer)

    def _observe_metric(self, trainer: Trainer) -> None:
        # During warmup the metric does not count.
        past_warmup = [each for each in schedulers_of(trainer) if each.applied >= each.plan.warmup_steps]
        if not past_warmup or self.monitor not in trainer.callback_metrics:
            return
        metric = trainer.callback_metrics[self.monitor].detach().to(trainer.strategy.root_device)
        value = float(trainer.strategy.reduce(metric, reduce_op="mean"))
        for scheduler in past_warmup:
            scheduler.observe(value)
