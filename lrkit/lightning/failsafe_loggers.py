"""Loggers whose failure does not end a training: it is reported once, and the logger is not called again.

Examples are a full disk under TensorBoard, a server that does not answer, a deleted folder: the later curves are lost,
the training continues. An error in a logger's constructor still ends the run before training.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from lrkit.base.error_report import describe_cause
from lrkit.base.event_log import EventLog
from lrkit.base.terminal_width import print_line
from lrkit.lightning.imports import Logger, Trainer
from lrkit.lightning.module import step_of

__all__ = ["guard_loggers", "quiet_writers"]

#: The methods of a logger that Lightning calls.
_LOGGER_METHODS = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")

ReportFailure = Callable[[Exception], None]


class _Inert:
    """Replaces the object that a logger writes to: it has every attribute, each a call without effect."""

    def __getattr__(self, name: str) -> _Inert:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return self


class _FailureGuard:
    """Calls functions that may fail; after the first failure it calls none of them."""

    def __init__(self, report: ReportFailure) -> None:
        self.report = report
        self.failed = False

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of the function; an object without effect after a failure."""
        if self.failed:
            return _Inert()
        try:
            return function(*args, **kwargs)
        except Exception as error:
            self.failed = True
            self.report(error)
            return _Inert()

    def wrap(self, target: Any, names: Sequence[str]) -> None:
        """Replace methods of an object by guarded ones; its class stays the same."""
        for name in names:
            setattr(target, name, _guard_method(self, getattr(target, name)))


def _guard_method(guard: _FailureGuard, method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: guard.call(method, *args, **kwargs)


class _GuardedLogger(Logger):
    """A mixin for the class of a logger, so that the logger is still an instance of its class."""

    _failure_guard: _FailureGuard

    @property
    def experiment(self) -> Any:
        if self._failure_guard.failed:
            return _Inert()
        try:
            experiment = super().experiment  # type: ignore[misc]
        except AttributeError:  # a logger without an experiment
            raise
        except Exception as error:
            return self._failure_guard.call(_raise_error, error)
        if type(experiment).__name__.endswith("DummyExperiment"):  # of a process that writes nothing
            return _Inert()
        if isinstance(experiment, SummaryWriter) and "flush" not in vars(experiment):
            writes = [name for name in dir(experiment) if name.startswith("add_")]
            self._failure_guard.wrap(experiment, [*writes, "flush", "close"])
            self._failure_guard.wrap(experiment.file_writer, ["add_summary", "add_event", "flush", "close"])
        return experiment


def _raise_error(error: Exception) -> None:
    raise error


def guard_loggers(trainer: Trainer, names: Sequence[str], event_log: EventLog) -> None:
    """Guard the loggers of a trainer, whose keys in the config are ``names``."""
    for name, logger in zip(names, trainer.loggers, strict=True):
        _guard_logger(logger, _FailureGuard(_make_report(trainer, name, event_log)))


def _guard_logger(logger: Logger, guard: _FailureGuard) -> None:
    kind = type(logger)
    logger.__class__ = type(
        kind.__name__, (_GuardedLogger, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__}
    )
    logger._failure_guard = guard  # type: ignore[attr-defined]
    guard.wrap(logger, [name for name in _LOGGER_METHODS if hasattr(logger, name)])


def _make_report(trainer: Trainer, name: str, event_log: EventLog) -> ReportFailure:
    def report(error: Exception) -> None:
        cause, step = describe_cause(error), step_of(trainer)
        line = f"lrkit: logger.{name} has failed at step {step} ({cause}); training goes on without it"
        print_line(line, sys.stderr)
        event_log.add(step, "logger", cause, logger=name)

    return report


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Within the context TensorBoard's writing threads end without a traceback: their error is raised to the guard."""
    previous = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs, /) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            previous(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous
