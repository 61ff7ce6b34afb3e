"""The messages of a run's setup: on the screen, and in the event log of the run."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lrkit.base.event_log import EventLog
from lrkit.base.launcher_environment import global_rank
from lrkit.base.terminal_width import print_line
from lrkit.checkpoint import saved_run

__all__ = ["note_differences", "tell_skipped_checkpoint", "warn_line"]


def warn_line(line: str) -> None:
    print_line(line, sys.stderr)


def note_differences(event_log: EventLog, step: int, quiet: bool) -> Callable[[str], None]:
    """Prints a line about a difference from the interrupted run, and adds it to the event log."""

    def note(line: str) -> None:
        if global_rank() == 0:
            event_log.add(step, "data", line)
            if not quiet:
                print_line(f"note: {line}")

    return note


def tell_skipped_checkpoint(saved: saved_run.SavedRun, event_log: EventLog, quiet: bool) -> None:
    """Report a damaged checkpoint that was skipped: a line, and an entry of the event log."""
    event_log.add(saved.step, "checkpoint", saved.skipped)
    if not quiet:
        warn_line(f"lrkit: damaged checkpoint skipped: {saved.skipped}")
