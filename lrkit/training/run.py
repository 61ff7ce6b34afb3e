"""Training: from a config to a finished run in its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrkit.base.command_line import resume_command
from lrkit.base.error_report import describe_cause, write_traceback
from lrkit.base.errors import Diverged, RunError
from lrkit.base.files import read_json, write_json
from lrkit.base.launcher_environment import global_rank
from lrkit.base.run_files import CONFIG_JSON, CONFIG_YAML, ERROR_LOG, PLAN
from lrkit.base.run_lock import hold_lock
from lrkit.base.symbolic_links import check_links
from lrkit.callbacks.monitored_metric import find_missing_metric
from lrkit.checkpoint import durable_io
from lrkit.checkpoint.restore_errors import install_restore_errors
from lrkit.config.config_file import write_config_file
from lrkit.data.in_memory import loaders_of
from lrkit.lightning import failsafe_loggers as loggers
from lrkit.lightning.imports import (
    LightningDataModule,
    LightningModule,
    MisconfigurationException,
    TensorBoardLogger,
    Trainer,
    seed_everything,
)
from lrkit.lightning.module import OptimizerSetup, configure, groups_of, plan_of, rates_of, step_of, track_groups
from lrkit.lightning.planned_stop import has_reached_stop
from lrkit.lightning.sharding import prepare_restoring
from lrkit.lightning.silenced_messages import silence_lightning
from lrkit.lightning.trainer_objects import is_about_batches, name_key
from lrkit.planning.plan import Plan
from lrkit.planning.plan_page import print_plan
from lrkit.runs.diagnosis import diagnose
from lrkit.training.callbacks import RunCallbacks, build_callbacks
from lrkit.training.closing_lines import print_closing
from lrkit.training.environment import describe_process, record_start
from lrkit.training.exit_handling import ExitReport
from lrkit.training.loggers import finishing_runs
from lrkit.training.messages import tell_skipped_checkpoint
from lrkit.training.recorded_training import RecordedTraining
from lrkit.training.run_config import RunConfig, resolve_run_config
from lrkit.training.trainer import build_run_trainer
from lrkit.training.worker_processes import rejoin_as_worker
from lrkit.training_objects.data import data_of
from lrkit.training_objects.exact_plan import exact_plan
from lrkit.training_objects.module import check_test, module_of, notes_on

__all__ = ["FinishedRun", "run_training"]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        status: ``done``, ``stopped`` before its last step, ``diverged`` or ``failed``.
        folder: the run's folder.
        plan: the plan that it followed.
        final: metric -> its last value.
        best: metric -> its value at the best validation, by ``monitor``.
        monitor: the monitored metric; None without one.
    """

    status: str
    folder: Path
    plan: Plan
    final: Mapping[str, float]
    best: Mapping[str, float]
    monitor: str | None


def run_training(
    config: Mapping[str, Any],
    folder: Path,
    *,
    quiet: bool = False,
    module: LightningModule | None = None,
    data: LightningDataModule | None = None,
    recorded: RecordedTraining | None = None,
) -> FinishedRun:
    """Train as ``config`` says, and leave everything in ``folder``.

    Args:
        config: what ``lrkit.config.compose`` returned.
        folder: the run's own folder, which exists.
        quiet: print nothing.
        module, data: objects in place of the classes that the nodes ``model`` and ``data`` name.
        recorded: a training that is over, as a member of a stack; its numbers are used, and no batch is computed.

    Raises:
        ConfigError: the config is invalid; nothing was trained.
        SearchError: ``optimizer.lr=auto``, and no rate was found.
    """
    key = "hydra.run.dir" if config["resume"]["path"] is None else "resume.path"
    with ExitStack() as stack:
        if global_rank() == 0:
            check_links(folder, key)
            stack.enter_context(hold_lock(folder, key))
        stack.enter_context(finishing_runs(config))
        return _train(resolve_run_config(config, folder, quiet), module, data, recorded)


def _train(
    run: RunConfig,
    module: LightningModule | None,
    data: LightningDataModule | None,
    recorded: RecordedTraining | None,
) -> FinishedRun:
    """Train a run by its resolved config."""
    silence_lightning()
    seed_everything(run.config["seed"], workers=True, verbose=False)
    data = data_of(run.config) if data is None else data
    module = module_of(run.config, data, module)
    check_test(run.config, module, data)
    _refuse_another_model(run, module)
    loaders = loaders_of(data)
    _attach_plan(run, module, data)
    callbacks = build_callbacks(run, module)
    trainer = _prepare_trainer(run, module, callbacks)
    if recorded is not None:
        recorded.install(trainer, callbacks)
    diverged = _fit(run, module, loaders, trainer, callbacks)
    ending = _judge(run, trainer, callbacks, diverged)
    if run.config["test"] and not ending.diverged:
        _test(run, module, loaders, trainer, callbacks)
    callbacks.results.save(trainer, ending.status, ending.wrong or _why_stopped(trainer, ending))
    if ending.wrong:
        raise RunError(ending.wrong)
    if trainer.is_global_zero and not run.quiet:
        _report(run, trainer, callbacks, ending)
    results = callbacks.results
    return FinishedRun(ending.status, run.folder, plan_of(trainer), results.final, results.at_best, results.monitor)


