"""A short run: a short training of a temporary copy, of which only the measurements remain.

The module is created from the config and a seed, and the optimizer is the configured one. The user's callbacks that
log, save or stop are left out. Accumulation, mixed precision and several processes are as in the run, because the short
run is a training by Lightning, too.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.base.metric_names import higher_is_better, validation_loss_name
from lrkit.base.signals import Terminated
from lrkit.callbacks.first_batch_check import FirstBatchCheck
from lrkit.callbacks.incomplete_accumulation import IncompleteAccumulation
from lrkit.callbacks.noise_scale import NoiseScale
from lrkit.lightning.evaluation_weights import EvaluationMode
from lrkit.lightning.imports import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LearningRateMonitor,
    LightningModule,
    MisconfigurationException,
    ProgressBar,
    Timer,
    Trainer,
    seed_everything,
)
from lrkit.lightning.module import OptimizerSetup, configure, scheduler_of
from lrkit.lightning.silenced_messages import silence_lightning
from lrkit.lightning.trainer_objects import is_about_batches, name_key, trainer_of
from lrkit.lr_finder.training_task import TrainingTask
from lrkit.planning.plan import Plan

__all__ = ["OF_THE_RUN", "ShortRun", "run_short", "trainer_options"]

#: Callbacks that stop a run or write files: a short run leaves them out. It has the other callbacks of the user.
OF_THE_RUN = (Checkpoint, EarlyStopping, Timer, LearningRateMonitor, NoiseScale, ProgressBar)

_TO_THE_END = "it came to its end"
#: The score of a short run without a validation.
_TAIL = "mean training loss of the last tenth"

#: The options of the trainer that a short run replaces.
_QUIET: Mapping[str, Any] = {
    "max_epochs": -1, "max_steps": -1, "max_time": None, "min_epochs": None, "min_steps": None,
    "fast_dev_run": False, "num_sanity_val_steps": 0, "val_check_interval": None, "check_val_every_n_epoch": 1,
    "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "profiler": None,
    "logger": False,
}  # fmt: skip


@dataclass
class ShortRun:
    """The measurements of a short run.

    Args:
        full: the plan of the whole run.
        plan: the plan of the short run.
        losses: the training loss of each optimizer step: the mean over accumulated batches and over processes. A
            module that takes several steps in a batch has one loss for each batch.
        steps: for each loss, the step before which it was measured.
        validated: with ``probe``, the validation loss after each step.
        score: with ``score``, the monitored metric at the end, lower is better; without a validation, the mean training
            loss of the last tenth of the steps; infinite if the loss was not finite.
        scored: what ``score`` is, as a name of a metric or as a phrase.
        ended: the reason for its end, as a phrase.
    """

    full: Plan
    plan: Plan
    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    validated: list[float] = field(default_factory=list)
    score: float = math.inf
    scored: str = ""
    ended: str = ""

    @property
    def rates(self) -> list[float]:
        """The base rate of each loss."""
        return [self.plan.base_lr * self.plan.curve(t) for t in self.steps]


def run_short(
    task: TrainingTask,
    follow: Callable[[Plan], tuple[Plan, int]],
    *,
    stop: Callable[[Sequence[float]], str] = lambda losses: "",
    probe: bool = False,
    score: bool = False,
) -> ShortRun:
    """Train for some steps, and return the measurements.

    Args:
        task: the training of the whole run.
        follow: returns, for the plan of the whole run, the plan of the short run and its number of steps.
        stop: is called with the losses so far after each step; returns a reason to end, or an empty string.
        probe: validate after each step, and call ``stop`` with the validation losses.
        score: validate at the end.

    Raises:
        ConfigError: the training is not possible, or the module returns no loss.
    """
    silence_lightning()
    seed_everything(task.seed, workers=True, verbose=False)
    module, recorder = task.module(), _LossRecorder(stop, probe)

    def planner(trainer: Trainer) -> Plan:
        full = task.plan(trainer)
        plan, recorder.steps = follow(full)
        recorder.short_run = ShortRun(full, plan)
        return plan

    ignore_plan: Callable[[Trainer, Plan], None] = lambda trainer, plan: None  # noqa: E731
    configure(module, OptimizerSetup(planner, ignore_plan, *task.optimizer(), task.rules))
    validating = task.trainer.get("limit_val_batches") != 0
    if probe and not validating:
        raise ConfigError("find.loss=val", "needs a validation, and trainer.limit_val_batches is 0")
    with tempfile.TemporaryDirectory() as folder:
        trainer = _fit_module(task, module, recorder, folder)
        short_run = recorder.short_run
        assert short_run is not None
        if probe and short_run.losses and not short_run.validated:
            raise ConfigError("find.loss=val", "needs a validation, and there is no validation data")
        if score and _has_finished(short_run):
            scored = _validate(task, trainer, module) if validating else None
            short_run.scored, short_run.score = scored or (_TAIL, _mean_of_tail(short_run.losses))
        module.trainer = None
        task.release()
    return short_run


def _fit_module(task: TrainingTask, module: LightningModule, recorder: _LossRecorder, folder: str) -> Trainer:
    """Train the module; return the trainer. ``recorder`` has the measurements."""
    first = FirstBatchCheck()
    user_callbacks = [callback for callback in task.callbacks() if not isinstance(callback, OF_THE_RUN)]
    own = {
        "callbacks": [first, EvaluationMode(), IncompleteAccumulation(), *user_callbacks, recorder],
        "default_root_dir": folder,
    }
    trainer = trainer_of(trainer_options(task.trainer, recorder.probe), task.trust, **own)
    try:
        with first.explaining(module):
            trainer.fit(module, **task.training_data())
    except SystemExit as ended:
        if trainer.interrupted and not isinstance(ended, Terminated):
            raise KeyboardInterrupt from None  # Lightning has turned it into exit code 1
        raise
    except (ValueError, ArithmeticError) as error:
        # Some modules raise on numbers that are not finite.
        if recorder.short_run is None or isinstance(error, ConfigError) or not _has_overflowed(module):
            raise
        recorder.short_run.ended = "the weights overflowed"
    return trainer


class _LossRecorder(Callback):
    """Records the loss of each optimizer step, and ends the short run."""

    def __init__(self, stop: Callable[[Sequence[float]], str], probe: bool) -> None:
        self.stop, self.probe = stop, probe
        self.short_run: ShortRun | None = None
        self.steps = 0
        self.window: list[Tensor] = []
        self.applied = self.taken = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        short_run = self.short_run
        assert short_run is not None
        self.window.append(_read_loss(outputs, trainer, pl_module))
        if trainer.global_step == self.taken:
            return  # accumulation is still filling
        self.taken = trainer.global_step
        mean = torch.stack(self.window).mean().to(trainer.strategy.root_device)
        self.window.clear()
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        applied = scheduler_of(trainer).applied
        if applied > self.applied or not math.isfinite(
            loss
        ):  # else mixed precision skipped the step, and the next has the same rate
            short_run.losses.append(loss)
            short_run.steps.append(self.applied)
            self.applied = applied
        if not math.isfinite(loss):
            short_run.ended = "the loss was not finite"
        elif self.taken > 2 * self.steps + 20:
            short_run.ended = "the gradients were not finite"
        elif not self.probe:
            short_run.ended = self.stop(short_run.losses)
        self._stop_if_ended(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.short_run is None or not self.probe or len(self.short_run.validated) == len(self.short_run.losses):
            return
        name = validation_loss_name(trainer.callback_metrics)
        if name is None:
            raise ConfigError("find.loss=val", "needs a validation loss, and none is logged")
        metric = trainer.callback_metrics[name].detach().to(trainer.strategy.root_device)
        self.short_run.validated.append(float(trainer.strategy.reduce(metric, reduce_op="mean")))
        if not self.short_run.ended:
            self.short_run.ended = self.stop(self.short_run.validated)
        self._stop_if_ended(trainer)

    def _stop_if_ended(self, trainer: Trainer) -> None:
        assert self.short_run is not None
        if not self.short_run.ended and self.applied >= self.steps:
            self.short_run.ended = _TO_THE_END
        if self.short_run.ended:
            trainer.should_stop = True


def trainer_options(trainer: Mapping[str, Any], probing: bool = False) -> dict[str, Any]:
    """The trainer's options for a short run: as configured, without output and without a limit of steps or time."""
    options = {**trainer, **_QUIET}
    if probing:  # validate after each optimizer step
        options |= {"val_check_interval": trainer["accumulate_grad_batches"], "check_val_every_n_epoch": None}
    else:
        options["limit_val_batches"] = 0
    return options


def _read_loss(outputs: Any, trainer: Trainer, module: LightningModule) -> Tensor:
    """The loss of a batch that ``training_step`` returned, or, without one, that it logged.

    Raises:
        ConfigError: it did neither.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if isinstance(loss, Tensor):
        # Lightning has divided it by the number of accumulated batches.
        scale = trainer.accumulate_grad_batches if module.automatic_optimization else 1
        return loss.detach().float().mean() * scale
    logged = trainer.callback_metrics
    for name in ("train/loss", "train_loss", "loss"):
        if name in logged:
            return logged[name].detach().float()
    raise ConfigError("model", f"must return a training loss: {type(module).__name__}.training_step returns none")


def _validate(task: TrainingTask, trainer: Trainer, module: LightningModule) -> tuple[str, float] | None:
    """The monitored metric, and its value, negated if higher is better; None if the run has no validation loss."""
    if type(module).validation_step is LightningModule.validation_step:
        return None
    limit = task.trainer.get("limit_val_batches")
    trainer.limit_val_batches = 1.0 if limit is None else limit
    try:
        found = trainer.validate(module, **task.validation_data(), verbose=False)
    except MisconfigurationException as error:
        if is_about_batches(error):
            raise name_key(error, task.trainer) from error
        return None  # the run has no validation data
    metrics = {name: float(value) for each in found for name, value in each.items()}
    wanted = task.monitor
    name = validation_loss_name(metrics) if wanted == "auto" else wanted
    if name is None:
        return None
    if name not in metrics:
        raise ConfigError("monitor", f"names a metric that is not logged. Accepted: {', '.join(sorted(metrics))}", name)
    rises = higher_is_better(name)
    value = torch.tensor(-metrics[name] if rises else metrics[name], device=trainer.strategy.root_device)
    mean = float(trainer.strategy.reduce(value, reduce_op="mean"))  # the same on all processes, which must decide alike
    return f"negative {name}" if rises else name, mean if math.isfinite(mean) else math.inf


def _has_finished(short_run: ShortRun) -> bool:
    """Whether a short run reached its end with finite losses."""
    return short_run.ended == _TO_THE_END and all(map(math.isfinite, short_run.losses))


def _has_overflowed(module: LightningModule) -> bool:
    """Whether a weight is not finite, or larger than the weights of a network that learns."""
    return not all(bool((parameter.abs() < 1e6).all()) for parameter in module.parameters())


def _mean_of_tail(losses: Sequence[float]) -> float:
    """The mean of the last tenth of the losses; infinite if it is not finite."""
    last = losses[-max(1, len(losses) // 10) :]
    mean = sum(last) / len(last) if last else math.inf
    return mean if math.isfinite(mean) else math.inf
