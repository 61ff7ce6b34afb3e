"""What a run tells its user while it is set up: on the screen, and in the run's event log."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lrkit.base.event_log import EventLog
from lrkit.base.launcher import global_rank
from lrkit.checkpoint import saved_run

__all__ = ["note_differences", "print_line", "tell_skipped_checkpoint", "warn_line"]


def print_line(line: str) -> None:
    print(line, flush=True)


def warn_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def note_differences(journal: EventLog, step: int, quiet: bool) -> Callable[[str], None]:
    """Takes lines about what this run cannot have as it was: each is printed, and an entry."""

    def note(line: str) -> None:
        if global_rank() == 0:
            journal.add(step, "data", line)
            if not quiet:
                print_line(f"note: {line}")

    return note


def tell_skipped_checkpoint(saved: saved_run.SavedRun, journal: EventLog, quiet: bool) -> None:
    """A damaged checkpoint was passed over: that is worth a line, and an entry."""
    journal.add(saved.step, "checkpoint", saved.skipped)
    if not quiet:
        warn_line(f"lrkit: damaged checkpoint skipped: {saved.skipped}")
