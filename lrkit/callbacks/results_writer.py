"""Writes the results of a run: ``metrics.json``, and hyper-parameters and the plan for TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import summary as summaries

from lrkit.base.errors import ConfigError, Diverged
from lrkit.base.files import write_json
from lrkit.base.installed_packages import is_installed
from lrkit.base.metric_names import higher_is_better
from lrkit.base.run_files import METRICS, SWEEP
from lrkit.base.tensorboard_summaries import image_summary
from lrkit.callbacks.logger_run_ids import log_hyperparameters
from lrkit.lightning.imports import Callback, LightningModule, ModelCheckpoint, TensorBoardLogger, Trainer
from lrkit.lightning.module import plan_of, schedulers_of, step_of
from lrkit.planning.picture import render_png
from lrkit.planning.plan import Plan
from lrkit.runs.diagnosis import Finding

__all__ = ["ResultsWriter"]


#: Lightning's name for the stage of a sanity validation, which some modules have in the names of their metrics.
_SANITY = "sanity_check"


class ResultsWriter(Callback):
    """Writes final and best metrics to ``metrics.json`` in the run's folder, and hyper-parameters for TensorBoard.

    Args:
        folder: the run's folder.
        hparams: flat names and scalars that describe the run.
        best: the checkpoint callback whose ``monitor`` defines "best".
        more: returns, at the end, the values of other callbacks.
    """

    def __init__(
        self,
        folder: Path,
        hparams: Mapping[str, Any],
        best: ModelCheckpoint | None,
        more: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.folder, self.hparams, self.best, self.more = folder, dict(hparams), best, more
        self.final: dict[str, float] = {}
        self.at_best: dict[str, float] = {}
        self.own_best: dict[str, tuple[float, int]] = {}  # of each metric its best value, and the step
        self.test: dict[str, float] = {}
        self.best_step: int | None = None
        self.best_epoch: int | None = None
        self.findings: Sequence[Finding] = ()
        self.begun: float | None = None
        self.ended: float | None = None

    @property
    def seconds(self) -> float:
        """The duration of the training so far."""
        if self.begun is None:
            return 0.0
        return (time.perf_counter() if self.ended is None else self.ended) - self.begun

    @property
    def monitor(self) -> str | None:
        return None if self.best is None or self.best.monitor == "auto" else self.best.monitor

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun, self.ended = time.perf_counter(), None
        if trainer.is_global_zero:
            for logger in trainer.loggers:  # TensorBoard takes them at the end, beside the results
                if not isinstance(logger, TensorBoardLogger):
                    log_hyperparameters(logger, self.hparams)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # If the last step is in the middle of an epoch, Lightning would end without a last validation.
        if trainer.global_step >= trainer.max_steps != -1 and not trainer.is_last_batch:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._keep_own_best(metrics, step_of(trainer))
        monitor = self.monitor
        if monitor is None or monitor not in metrics or not math.isfinite(metrics[monitor]):
            return
        sign = 1.0 if self.best is None or self.best.mode == "min" else -1.0
        if not self.at_best or sign * metrics[monitor] < sign * self.at_best[monitor]:
            self.at_best = metrics
            self.best_step, self.best_epoch = step_of(trainer), trainer.current_epoch

    def _keep_own_best(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep the best value of each metric, by the direction that its name has."""
        for name, value in metrics.items():
            sign = -1.0 if higher_is_better(name) else 1.0
            if math.isfinite(value) and (name not in self.own_best or sign * value < sign * self.own_best[name][0]):
                self.own_best[name] = (value, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.perf_counter()
        self.final = {name: float(value) for name, value in trainer.callback_metrics.items()} | dict(self.more())
        if trainer.is_global_zero:
            summary = {f"result/final {name}": value for name, value in self.final.items()}
            summary |= {f"result/best {name}": value for name, value in self.at_best.items()}
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    _log_hparams(self.hparams, summary, logger, step_of(trainer), (self.folder.parent / SWEEP).exists())
                    _draw_plan(plan_of(trainer), logger)
                else:
                    logger.log_metrics(summary, step_of(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged):  # it has ended, and its metrics are known
            self.on_train_end(trainer, pl_module)

    @property
    def state_key(self) -> str:
        return "Results"  # the key in existing checkpoints, from an earlier name of the class

    def state_dict(self) -> dict[str, Any]:
        own = {name: list(best) for name, best in self.own_best.items()}
        return {"at_best": self.at_best, "best_step": self.best_step, "best_epoch": self.best_epoch, "own_best": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.at_best = state_dict["at_best"]
        self.best_step, self.best_epoch = state_dict["best_step"], state_dict["best_epoch"]
        own = state_dict.get("own_best", {})  # earlier checkpoints have none
        self.own_best = {name: (float(value), int(step)) for name, (value, step) in own.items()}

    def as_json(self, trainer: Trainer, status: str, why: str = "") -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "status": status,
            **({"why": why} if why else {}),
            "monitor": self.monitor,
            "steps": step_of(trainer),
            **_read_track_steps(trainer),
            "epochs": trainer.current_epoch,
            "seconds": round(self.seconds, 3),
            "final": self.final,
            "best": {"step": self.best_step, "epoch": self.best_epoch, **self.at_best},
            "own_best": {name: {"value": value, "step": step} for name, (value, step) in self.own_best.items()},
            **({"test": self.test} if self.test else {}),
            **({"data": placed} if (placed := getattr(getattr(trainer, "datamodule", None), "placed", None)) else {}),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def save(self, trainer: Trainer, status: str, why: str = "") -> None:
        """Write ``metrics.json``; ``why`` is the reason for an end that was not planned.

        Raises:
            RunError: it cannot be written.
        """
        if trainer.is_global_zero:
            write_json(self.folder / METRICS, self.as_json(trainer, status, why))


def _read_track_steps(trainer: Trainer) -> dict[str, Any]:
    """The steps of each of several optimizers; empty for one."""
    try:
        steps = {each.track: each.applied for each in schedulers_of(trainer) if each.track}
    except ConfigError:  # it ended before there was a plan
        return {}
    return {"tracks": steps} if steps else {}


def _draw_plan(plan: Plan, logger: TensorBoardLogger) -> None:
    """Write the picture of the plan as an image for TensorBoard."""
    if plan.horizon.steps is None or not is_installed("matplotlib"):
        return
    logger.experiment.file_writer.add_summary(image_summary("plan", render_png(plan)), 0)


def _log_hparams(
    hparams: Mapping[str, Any], metrics: Mapping[str, float], logger: TensorBoardLogger, step: int, of_a_sweep: bool
) -> None:
    """Write hyper-parameters and results for TensorBoard's HParams page; a sweep's folder defines its columns."""
    if not of_a_sweep:
        logger.log_hyperparams(dict(hparams), dict(metrics), step=step)
        return
    logger.log_metrics(dict(metrics), step)
    logger.hparams.update(hparams)
    # Without the list of keys and metrics: TensorBoard would use the list of one job for all jobs.
    for summary in summaries.hparams(dict(hparams), dict(metrics))[1:]:  # type: ignore[no-untyped-call]
        logger.experiment.file_writer.add_summary(summary)
