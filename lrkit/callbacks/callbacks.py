"""What lrkit does during training: logs rates, feeds reduce-on-plateau, checks metric names, keeps results."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.optim import Optimizer
from torch.utils.tensorboard import summary as summaries

from lrkit.base import tensorboard
from lrkit.base.errors import ConfigError, Diverged, did_you_mean
from lrkit.base.files import write_json
from lrkit.base.metric_names import FIRST_LOADER, validation_loss_name, without_loader_index
from lrkit.lightning.classes import Callback, LightningModule, ModelCheckpoint, TensorBoardLogger, Trainer
from lrkit.lightning.logged_names import logged_names
from lrkit.lightning.module import batch_of, plan_of, scheduler_for, schedulers_of, step_of
from lrkit.planning import render
from lrkit.planning.plan import Plan
from lrkit.planning.tracks import track_tag
from lrkit.runs.diagnosis import Finding
from lrkit.runs.run_reader import SWEEP

__all__ = [
    "AccumulationFix",
    "LearningRateLogger",
    "LineProgress",
    "MetricNameCheck",
    "PlateauFeedback",
    "ResultsWriter",
]


class LearningRateLogger(Callback):
    """Logs ``lr/<group>``, and ``momentum/<group>`` and ``gain`` where they move; x is the optimizer step.

    At a cadence of its own, whatever the cadence of the losses: always the first step, every edge of the curve, the
    last step, every change of the gain, and a few hundred places between. Of several optimizers the tags are
    ``lr/<track>/<group>``; each counts its own steps, and so that a run has one axis, x is the batch, as of the losses.
    """

    points = 400

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cadences = {each.track: _LoggingInterval(each.plan, self.points) for each in schedulers_of(trainer)}
        per_epoch = plan_of(trainer).horizon.steps_per_epoch
        if per_epoch is not None:  # at least one training loss an epoch
            every = min(trainer.log_every_n_steps, per_epoch)  # type: ignore[attr-defined]
            trainer.log_every_n_steps = every  # type: ignore[attr-defined]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        scheduler = scheduler_for(trainer, optimizer)
        t, gain = scheduler.applied, scheduler.total_gain
        if not self.cadences[scheduler.track].due(t, gain):
            return
        scheduler.write()
        groups = {group.get("name", f"group_{i}"): group for i, group in enumerate(optimizer.param_groups)}
        values = {f"lr/{name}": float(group["lr"]) for name, group in groups.items()}
        values |= scheduler.plan.hyper(t)
        if scheduler.plan.plateau is not None or gain != 1.0:
            values["gain"] = gain
        if scheduler.track:
            values = {track_tag(tag, scheduler.track): value for tag, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=batch_of(trainer) if scheduler.track else t)


class _LoggingInterval:
    """When the rates of one optimizer are logged."""

    def __init__(self, plan: Plan, points: int) -> None:
        steps = plan.horizon.steps
        self.edges = frozenset(plan.curve.edges)
        self.last = None if steps is None else steps - 1
        self.every = 50 if steps is None else max(1, steps // points)
        self.seen: tuple[int, float] | None = None

    def due(self, t: int, gain: float) -> bool:
        """Whether those of step ``t`` are."""
        before, self.seen = self.seen, (t, gain)
        changed = before is None or before[1] != gain
        if before is not None and before[0] == t:  # mixed precision skipped a step: the same rate once more
            return False
        return changed or t in self.edges or t == self.last or t % self.every == 0


class AccumulationFix(Callback):
    """Gives the last window of accumulation its full weight, however few batches it has.

    Lightning divides every loss by ``accumulate_grad_batches``, also where the epoch ends before the window is full:
    the gradient of that step is then too small, as if its learning rate were. It is scaled up again here.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if trainer.accumulate_grad_batches == 1 or not pl_module.automatic_optimization:
            return
        gathered = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches
        if gathered == 0:
            return
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for grad in grads:
            grad.mul_(trainer.accumulate_grad_batches / gathered)


