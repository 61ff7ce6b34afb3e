"""Checks the names of monitored metrics, and replaces ``monitor=auto`` by the name of the validation loss."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.metric_names import FIRST_LOADER, validation_loss_name, without_loader_index
from lrkit.callbacks.results_writer import _SANITY
from lrkit.lightning.imports import Callback, LightningModule, ModelCheckpoint, Trainer
from lrkit.lightning.logged_names import logged_names

__all__ = ["MetricNameCheck", "find_missing_metric"]

#: What Lightning's ModelCheckpoint and EarlyStopping say, in the first validation, of a metric that nothing logs.
_MISSING = re.compile(
    r"`ModelCheckpoint\(monitor='(.+?)'\)` could not find|Early stopping conditioned on metric `(.+?)` which is not"
)


def find_missing_metric(error: Exception, config: Mapping[str, Any], trainer: Trainer) -> ConfigError | None:
    """Return the ConfigError for Lightning's error on a metric that is not logged; None for any other error.

    A training metric cannot be checked before the training: see ``MetricNameCheck``.
    """
    found = _MISSING.search(str(error))
    if found is None:
        return None
    name = found[1] or found[2]
    named = [f"callbacks.{each}.monitor" for each, node in config["callbacks"].items() if node.get("monitor") == name]
    key = "monitor" if config["monitor"] == name or not named else named[0]
    return ConfigError(
        key, f"names a metric that is not logged. {did_you_mean(name, sorted(trainer.callback_metrics))}", name
    )


def _callbacks_on(trainer: Trainer, monitor: str) -> list[Any]:
    """The callbacks that monitor a metric."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if getattr(callback, "monitor", None) == monitor]


class MetricNameCheck(Callback):
    """Checks after the sanity validation that every monitored metric is logged, and finds the validation loss.

    Without a sanity validation, or if its stage is part of the names of metrics, the check follows the first
    validation. For a metric of several loaders, that of the first loader is used.

    Args:
        wanted: config key -> metric name, for each monitored metric.
        best: the callback that saves the best checkpoint; a ``monitor`` of ``auto`` is replaced.
        say: is called with a line on the loader that is used, or if there is no metric to monitor.
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
            self._check_names(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and not self.done:
            self._check_names(trainer)

    def _check_names(self, trainer: Trainer) -> None:
        logged = sorted(name for name in logged_names(trainer) if _SANITY not in name)
        self.done = True
        for key, name in self.wanted.items():
            if key == "monitor" and self.best is not None and (first := f"{name}{FIRST_LOADER}") in logged:
                for callback in [self.best, *_callbacks_on(trainer, name)]:
                    callback.monitor = first
                name = first
                self._report_loader(trainer, name, logged)
            if key.startswith("callbacks.") and f"{name}{FIRST_LOADER}" in logged:
                for callback in _callbacks_on(trainer, name):
                    callback.monitor = name = f"{name}{FIRST_LOADER}"
            # A training metric is not logged yet; it is checked at its first use.
            if name not in logged and not name.startswith("train"):
                raise ConfigError(key, f"names a metric that is not logged. {did_you_mean(name, logged)}", name)
        loss = validation_loss_name(logged, averaged=True)
        subject = f"none of {', '.join(logged)}" if logged else "no logged metric"
        self._set_monitor(trainer, loss, logged, f"{subject} is a validation loss by its name")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            self._set_monitor(trainer, None, (), "there is no validation")

    def _set_monitor(self, trainer: Trainer, loss: str | None, logged: Sequence[str], why: str) -> None:
        """Set the metric of the checkpoint callback; without a validation loss it saves no best checkpoint.

        Raises:
            ConfigError: a callback of the user needs the validation loss, and there is none.
        """
        for callback in _callbacks_on(trainer, "auto"):
            if callback is not self.best:
                if loss is None:
                    must = f"must name a metric: {type(callback).__name__} needs one, and {why}"
                    raise ConfigError("monitor", must, "auto")
                callback.monitor = loss
        if self.best is None or self.best.monitor != "auto":
            return
        self.best.monitor = loss
        if loss is None:
            self.best.save_top_k = 0
            if trainer.is_global_zero:
                self.say(f"note: no best.ckpt will be saved, because {why}; monitor=NAME sets another metric")
        else:
            self._report_loader(trainer, loss, logged)

    def _report_loader(self, trainer: Trainer, name: str, logged: Sequence[str]) -> None:
        """Print a note if the metric is that of one of several loaders."""
        others = [other for other in logged if without_loader_index(other) == without_loader_index(name)]
        if len(others) > 1 and trainer.is_global_zero:
            self.say(f"note: monitor={name}, of the first of {len(others)} validation loaders")