def _refuse_another_model(run: RunConfig, module: LightningModule) -> None:
    """Refuse a module that does not fit the checkpoint, before a logger opens its files.

    The plan is not resolved again here: the declared one is given the parameter groups of the module. A module that
    makes its parameters later (``configure_model``) is compared when its optimizer is made.
    """
    run.resumption.check_model(module)
    if run.declared is None and not run.tracks:
        return
    if type(module).configure_model is not LightningModule.configure_model:
        return
    if run.tracks:  # split even where no plan is declared: a parameter of no track is refused here
        split = track_groups(module, run.tracks)
        grouped = run.declared and run.declared.with_track_groups({name: rates_of(of) for name, of in split.items()})
    else:
        grouped = run.declared and run.declared.with_groups(rates_of(groups_of(module, run.config["param_groups"])))
    if grouped is not None:
        run.resumption.check(grouped)


def _attach_plan(run: RunConfig, module: LightningModule, data: LightningDataModule) -> None:
    """Let ``configure_optimizers`` of a module follow the plan, which is printed and saved when it is exact.

    The plan is resolved again then, because only a trainer knows the batches of the real loader and the processes of
    the run; it must be the declared one, or the run is refused before its first step.
    """

    def resolve_exactly(trainer: Trainer) -> Plan:
        return run.resumption.plan(exact_plan(run.config, trainer, run.declared, notes_on(module, data)))

    process = describe_process() if global_rank() == 0 else {}

    def keep_plan(trainer: Trainer, plan: Plan) -> None:
        run.resumption.check(plan)
        if trainer.is_global_zero:
            _write_plan(run, plan)
            goes_on = run.resumption.goes_on
            record_start(run.folder, process, trainer, 0 if goes_on is None else goes_on.step)
            if not run.quiet:
                print_plan(plan)

    rules = run.config["param_groups"]
    configure(module, OptimizerSetup(resolve_exactly, keep_plan, run.target, run.options, rules, run.tracks))


def _prepare_trainer(run: RunConfig, module: LightningModule, callbacks: RunCallbacks) -> Trainer:
    """The trainer of a run, with checkpoints that are written in one piece, and the weights of a ``restart``."""
    resumption, goes_on, last = run.resumption, run.resumption.goes_on, callbacks.last
    joins = None if goes_on is None or not _is_inside(goes_on.path, run.folder) else goes_on.step
    trainer = build_run_trainer(run.config, run.folder, callbacks.for_trainer, callbacks.results, joins, run.quiet)
    callbacks.position.install(trainer)
    loggers.guard_loggers(trainer, list(run.config["logger"]), callbacks.event_log)
    if last is not None:
        durable_io.install_durable_io(trainer, last)
        if trainer.is_global_zero:
            durable_io.remove_leftovers(last.parent)
    if resumption.saved is not None and resumption.saved.skipped:
        tell_skipped_checkpoint(resumption.saved, callbacks.event_log, run.quiet or not trainer.is_global_zero)
    if resumption.saved is not None and goes_on is None:
        with resumption.explaining(module):
            module.load_state_dict(resumption.saved.content["state_dict"])
    if goes_on is not None:
        install_restore_errors(trainer, goes_on.path)
        prepare_restoring(trainer, goes_on.content["optimizer_states"])
    return trainer


def _fit(run: RunConfig, module: LightningModule, loaders: Any, trainer: Trainer, callbacks: RunCallbacks) -> str:
    """Train; why the training diverged, or an empty string."""
    checkpoint = None if run.resumption.goes_on is None else run.resumption.goes_on.path
    report = ExitReport(run.folder, callbacks.results, callbacks.preemption)
    rejoining = rejoin_as_worker(run.folder, run.asked, trainer)
    with loggers.quiet_writers(), report.of(trainer), rejoining:
        try:
            with (
                run.resumption.explaining(module),
                callbacks.first_batch.explaining(module),
                callbacks.plain_data.explaining(trainer),
            ):
                _run_fit(run, trainer, module, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)
        except Diverged as error:
            if callbacks.last is not None and callbacks.last.exists():
                return f"{error}; the last good checkpoint is {callbacks.last}"
            return str(error)
    return ""


