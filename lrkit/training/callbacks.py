"""The callbacks of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrkit.base.event_log import EventLog
from lrkit.base.launcher_environment import global_rank
from lrkit.base.metric_names import higher_is_better
from lrkit.base.run_files import CHECKPOINTS, LAST
from lrkit.base.terminal_width import print_line
from lrkit.callbacks.divergence_guard import DivergenceGuard
from lrkit.callbacks.first_batch_check import FirstBatchCheck
from lrkit.callbacks.group_names import GroupNaming
from lrkit.callbacks.incomplete_accumulation import IncompleteAccumulation
from lrkit.callbacks.joined_batches import JoinedBatches
from lrkit.callbacks.logger_run_ids import LoggerRuns
from lrkit.callbacks.loss_recorder import LossRecorder
from lrkit.callbacks.lr_logger import LearningRateLogger
from lrkit.callbacks.monitored_metric import MetricNameCheck
from lrkit.callbacks.noise_scale import NoiseScale
from lrkit.callbacks.plateau_feedback import PlateauFeedback
from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.callbacks.train_loss import TrainLossLogger
from lrkit.checkpoint import durable_io
from lrkit.checkpoint.data_position import DataPosition
from lrkit.checkpoint.last_checkpoint_callback import LastCheckpoint
from lrkit.checkpoint.lrkit_state_callback import CheckpointState
from lrkit.checkpoint.module_modes import ModuleModes
from lrkit.checkpoint.plain_data_callback import PlainDataCallback
from lrkit.checkpoint.step_checkpoints import save_after_validation
from lrkit.lightning.accumulation_windows import AccumulationWindows
from lrkit.lightning.callback_list import CallbackList
from lrkit.lightning.compiled_network import CompiledNetwork
from lrkit.lightning.evaluation_weights import EvaluationMode
from lrkit.lightning.imports import Callback, LightningModule, ModelCheckpoint
from lrkit.lightning.logged_step_axis import StepAxisCallback
from lrkit.lightning.matmul_precision import MatmulPrecisionNote
from lrkit.lightning.planned_stop import PlannedStop
from lrkit.lightning.preemption import Preemption, SavingPreemption
from lrkit.lightning.step_count_check import StepCountCheck
from lrkit.lightning.track_step_check import TrackStepCheck
from lrkit.training.hyperparameters import flatten_hyperparameters
from lrkit.training.messages import note_differences, warn_line
from lrkit.training.run_config import RunConfig
from lrkit.training_objects.callbacks import callbacks_of

__all__ = ["RunCallbacks", "build_callbacks"]


@dataclass(frozen=True)
class RunCallbacks:
    """The callbacks of a run, and by name those that later steps of the run read.

    Args:
        for_trainer: all of them, in the order in which they are called.
        last: the file of the last checkpoint; None where the run keeps none.
        event_log: the run's ``events.json``.
        results: writes ``metrics.json``.
        recorder: records the losses from which the diagnosis concludes.
        steps: compares the steps that are taken with the plan.
        tracks: the same for each of several optimizers.
        first_batch: explains an error at the first batch.
        plain_data: converts checkpoints to plain data, which can be read without execution.
        position: the position in the data.
        preemption: answers signals that end the run.
        noise: the user's noise-scale callback, if there is one.
    """

    for_trainer: list[Callback]
    last: Path | None
    event_log: EventLog
    results: ResultsWriter
    recorder: LossRecorder
    steps: StepCountCheck
    tracks: TrackStepCheck
    first_batch: FirstBatchCheck
    plain_data: PlainDataCallback
    position: DataPosition
    preemption: Preemption
    noise: NoiseScale | None


def build_callbacks(run: RunConfig, module: LightningModule) -> RunCallbacks:
    """The callbacks of a run: lrkit's own first, then the user's, then those that save checkpoints.

    Raises:
        ConfigError: a callback of the user cannot be built, or does not fit the run.
    """
    best, last = _build_checkpoints(run.config, run.folder)
    theirs = callbacks_of(run.config, run.folder)
    for checkpoint in (each for each in theirs if isinstance(each, ModelCheckpoint)):
        save_after_validation(checkpoint)
    noise = next((callback for callback in theirs if isinstance(callback, NoiseScale)), None)
    if noise is not None:
        noise.check(module, run.config["data"].get("batch_size"))
    say: Callable[[str], None] = (lambda line: None) if run.quiet else print_line
    goes_on = run.resumption.goes_on
    event_log = EventLog(run.folder if global_rank() == 0 else None)
    note = note_differences(event_log, 0 if goes_on is None else goes_on.step, run.quiet)
    position = DataPosition(None if goes_on is None else goes_on.content["lrkit"], note)
    kept = None if last is None else run.folder / CHECKPOINTS / LAST
    made = RunCallbacks(
        for_trainer=[],
        last=kept,
        event_log=event_log,
        results=_build_results(run, best, noise),
        recorder=LossRecorder(),
        steps=StepCountCheck(command=True, last=kept),
        tracks=TrackStepCheck(say, command=True),
        first_batch=FirstBatchCheck(),
        plain_data=PlainDataCallback(event_log, (lambda line: None) if run.quiet else warn_line),
        position=position,
        preemption=Preemption(None) if kept is None else SavingPreemption(kept),
        noise=noise,
    )
    own = CallbackList(_order_own_callbacks(run, made, _build_state(run, position, best), best, say, note))
    savers = [checkpoint for checkpoint in (best, last) if checkpoint is not None]
    made.for_trainer.extend([own, *theirs, *savers, made.preemption])
    return made


def _build_results(run: RunConfig, best: ModelCheckpoint | None, noise: NoiseScale | None) -> ResultsWriter:
    measured = dict if noise is None else noise.metrics
    return ResultsWriter(run.folder, flatten_hyperparameters(run.config), best, measured)


def _build_state(run: RunConfig, position: DataPosition, best: ModelCheckpoint | None) -> CheckpointState:
    """The state that a checkpoint adds; options that the user may change are those of every optimizer."""
    names = {*run.options}.union(*(each.options for each in run.tracks))
    overridden = [*names] if run.resumption.policy in ("override", "extend") else None
    return CheckpointState(position, run.resumption.goes_on, overridden, best)


def _order_own_callbacks(
    run: RunConfig,
    made: RunCallbacks,
    state: CheckpointState,
    best: ModelCheckpoint | None,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> list[Callback]:
    """lrkit's own callbacks in the order in which they are called."""
    monitor, plateau, compiled = run.config["monitor"], run.config["plateau"], run.config.get("compile")
    wanted = {} if monitor == "auto" or best is None else {"monitor": monitor}
    if plateau:
        wanted["plateau.monitor"] = plateau["monitor"]
    monitors = {f"callbacks.{name}.monitor": str(node.get("monitor")) for name, node in run.config["callbacks"].items()}
    wanted |= {key: name for key, name in monitors.items() if name.startswith("val")}
    return [
        made.plain_data,
        made.first_batch,
        state,
        ModuleModes(note),
        PlannedStop(),
        made.steps,
        StepAxisCallback(),
        AccumulationWindows(),
        JoinedBatches(),
        GroupNaming(),
        # If two losses work against each other, the size of a loss says nothing about the learning rate.
        made.tracks if run.tracks else made.recorder,
        TrainLossLogger(),
        EvaluationMode(),
        DivergenceGuard(made.event_log, say),  # after EvaluationMode: the guard copies the weights that train
        MetricNameCheck(wanted, best, say),
        IncompleteAccumulation(),
        LearningRateLogger(),
        *([MatmulPrecisionNote(say)] if run.config["trainer"].get("matmul_precision") is None else []),
        *([PlateauFeedback(plateau["monitor"])] if plateau else []),
        *([CompiledNetwork({} if compiled is True else compiled)] if compiled else []),
        made.results,
        LoggerRuns(run.folder, list(run.config["logger"])),
    ]


def _build_checkpoints(
    config: Mapping[str, Any], folder: Path
) -> tuple[ModelCheckpoint | None, ModelCheckpoint | None]:
    """The checkpoint callbacks of the best model by the monitored metric and of the last state: two files."""
    trainer = config["trainer"]
    if not trainer.get("enable_checkpointing", True) or trainer.get("fast_dev_run"):
        return None, None
    common: dict[str, Any] = {"dirpath": folder / CHECKPOINTS, "enable_version_counter": False}
    last = LastCheckpoint(filename="last", save_on_train_epoch_end=True, **common)
    if trainer.get("limit_val_batches") == 0:
        return None, last
    monitor = str(config["monitor"])
    mode = "max" if higher_is_better(monitor) else "min"
    return durable_io.FixedNameCheckpoint(filename="best", monitor=monitor, mode=mode, **common), last
