"""Training: from a config to a finished run in its folder."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lrkit.assembly import (
    callbacks_of,
    check_trainer,
    data_of,
    exact_plan,
    hush_lightning,
    module_of,
    notes_on,
    optimizer_of,
    tracks_of,
    trainer_of,
    why_unfused,
)
from lrkit.base.errors import Diverged, RunError
from lrkit.base.event_log import EventLog
from lrkit.base.files import write_json
from lrkit.base.launcher import global_rank
from lrkit.base.links import check_links
from lrkit.base.metric_names import higher_is_better
from lrkit.base.process_pool import pass_config
from lrkit.base.run_lock import hold_lock
from lrkit.base.safe_path import launch_with_safe_path
from lrkit.callbacks.accumulation_fix import AccumulationFix
from lrkit.callbacks.divergence_guard import DivergenceGuard
from lrkit.callbacks.first_batch import FirstBatchCheck
from lrkit.callbacks.group_names import GroupNaming
from lrkit.callbacks.line_progress import LineProgress
from lrkit.callbacks.loss_recorder import LossRecorder
from lrkit.callbacks.lr_logger import LearningRateLogger
from lrkit.callbacks.metric_name_check import MetricNameCheck
from lrkit.callbacks.noise_scale import NoiseScale
from lrkit.callbacks.plateau_feedback import PlateauFeedback
from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.callbacks.train_loss import TrainLossLogger
from lrkit.checkpoint import io, restoring, saved_run
from lrkit.checkpoint.data_position import DataPosition
from lrkit.checkpoint.module_modes import ModuleModes
from lrkit.checkpoint.policies import Resumption
from lrkit.checkpoint.readable import ReadableCheckpoints
from lrkit.checkpoint.state import CheckpointState
from lrkit.config import compose as configs
from lrkit.config.find_options import AUTO
from lrkit.data.in_memory import loaders_of
from lrkit.lightning import failsafe_loggers as loggers
from lrkit.lightning.callback_list import CallbackList
from lrkit.lightning.classes import (
    Callback,
    LightningModule,
    ModelCheckpoint,
    ProgressBar,
    RichProgressBar,
    TensorBoardLogger,
    Trainer,
    seed_everything,
)
from lrkit.lightning.evaluation_weights import EvaluationMode
from lrkit.lightning.module import OptimizerSetup, configure, groups_of, plan_of, rates_of, step_of, track_groups
from lrkit.lightning.preemption import Preemption, SavingPreemption
from lrkit.lightning.step_axis import StepAxisCallback
from lrkit.lightning.step_count import StepCountCheck
from lrkit.lightning.track_steps import TrackStepCheck
from lrkit.lr_finder.find import resolve_auto_lr
from lrkit.optim import factory
from lrkit.planning import render
from lrkit.planning.plan import Plan
from lrkit.planning.tracks import KEY
from lrkit.runs.diagnosis import diagnose
from lrkit.training.exit_handling import ExitReport

__all__ = ["FinishedRun", "run_training"]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run."""

    status: str
    folder: Path
    plan: Plan
    final: Mapping[str, float]
    best: Mapping[str, float]
    monitor: str | None


def run_training(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> FinishedRun:
    """Train as ``config`` says, and leave everything in ``folder``.

    Args:
        config: what ``lrkit.config.compose`` returned.
        folder: the run's own folder, which exists.
        quiet: print nothing.

    Raises:
        ConfigError: the config cannot mean what it says; nothing was trained.
        SearchError: ``optimizer.lr=auto``, and no rate was found.
    """
    key = "hydra.run.dir" if config["resume"]["path"] is None else "resume.path"
    with ExitStack() as stack:
        if global_rank() == 0:
            check_links(folder, key)
            stack.enter_context(hold_lock(folder, key))
        return _run(config, folder, quiet)


def _run(config: Mapping[str, Any], folder: Path, quiet: bool) -> FinishedRun:
    asked, resumption = config, Resumption.of(config, lambda: configs.schedule_of(config, "cooldown"))
    config = resolve_auto_lr(resumption.config(config), folder / "find", quiet=quiet)
    if asked["optimizer"].get("lr") == AUTO:  # whoever joins, or goes on, is told what was found
        lr = config["optimizer"]["lr"]
        asked = {**asked, "optimizer": {**asked["optimizer"], "lr": lr}, "find": config["find"]}
    declared = configs.check(config)
    if declared is not None:
        resumption.plan(declared)
    rules, (target, options) = config["param_groups"], optimizer_of(config)
    several = tracks_of(config)
    if not several:
        factory.check_optimizer(target, options)
    check_trainer(config)
    hush_lightning()
    seed_everything(config["seed"], workers=True, verbose=False)

    data = data_of(config)
    module = module_of(config, data)
    resumption.check_model(module)

    if type(module).configure_model is LightningModule.configure_model and (several or declared is not None):
        # Again with the model's groups: a run that is not gone on with must be refused before a logger opens its files.
        if several:
            tracks = track_groups(module, several)
            grouped = declared and declared.with_track_groups({name: rates_of(of) for name, of in tracks.items()})
        else:
            grouped = declared and declared.with_groups(rates_of(groups_of(module, rules)))
        if grouped is not None:
            resumption.check(grouped)

    def planner(trainer: Trainer) -> Plan:
        return resumption.plan(exact_plan(config, trainer, declared, notes_on(module, data)))

    def planned(trainer: Trainer, plan: Plan) -> None:
        resumption.check(plan)
        if trainer.is_global_zero:
            _keep(folder / "plan.json", plan.to_json())
            _keep(folder / "config.json", asked)
            if not quiet:
                render.print_plan(plan)

    loaders = loaders_of(data)
    configure(module, OptimizerSetup(planner, planned, target, options, rules, why_unfused(config["trainer"]), several))
    best, last = _checkpoints(config, folder)
    theirs = callbacks_of(config)
    noise = next((callback for callback in theirs if isinstance(callback, NoiseScale)), None)
    if noise is not None:
        noise.check(module, config["data"].get("batch_size"))
    results, trace = (
        ResultsWriter(folder, _hparams(config), best, dict if noise is None else noise.metrics),
        LossRecorder(),
    )
    goes_on = resumption.goes_on
    journal = EventLog(folder if global_rank() == 0 else None)
    say: Callable[[str], None] = (lambda line: None) if quiet else _say
    note = _noting(journal, 0 if goes_on is None else goes_on.step, quiet)
    position = DataPosition(None if goes_on is None else goes_on.content["lrkit"], note)
    names = {*options}.union(*(each.options for each in several))
    memory = CheckpointState(position, goes_on, [*names] if resumption.policy in ("override", "extend") else None, best)
    watch, first = DivergenceGuard(journal, say), FirstBatchCheck()
    readable = ReadableCheckpoints(journal, (lambda line: None) if quiet else _warn)
    # What the size of a loss says of a rate it does not say where two losses pull against each other.
    tracked = TrackStepCheck(say, command=True)
    curves = tracked if several else trace
    # The watch remembers weights that train, so the mode is switched before it.
    kept = None if last is None else folder / "checkpoints" / io.LAST
    steps = StepCountCheck(command=True, last=kept)
    ours = [readable, first, memory, ModuleModes(note), steps, StepAxisCallback(), GroupNaming(), curves,
            TrainLossLogger(), EvaluationMode(), watch]  # fmt: skip
    own = CallbackList([*ours, *_own_callbacks(config, best, say), results])
    listeners = [own, *theirs, *(c for c in (best, last) if c is not None)]
    joins = None if goes_on is None or not _inside(goes_on.path, folder) else goes_on.step
    preemption = Preemption(None) if kept is None else SavingPreemption(kept)
    trainer = _trainer(config, folder, [*listeners, preemption], joins, quiet)
    position.install(trainer)
    loggers.guard_loggers(trainer, list(config["logger"]), journal)
    if kept is not None:
        io.install_durable_io(trainer, kept)
        if trainer.is_global_zero:
            io.sweep_up(kept.parent)
    if resumption.saved is not None and resumption.saved.skipped:
        _tell_skipped(resumption.saved, journal, quiet or not trainer.is_global_zero)
    if resumption.saved is not None and goes_on is None:
        with resumption.explaining(module):
            module.load_state_dict(resumption.saved.content["state_dict"])
    checkpoint = None if goes_on is None else goes_on.path
    if checkpoint is not None:
        restoring.install(trainer, checkpoint)
    diverged = ""
    ending, rejoining = ExitReport(folder, results, preemption), _workers_rejoin(folder, asked, trainer)
    with loggers.quiet_writers(), ending.of(trainer), rejoining:
        try:
            with resumption.explaining(module), first.explaining(module), readable.explaining(trainer):
                trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)
        except Diverged as error:
            diverged = str(error)
            if kept is not None and kept.exists():
                diverged += f"; the last good checkpoint is {kept}"

    plan, step = plan_of(trainer), step_of(trainer)
    results.findings = () if several else diagnose(trace.curves(), plan)
    early = plan.horizon.steps is not None and (step if several else steps.accounted) < plan.horizon.steps
    broken = [name for name, value in results.final.items() if "loss" in name or name == results.monitor
              if not math.isfinite(value)]  # fmt: skip
    diverged = diverged or (f"diverged: {', '.join(broken)} is not finite" if broken else "")
    wrong = "" if diverged else steps.missing() or tracked.missing()
    status = "diverged" if diverged else "failed" if wrong else "stopped" if early else "done"
    if config["test"] and not diverged:
        trainer.test(module, datamodule=loaders, verbose=False)
        results.test = {name: float(value) for name, value in trainer.callback_metrics.items()}
    results.save(trainer, status, wrong)
    if wrong:
        raise RunError(wrong)
    if trainer.is_global_zero and not quiet:
        ended = diverged or (f"stopped at step {step} of {plan.horizon.steps}" if early else "")
        watched = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        said = [] if noise is None else [noise.line(plan.horizon.batch_size)]
        render.print_closing(
            folder, results.final, results.at_best, results.seconds, ended, watched, results.findings, said
        )
    return FinishedRun(status, folder, plan, results.final, results.at_best, results.monitor)