def _run_fit(run: RunConfig, trainer: Trainer, module: LightningModule, **how: Any) -> None:
    """Fit; Lightning's refusals of a limit and of a metric, which it finds when it uses them, name their keys."""
    try:
        trainer.fit(module, **how)
    except (MisconfigurationException, RuntimeError) as error:
        if is_about_batches(error):
            raise name_key(error, run.config["trainer"]) from error
        if (missing := find_missing_metric(error, run.config, trainer)) is not None:
            raise missing from error
        raise


@dataclass(frozen=True)
class _Ending:
    """How a run ended.

    Args:
        status: ``done``, ``stopped`` before its last step, ``diverged``, or ``failed``.
        diverged: why it diverged, if so.
        wrong: why the steps that were taken are not those of the plan, if so.
    """

    status: str
    diverged: str = ""
    wrong: str = ""


def _judge(run: RunConfig, trainer: Trainer, callbacks: RunCallbacks, diverged: str) -> _Ending:
    """How a run ended, judged by its steps and its last metrics; findings about its curves go to its results."""
    plan, results = plan_of(trainer), callbacks.results
    results.findings = () if run.tracks else diagnose(callbacks.recorder.curves(), plan)
    broken = [
        name
        for name, value in results.final.items()
        if ("loss" in name or name == results.monitor) and not math.isfinite(value)
    ]
    if broken and not diverged:
        diverged = f"diverged: {', '.join(broken)} is not finite"
    if diverged:
        return _Ending("diverged", diverged)
    if wrong := callbacks.steps.missing() or callbacks.tracks.missing():
        return _Ending("failed", wrong=wrong)
    taken = step_of(trainer) if run.tracks else callbacks.steps.accounted
    return _Ending("stopped" if plan.horizon.steps is not None and taken < plan.horizon.steps else "done")


def _test(run: RunConfig, module: LightningModule, loaders: Any, trainer: Trainer, callbacks: RunCallbacks) -> None:
    """Test the trained module; its metrics go to the results. If the test fails, those of the training are kept."""
    try:
        trainer.test(module, datamodule=loaders, verbose=False)
    except Exception as error:
        callbacks.results.save(trainer, "failed", f"the training is done, and its test failed: {describe_cause(error)}")
        if is_about_batches(error):
            raise name_key(error, run.config["trainer"]) from error
        if trainer.is_global_zero:
            write_traceback(error, run.folder / ERROR_LOG)
        raise
    callbacks.results.test = {name: float(value) for name, value in trainer.callback_metrics.items()}


def _report(run: RunConfig, trainer: Trainer, callbacks: RunCallbacks, ending: _Ending) -> None:
    """Print the closing lines of a run."""
    plan, results, noise = plan_of(trainer), callbacks.results, callbacks.noise
    taken, why = step_of(trainer), _why_stopped(trainer, ending)
    stopped = f"stopped at step {taken} of {plan.horizon.steps}" if ending.status == "stopped" else ""
    if why and callbacks.last is not None:
        onward = resume_command(run.folder, {"horizon.stop_after": "null"})
        stopped += f" by {why}; the schedule goes on with: {onward}"
    watched = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
    said = [] if noise is None else [noise.line(plan.horizon.samples_in(max(taken - 1, 0)))]
    print_closing(run.folder, results, ending.diverged or stopped, watched, said)


def _is_inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _why_stopped(trainer: Trainer, ending: _Ending) -> str:
    """The key that ended a run before its schedule; empty if none did."""
    plan = plan_of(trainer)
    planned = ending.status == "stopped" and plan.horizon.stop_after is not None
    return f"horizon.stop_after={plan.horizon.stop_after}" if planned and has_reached_stop(trainer, plan) else ""


def _write_plan(run: RunConfig, plan: Plan) -> None:
    """Write the plan and the config; a resumed run keeps its files, unless it now stops elsewhere."""
    made, file = plan.to_json(), run.folder / PLAN
    before = read_json(file) if file.exists() else None
    horizon = before.get("horizon") if isinstance(before, Mapping) else None
    stops = horizon.get("stop_after") if isinstance(horizon, Mapping) else None
    moved = stops != made["horizon"]["stop_after"]
    if moved or not file.exists():
        write_json(file, made)
    if moved or not (run.folder / CONFIG_JSON).exists():
        write_json(run.folder / CONFIG_JSON, run.asked)
        write_config_file(run.folder / CONFIG_YAML, run.asked)
