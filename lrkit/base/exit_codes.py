"""How a command ends, as a number for the shell."""

from __future__ import annotations

__all__ = ["DIVERGED", "FAILED", "INTERRUPTED", "OK", "REFUSED", "of_signal"]

OK = 0
#: A run or a search that could not go on: a full disk, a process that died, steps that were planned and not taken.
FAILED = 1
#: Bad input, refused before anything was trained.
REFUSED = 2
#: The divergence guard has ended a run, or a loss is not finite at its end.
DIVERGED = 3
#: Ctrl-C.
INTERRUPTED = 130


def of_signal(signum: int) -> int:
    """The exit code of a command that a signal has ended, as shells have it.

    >>> of_signal(15)
    143
    """
    return 128 + signum