def _checkpoints(config: Mapping[str, Any], folder: Path) -> tuple[ModelCheckpoint | None, ModelCheckpoint | None]:
    """The best model by the monitored metric, and the last state. Two files, for the one is not the other."""
    trainer = config["trainer"]
    if not trainer.get("enable_checkpointing", True) or trainer.get("fast_dev_run"):
        return None, None
    common: dict[str, Any] = {"dirpath": folder / "checkpoints", "enable_version_counter": False}
    last = io.FixedNameCheckpoint(filename="last", save_on_train_epoch_end=True, **common)
    if trainer.get("limit_val_batches") == 0:
        return None, last
    monitor = str(config["monitor"])
    mode = "max" if higher_is_better(monitor) else "min"
    return io.FixedNameCheckpoint(filename="best", monitor=monitor, mode=mode, **common), last


def _own_callbacks(
    config: Mapping[str, Any], best: ModelCheckpoint | None, say: Callable[[str], None]
) -> list[Callback]:
    wanted = {} if config["monitor"] == "auto" or best is None else {"monitor": config["monitor"]}
    if config["plateau"]:
        wanted["plateau.monitor"] = config["plateau"]["monitor"]
    callbacks: list[Callback] = [
        MetricNameCheck(wanted, best, say),
        AccumulationFix(),
        LearningRateLogger(),
    ]
    if config["plateau"]:
        callbacks.append(PlateauFeedback(config["plateau"]["monitor"]))
    return callbacks


def _say(line: str) -> None:
    print(line, flush=True)


def _warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _noting(journal: EventLog, step: int, quiet: bool) -> Callable[[str], None]:
    """Takes lines about what this run cannot have as it was: each is printed, and an entry."""

    def note(line: str) -> None:
        if global_rank() == 0:
            journal.add(step, "data", line)
            if not quiet:
                _say(f"note: {line}")

    return note


def _tell_skipped(saved: saved_run.SavedRun, journal: EventLog, quiet: bool) -> None:
    """A damaged checkpoint was passed over: that is worth a line, and an entry."""
    journal.add(saved.step, "checkpoint", saved.skipped)
    if not quiet:
        _warn(f"lrkit: damaged checkpoint skipped: {saved.skipped}")


