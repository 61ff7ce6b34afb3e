"""The exit codes of lrkit."""

from __future__ import annotations

__all__ = ["DIVERGED", "FAILED", "INTERRUPTED", "OK", "REFUSED", "signal_exit_code"]

OK = 0
#: A run or a search that could not finish: a full disk, a dead process, planned optimizer steps that did not happen.
FAILED = 1
#: Bad input, refused before the training.
REFUSED = 2
#: The divergence guard stopped a run, or the loss at its end is not finite.
DIVERGED = 3
#: Ctrl-C.
INTERRUPTED = 130


def signal_exit_code(signum: int) -> int:
    """Return the exit code of a command that a signal ended, by the convention of shells.

    >>> signal_exit_code(15)
    143
    """
    return 128 + signum
