"""Names of monitored metrics, checked before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.metric_names import FIRST_LOADER, validation_loss_name, without_loader_index
from lrkit.callbacks.results_writer import _SANITY
from lrkit.lightning.classes import Callback, LightningModule, ModelCheckpoint, Trainer
from lrkit.lightning.logged_names import logged_names

__all__ = ["MetricNameCheck"]


class MetricNameCheck(Callback):
    """Checks, right after the sanity validation, that every monitored metric is logged; and finds the validation loss.

    After the first validation instead where there is no sanity validation, or the metrics are named by it.
    Of a metric that several loaders have, the first loader's is taken.

    Args:
        wanted: config key -> metric name, for each metric that something waits for.
        best: the checkpoint that keeps the best model; its ``monitor`` is filled in when it is ``auto``.
        say: told, in a line, which loader's was taken, or that there is none to monitor.
    """

    def __init__(
        self, wanted: Mapping[str, str], best: ModelCheckpoint | None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.wanted = dict(wanted)
        self.best = best
        self.say = say
        self.done = False

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not any(_SANITY in name for name in logged_names(trainer)):
            self._check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and not self.done:
            self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        logged = sorted(name for name in logged_names(trainer) if _SANITY not in name)
        self.done = True
        for key, name in self.wanted.items():
            if key == "monitor" and self.best is not None and (first := f"{name}{FIRST_LOADER}") in logged:
                self.best.monitor = name = first
                self._tell(trainer, name, logged)
            # A training metric is not logged yet; it is looked for when it is needed.
            if name not in logged and not name.startswith("train"):
                raise ConfigError(key, f"names a metric that is not logged. {did_you_mean(name, logged)}", name)
        loss = validation_loss_name(logged)
        there = f"none of {', '.join(logged)} is" if logged else "nothing is logged that is"
        self._settle(trainer, loss, logged, f"{there} a validation loss by its name")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            self._settle(trainer, None, (), "there is no validation")

    def _settle(self, trainer: Trainer, loss: str | None, logged: Sequence[str], why: str) -> None:
        """Tell the checkpoint which metric is the validation loss; without one there is no best model to keep."""
        if self.best is None or self.best.monitor != "auto":
            return
        self.best.monitor = loss
        if loss is None:
            self.best.save_top_k = 0
            if trainer.is_global_zero:
                self.say(f"note: no best.ckpt will be kept, for {why}: monitor=NAME takes another metric")
        else:
            self._tell(trainer, loss, logged)

    def _tell(self, trainer: Trainer, name: str, logged: Sequence[str]) -> None:
        """Say so where it is one of several loaders that is monitored."""
        others = [other for other in logged if without_loader_index(other) == without_loader_index(name)]
        if len(others) > 1 and trainer.is_global_zero:
            self.say(f"note: monitor={name}, of the first of {len(others)} validation loaders")