class PlateauFeedback(Callback):
    """Shows reduce-on-plateau its metric each time that is new, reduced over all ranks so that all decide alike."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.from_validation = False

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.from_validation = self.monitor in logged_names(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and (self.from_validation or self.monitor.startswith("val")):
            self.from_validation = True
            self._observe(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.from_validation:
            self._observe(trainer)

    def _observe(self, trainer: Trainer) -> None:
        # A rate that still rises is no evidence.
        risen = [each for each in schedulers_of(trainer) if each.applied >= each.plan.warmup_steps]
        if not risen or self.monitor not in trainer.callback_metrics:
            return
        metric = trainer.callback_metrics[self.monitor].detach().to(trainer.strategy.root_device)
        value = float(trainer.strategy.reduce(metric, reduce_op="mean"))
        for scheduler in risen:
            scheduler.observe(value)


#: What some modules name the metrics of a sanity validation by: Lightning's name for the stage.
_SANITY = "sanity_check"


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


class LineProgress(Callback):
    """A line per epoch, at most twenty in a run: progress for pipes and log files."""

    lines = 20

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        every = 1 if epochs is None else -(-epochs // self.lines)
        done = trainer.current_epoch + 1
        if not trainer.is_global_zero or (done % every and done != epochs):
            return
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        said = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        rates = []
        for each in schedulers_of(trainer):
            rate = each.plan.lr(each.plan.groups[0], max(each.applied - 1, 0), each.total_gain)
            rates.append(f"{f'lr/{each.track}' if each.track else 'lr'} {rate:.4g}")
        of = f"/{epochs}" if epochs else ""
        print(f"epoch {done}{of}  step {step_of(trainer)}  {'  '.join(rates)}  {said}", flush=True)


class ResultsWriter(Callback):
    """Keeps final and best metrics: ``metrics.json`` in the run's folder, and hyper-parameters for TensorBoard.

    Args:
        folder: the run's folder.
        hparams: flat names and scalars that describe the run.
        best: the checkpoint whose monitor says what "best" means.
        more: asked at the end for values that others have measured.
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
        self.test: dict[str, float] = {}
        self.best_step: int | None = None
        self.best_epoch: int | None = None
        self.findings: Sequence[Finding] = ()
        self.seconds = 0.0

    @property
    def monitor(self) -> str | None:
        return None if self.best is None or self.best.monitor == "auto" else self.best.monitor

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Where the last step falls into the middle of an epoch, Lightning would end without a last validation.
        if trainer.global_step >= trainer.max_steps != -1 and not trainer.is_last_batch:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        monitor = self.monitor
        if monitor is None or monitor not in metrics or not math.isfinite(metrics[monitor]):
            return
        sign = 1.0 if self.best is None or self.best.mode == "min" else -1.0
        if not self.at_best or sign * metrics[monitor] < sign * self.at_best[monitor]:
            self.at_best = metrics
            self.best_step, self.best_epoch = step_of(trainer), trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.begun
        self.final = {name: float(value) for name, value in trainer.callback_metrics.items()} | dict(self.more())
        if trainer.is_global_zero:
            summary = {f"result/final {name}": value for name, value in self.final.items()}
            summary |= {f"result/best {name}": value for name, value in self.at_best.items()}
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    _log_hparams(self.hparams, summary, logger, step_of(trainer), (self.folder.parent / SWEEP).exists())
                    _draw_plan(plan_of(trainer), logger)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged):  # it has ended all the same, and what it came to is known
            self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"at_best": self.at_best, "best_step": self.best_step, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.at_best = state_dict["at_best"]
        self.best_step, self.best_epoch = state_dict["best_step"], state_dict["best_epoch"]

    def as_json(self, trainer: Trainer, status: str, why: str = "") -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "status": status,
            **({"why": why} if why else {}),
            "monitor": self.monitor,
            "steps": step_of(trainer),
            **_track_steps(trainer),
            "epochs": trainer.current_epoch,
            "seconds": round(self.seconds, 3),
            "final": self.final,
            "best": {"step": self.best_step, "epoch": self.best_epoch, **self.at_best},
            **({"test": self.test} if self.test else {}),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def save(self, trainer: Trainer, status: str, why: str = "") -> None:
        """Write ``metrics.json``; ``why`` says of a run that did not end as planned what ended it.

        Raises:
            RunError: it cannot be written.
        """
        if trainer.is_global_zero:
            write_json(self.folder / "metrics.json", self.as_json(trainer, status, why))


def _track_steps(trainer: Trainer) -> dict[str, Any]:
    """Of several optimizers, the steps that each has taken."""
    try:
        steps = {each.track: each.applied for each in schedulers_of(trainer) if each.track}
    except ConfigError:  # it ended before there was a plan
        return {}
    return {"tracks": steps} if steps else {}


def _draw_plan(plan: Plan, logger: TensorBoardLogger) -> None:
    """The picture of the plan, among TensorBoard's images; at the end of a run, when nobody waits for it."""
    if plan.horizon.steps is None or importlib.util.find_spec("matplotlib") is None:
        return
    with TemporaryDirectory() as folder:
        png = render.draw_picture({"lr": plan}, Path(folder) / "plan.png").read_bytes()
    logger.experiment.file_writer.add_summary(tensorboard.image_summary("plan", png), 0)


def _log_hparams(
    hparams: Mapping[str, Any], metrics: Mapping[str, float], logger: TensorBoardLogger, step: int, of_a_sweep: bool
) -> None:
    """Hyper-parameters and results for TensorBoard's page "HParams"; of a sweep its own folder says what is shown."""
    if not of_a_sweep:
        logger.log_hyperparams(dict(hparams), dict(metrics), step=step)
        return
    logger.log_metrics(dict(metrics), step)
    logger.hparams.update(hparams)
    # All that TensorBoard is told but the list of keys and metrics, of which it would take any job's for all of them.
    for summary in summaries.hparams(dict(hparams), dict(metrics))[1:]:  # type: ignore[no-untyped-call]
        logger.experiment.file_writer.add_summary(summary)
