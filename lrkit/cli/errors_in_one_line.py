"""Reports the error of a command in one line, from one process, and returns the exit code."""

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
    """Return the exit code of ``run``; print an error in one line and return its exit code."""
    try:
        with watchdog.run_watchdog(), raise_on_signals(signal.SIGTERM, signal.SIGINT):
            return run()
    except BrokenPipeError:  # the reader of the pipe has gone
        raise
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return error_report.report_failure(_find_interrupt(error) or error)


def _find_interrupt(error: BaseException) -> BaseException | None:
    """Return the signal that caused an error: Hydra wraps every exception that is raised while it composes."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt | Terminated):
        seen = seen.__cause__ or seen.__context__
    return seen


@contextmanager
def refuse_together() -> Iterator[None]:
    """Within this context, every process raises the same error, and the first one of each machine prints it."""
    try:
        yield
    except ConfigError as error:
        error.told = local_rank() > 0
        raise