def _inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _trainer(
    config: Mapping[str, Any], folder: Path, callbacks: list[Callback], joins: int | None, quiet: bool
) -> Trainer:
    """The trainer; ``joins`` is the step at which it goes on with curves that are in the folder already."""
    options = dict(config["trainer"])
    options["accumulate_grad_batches"] = configs.accumulation(config, configs.replicas_of(options)[0])
    bar = options.pop("enable_progress_bar", None)
    theirs = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if theirs and quiet:  # a bar writes on whatever the screen shows
        callbacks = [each for each in callbacks if not isinstance(each, ProgressBar)]
        theirs, bar = False, bar is True
    elif theirs and bar is None:
        bar = True
    if bar is None:
        bar = sys.stderr.isatty() and not quiet
        if not bar and not quiet:
            callbacks = [*callbacks, LineProgress()]
    if bar and not theirs:
        callbacks = [*callbacks, RichProgressBar(leave=False)]
    trust = config.get("trust", ())
    loggers = [_logger(node, f"logger.{name}", trust, folder, joins) for name, node in config["logger"].items()]
    own = {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": folder}
    return trainer_of({**options, "enable_progress_bar": bool(bar)}, trust, **own)


def _logger(node: Mapping[str, Any], key: str, trust: Sequence[str], folder: Path, joins: int | None) -> Any:
    """A logger, into the run's folder where it is to choose; what lies behind the step that it joins at is void."""
    own: dict[str, Any] = {"save_dir": str(folder)} if node.get("save_dir") == "auto" else {}
    if joins is not None and str(node.get("_target_", "")).endswith("TensorBoardLogger"):
        own["purge_step"] = joins
    return configs.build({**node, **own}, key, trust)


def _hparams(config: Mapping[str, Any]) -> dict[str, Any]:
    """What describes a run, flat and scalar: the same keys for every run of a sweep that changes only values."""
    lengths = {f"trainer.{name}": config["trainer"].get(name) for name in ("max_epochs", "max_steps")}
    flat: dict[str, Any] = {"seed": config["seed"], **lengths}
    flat |= dict(_scalars(config[KEY], KEY))
    for section in ("data", "model", "optimizer", "schedule", "warmup", "cooldown", "plateau", "batch_scaling"):
        node = config[section]
        flat[section] = str(node.get("_target_", node.get("rule", "none"))).rpartition(".")[2]
        for name, value in node.items():
            if name not in ("_target_", "rule") and value is not None:
                flat[f"{section}.{name}"] = value if isinstance(value, int | float | str) else str(value)
    return {name: value for name, value in flat.items() if value is not None}


def _scalars(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """What is inside of a node, each by its dotted key."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _scalars(inner, f"{key}.{name}")
    elif node is not None:
        yield key, node if isinstance(node, int | float | str) else str(node)


def _keep(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; a run that is gone on with keeps what it has."""
    if not file.exists():
        write_json(file, content)


@contextmanager
def _workers_rejoin(folder: Path, asked: Mapping[str, Any], trainer: Trainer) -> Iterator[None]:
    """Processes that Lightning starts for further devices run the resolved config, never the command line again.

    Lightning repeats ``sys.argv``; with Hydra's it would compose anew, resolve ``${now:}`` anew and, under ``-m``,
    start a second sweep. So for the time of the fit the command line is: join the run in this folder, by this config.
    """
    from hydra.core.hydra_config import HydraConfig

    if "LOCAL_RANK" in os.environ:  # this is such a process, or a launcher has started them all
        yield
        return
    argv, hydra, environment = sys.argv, HydraConfig.instance().cfg, dict(os.environ)
    with pass_config(asked) as file, launch_with_safe_path(trainer.strategy.launcher):
        sys.argv, HydraConfig.instance().cfg = [argv[0], "join", str(folder), file], None
        try:
            yield
        finally:
            sys.argv, HydraConfig.instance().cfg = argv, hydra
            # The next job of a sweep must not take itself for a rank of this one.
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                os.environ.pop(name, None)
                if name in environment:
                    os.environ[name] = environment[name]
