"""Errors of a command: one line each, by one process each, and an exit code."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lrkit.base import error_report, watchdog
from lrkit.base.errors import ConfigError
from lrkit.base.launcher_environment import local_rank
from lrkit.base.signals import Terminated, raise_on_signals

__all__ = ["refuse_together", "report_errors"]


def report_errors(run: Callable[[], int]) -> int:
    """The exit code that ``run`` returns; an error is printed in one line and becomes an exit code."""
    try:
        with watchdog.run_watchdog(), raise_on_signals(signal.SIGTERM, signal.SIGINT):
            return run()
    except BrokenPipeError:  # the reader of the pipe has gone
        raise
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return error_report.report_failure(_interrupt_behind(error) or error)


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """The signal behind an error: Hydra wraps every exception that is raised while it composes."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt | Terminated):
        seen = seen.__cause__ or seen.__context__
    return seen


@contextmanager
def refuse_together() -> Iterator[None]:
    """Within the context all processes refuse together, and the first one of each machine prints the error."""
    try:
        yield
    except ConfigError as error:
        error.told = local_rank() > 0
        raise
