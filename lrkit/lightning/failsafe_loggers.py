"""Loggers that cannot end a training: one that fails is told of once, and is silent from then on.

A full disk under TensorBoard, a server that is down, a folder that somebody has deleted: the curves are lost from
there on, the training is not. What a logger refuses when it is made is still refused, before anything is trained.
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
from lrkit.lightning.classes import Logger, Trainer
from lrkit.lightning.module import step_of

__all__ = ["guard_loggers", "quiet_writers"]

#: What Lightning calls of a logger.
_CALLED = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")

Tell = Callable[[Exception], None]


class _Silence:
    """Stands in for whatever a logger writes to: it has everything, and does nothing."""

    def __getattr__(self, name: str) -> _Silence:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> _Silence:
        return self


class _Shield:
    """Calls what may fail; after a failure, nothing more."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.down = False

    def call(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.down:
            return _Silence()
        try:
            return do(*args, **kwargs)
        except Exception as error:
            self.down = True
            self.tell(error)
            return _Silence()

    def over(self, thing: Any, names: Sequence[str]) -> None:
        """Put it over methods of a thing that stays what it is."""
        for name in names:
            setattr(thing, name, _through(self, getattr(thing, name)))


def _through(shield: _Shield, method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: shield.call(method, *args, **kwargs)


class _Guarded(Logger):
    """Mixed into the class of a logger, so that it is still one of its kind."""

    _shield: _Shield

    @property
    def experiment(self) -> Any:
        if self._shield.down:
            return _Silence()
        try:
            experiment = super().experiment  # type: ignore[misc]
        except AttributeError:  # a logger that has none
            raise
        except Exception as error:
            return self._shield.call(_raise, error)
        if type(experiment).__name__.endswith("DummyExperiment"):  # of a process that writes nothing; it lacks much
            return _Silence()
        if isinstance(experiment, SummaryWriter) and "flush" not in vars(experiment):
            writes = [name for name in dir(experiment) if name.startswith("add_")]
            self._shield.over(experiment, [*writes, "flush", "close"])
            self._shield.over(experiment.file_writer, ["add_summary", "add_event", "flush", "close"])
        return experiment


def _raise(error: Exception) -> None:
    raise error


def guard_loggers(trainer: Trainer, names: Sequence[str], journal: EventLog) -> None:
    """Guard the loggers of a trainer, which are called ``names`` in the config."""
    for name, logger in zip(names, trainer.loggers, strict=True):
        _guard(logger, _Shield(_teller(trainer, name, journal)))


def _guard(logger: Logger, shield: _Shield) -> None:
    kind = type(logger)
    logger.__class__ = type(kind.__name__, (_Guarded, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    logger._shield = shield  # type: ignore[attr-defined]
    shield.over(logger, [name for name in _CALLED if hasattr(logger, name)])


def _teller(trainer: Trainer, name: str, journal: EventLog) -> Tell:
    def tell(error: Exception) -> None:
        why, step = describe_cause(error), step_of(trainer)
        print(
            f"lrkit: logger.{name} has failed at step {step} ({why}); training goes on without it",
            file=sys.stderr,
            flush=True,
        )
        journal.add(step, "logger", why, logger=name)

    return tell


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Within it TensorBoard's writing threads die without a traceback: what killed them is raised where it is told."""
    before = threading.excepthook

    def hook(died: threading.ExceptHookArgs, /) -> None:
        if not type(died.thread).__module__.startswith("tensorboard."):
            before(died)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
