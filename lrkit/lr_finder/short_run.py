"""A trial: a short training on a throw-away copy, which leaves behind nothing but what it measured.

The module is built anew from the config and a seed, the optimizer is the configured one, and nothing is logged, kept
or stopped by what the user has set up for the run itself. Whatever the trainer can do (accumulation, mixed precision,
several processes) the trial does too, because it is a training by Lightning as every other.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lrkit.assembly import hush_lightning, trainer_of, why_unfused
from lrkit.base.errors import ConfigError
from lrkit.base.metric_names import higher_is_better, validation_loss_name
from lrkit.base.signals import Terminated
from lrkit.callbacks.accumulation_fix import AccumulationFix
from lrkit.callbacks.first_batch import FirstBatchCheck
from lrkit.callbacks.noise_scale import NoiseScale
from lrkit.lightning.classes import (
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
from lrkit.lightning.evaluation_weights import EvaluationMode
from lrkit.lightning.module import OptimizerSetup, configure, scheduler_of
from lrkit.lr_finder.task import TrainingTask
from lrkit.planning.plan import Plan

__all__ = ["OF_THE_RUN", "ShortRun", "run_short", "trainer_options"]

#: What decides about the length of the run, or writes: not a trial's business. Other callbacks take part in it.
OF_THE_RUN = (Checkpoint, EarlyStopping, Timer, LearningRateMonitor, NoiseScale, ProgressBar)

_TO_THE_END = "it came to its end"

#: What the trainer must not do in a trial.
_QUIET: Mapping[str, Any] = {
    "max_epochs": -1, "max_steps": -1, "max_time": None, "min_epochs": None, "min_steps": None,
    "fast_dev_run": False, "num_sanity_val_steps": 0, "val_check_interval": None, "check_val_every_n_epoch": 1,
    "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "profiler": None,
    "logger": False,
}  # fmt: skip


@dataclass
class ShortRun:
    """What a trial measured.

    Args:
        full: the plan of the run that it stands for.
        plan: the plan that it followed.
        losses: the training loss of each optimizer step: the mean over accumulated batches and over processes; of a
            module that takes several steps with a batch, of each batch.
        steps: for each loss, the step before which it was measured.
        validated: with ``probe``, the validation loss after each step.
        score: with ``score``, the monitored metric at the end, lower is better; the mean training loss of the last
            tenth where nothing is validated; infinite where the loss was not finite.
        ended: why it ended, in words.
    """

    full: Plan
    plan: Plan
    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    validated: list[float] = field(default_factory=list)
    score: float = math.inf
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
    """Train for some steps.

    Args:
        task: the training that the trial stands for.
        follow: from the plan of the run to the plan to follow here, and the steps to take.
        stop: shown the losses so far after each step; why to end here, or an empty string.
        probe: validate after each step, and show ``stop`` those losses.
        score: validate at the end.

    Raises:
        ConfigError: the config cannot mean what it says, or the module shows no loss.
    """
    hush_lightning()
    seed_everything(task.seed, workers=True, verbose=False)
    module, watch = task.module(), _Watch(stop, probe)

    def planner(trainer: Trainer) -> Plan:
        full = task.plan(trainer)
        plan, watch.steps = follow(full)
        watch.trial = ShortRun(full, plan)
        return plan

    untold: Callable[[Trainer, Plan], None] = lambda trainer, plan: None  # noqa: E731
    configure(module, OptimizerSetup(planner, untold, *task.optimizer(), task.rules, why_unfused(task.trainer)))
    validating = task.trainer.get("limit_val_batches") != 0
    if probe and not validating:
        raise ConfigError("find.loss=val", "needs a validation, and trainer.limit_val_batches is 0")
    with tempfile.TemporaryDirectory() as nowhere:
        trainer = _fitted(task, module, watch, nowhere)
        trial = watch.trial
        assert trial is not None
        if probe and trial.losses and not trial.validated:
            raise ConfigError("find.loss=val", "needs a validation, and there is no validation data")
        if score and _sound(trial):
            trial.score = _score(task, trainer, module, trial) if validating else _tail(trial.losses)
        module.trainer = None
        task.release()
    return trial


def _fitted(task: TrainingTask, module: LightningModule, watch: _Watch, folder: str) -> Trainer:
    """The trainer, after the training that ``watch`` looks at."""
    first = FirstBatchCheck()
    theirs = [callback for callback in task.callbacks() if not isinstance(callback, OF_THE_RUN)]
    own = {"callbacks": [first, EvaluationMode(), AccumulationFix(), *theirs, watch], "default_root_dir": folder}
    trainer = trainer_of(trainer_options(task.trainer, watch.probe), task.trust, **own)
    try:
        with first.explaining(module):
            trainer.fit(module, **task.training_data())
    except SystemExit as ended:
        if trainer.interrupted and not isinstance(ended, Terminated):
            raise KeyboardInterrupt from None  # which Lightning had turned into exit code 1
        raise
    except (ValueError, ArithmeticError) as error:
        # Some modules check their numbers themselves, and raise.
        if watch.trial is None or isinstance(error, ConfigError) or not _burst(module):
            raise
        watch.trial.ended = "the weights had burst"
    return trainer


class _Watch(Callback):
    """Takes down the loss of each optimizer step, and ends the trial in time."""

    def __init__(self, stop: Callable[[Sequence[float]], str], probe: bool) -> None:
        self.stop, self.probe = stop, probe
        self.trial: ShortRun | None = None
        self.steps = 0
        self.window: list[Tensor] = []
        self.applied = self.taken = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trial = self.trial
        assert trial is not None
        self.window.append(_loss_of(outputs, trainer, pl_module))
        if trainer.global_step == self.taken:
            return  # accumulation is still filling
        self.taken = trainer.global_step
        mean = torch.stack(self.window).mean().to(trainer.strategy.root_device)
        self.window.clear()
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        applied = scheduler_of(trainer).applied
        if applied > self.applied or not math.isfinite(loss):  # else mixed precision skipped the step: not a new rate
            trial.losses.append(loss)
            trial.steps.append(self.applied)
            self.applied = applied
        if not math.isfinite(loss):
            trial.ended = "the loss was not finite"
        elif self.taken > 2 * self.steps + 20:
            trial.ended = "the gradients were not finite"
        elif not self.probe:
            trial.ended = self.stop(trial.losses)
        self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.trial is None or not self.probe or len(self.trial.validated) == len(self.trial.losses):
            return
        name = validation_loss_name(trainer.callback_metrics)
        if name is None:
            raise ConfigError("find.loss=val", "needs a validation loss, and none is logged")
        metric = trainer.callback_metrics[name].detach().to(trainer.strategy.root_device)
        self.trial.validated.append(float(trainer.strategy.reduce(metric, reduce_op="mean")))
        if not self.trial.ended:
            self.trial.ended = self.stop(self.trial.validated)
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        assert self.trial is not None
        if not self.trial.ended and self.applied >= self.steps:
            self.trial.ended = _TO_THE_END
        if self.trial.ended:
            trainer.should_stop = True


def trainer_options(trainer: Mapping[str, Any], probing: bool = False) -> dict[str, Any]:
    """The trainer of a trial: as configured, but quiet, and without an end of its own."""
    options = {**trainer, **_QUIET}
    if probing:  # after each optimizer step, whatever an epoch is
        options |= {"val_check_interval": trainer["accumulate_grad_batches"], "check_val_every_n_epoch": None}
    else:
        options["limit_val_batches"] = 0
    return options


def _loss_of(outputs: Any, trainer: Trainer, module: LightningModule) -> Tensor:
    """The loss of a batch: what ``training_step`` returned, or else what it logged."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if isinstance(loss, Tensor):
        # Lightning has divided it, so that the gradients of a window add up.
        scale = trainer.accumulate_grad_batches if module.automatic_optimization else 1
        return loss.detach().float().mean() * scale
    logged = trainer.callback_metrics
    for name in ("train/loss", "train_loss", "loss"):
        if name in logged:
            return logged[name].detach().float()
    raise ConfigError("model", f"shows no training loss: {type(module).__name__}.training_step returns none")


def _score(task: TrainingTask, trainer: Trainer, module: LightningModule, trial: ShortRun) -> float:
    """The monitored metric, so that lower is better."""
    if type(module).validation_step is LightningModule.validation_step:
        return _tail(trial.losses)
    limit = task.trainer.get("limit_val_batches")
    trainer.limit_val_batches = 1.0 if limit is None else limit
    try:
        found = trainer.validate(module, **task.validation_data(), verbose=False)
    except MisconfigurationException:  # nothing to validate with
        return _tail(trial.losses)
    metrics = {name: float(value) for each in found for name, value in each.items()}
    wanted = task.monitor
    name = validation_loss_name(metrics) if wanted == "auto" else wanted
    if name is None:
        return _tail(trial.losses)
    if name not in metrics:
        raise ConfigError("monitor", f"names a metric that is not logged. Accepted: {', '.join(sorted(metrics))}", name)
    value = torch.tensor(
        -metrics[name] if higher_is_better(name) else metrics[name], device=trainer.strategy.root_device
    )
    mean = float(trainer.strategy.reduce(value, reduce_op="mean"))  # so that all processes decide alike
    return mean if math.isfinite(mean) else math.inf


def _sound(trial: ShortRun) -> bool:
    """Whether it came to its end."""
    return trial.ended == _TO_THE_END and all(map(math.isfinite, trial.losses))


def _burst(module: LightningModule) -> bool:
    """Whether weights are not finite, or larger than those of any network that learns."""
    return not all(bool((parameter.abs() < 1e6).all()) for parameter in module.parameters())


def _tail(losses: Sequence[float]) -> float:
    last = losses[-max(1, len(losses) // 10) :]
    mean = sum(last) / len(last) if last else math.inf
    return mean if math.isfinite(mean) else math.inf
