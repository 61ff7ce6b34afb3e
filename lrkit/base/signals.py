"""The signals that stop a command: SIGTERM and SIGUSR1, which clusters send before they reclaim a machine, and Ctrl-C.

Each part of the handling is in the package that has what it needs:

    base/signals.py               the handlers, and the exception ``Terminated``; this file needs no torch
    base/watchdog.py              a thread that ends the process if its main thread does not answer
    base/process_pool.py          the jobs of a sweep, which get the signal from their parent process
    cli/errors_in_one_line.py     installs the handlers for a command, and turns the exception into an exit code
    lightning/preemption.py       the handlers during a training: finish the step, save a checkpoint, then end
    training/exit_handling.py     after the training: ``metrics.json``, and the line with the command that resumes it
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lrkit.base.exit_codes import signal_exit_code

__all__ = [
    "STOP_SIGNALS",
    "Terminated",
    "count_answers",
    "handle_signals",
    "has_watchdog",
    "is_signal_pending",
    "note_answer",
    "raise_on_signals",
    "signal_name",
]

#: The signals that stop a command; Windows has no SIGUSR1.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))

_answers = 0
_put_off = False

#: Whether the watchdog runs, which sends a postponed signal again and ends a process that does not answer.
has_watchdog = False

Handler = Callable[[int, FrameType | None], Any]


class Terminated(SystemExit):
    """A signal stopped this command. The exit code is 128 plus the signal's number, as in a shell.

    >>> print(Terminated(signal.SIGTERM), Terminated(signal.SIGTERM).code)
    stopped by SIGTERM 143
    """

    def __init__(self, signum: int, said: str = "") -> None:
        super().__init__(signal_exit_code(signum))
        self.signum, self.said = signum, said or f"stopped by {signal_name(signum)}"

    def __str__(self) -> str:
        return self.said


def signal_name(signum: int) -> str:
    """Return the usual name of a signal.

    >>> signal_name(signal.SIGTERM), signal_name(signal.SIGINT)
    ('SIGTERM', 'Ctrl-C')
    """
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


def note_answer() -> None:
    """Record that the main thread answered a signal. Each handler calls this."""
    global _answers, _put_off
    _answers += 1
    _put_off = False


def count_answers() -> int:
    """Return how many signals the main thread of this process has answered."""
    return _answers


def is_signal_pending() -> bool:
    """Return whether the main thread has postponed a signal that it must still answer."""
    return _put_off


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame is inside an import, which may swallow an exception or leave a half-loaded module."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


@contextmanager
def handle_signals(handler: Handler | signal.Handlers, *signums: int) -> Iterator[None]:
    """Within this context, ``handler`` handles these signals; afterwards the previous handlers are restored.

    Only the main thread of a Python process can set handlers; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, signal.SIG_DFL if previous is None else previous)


@contextmanager
def raise_on_signals(*signums: int) -> Iterator[None]:
    """Within this context, these signals raise ``Terminated``, and SIGINT ``KeyboardInterrupt``.

    A signal that already has another handler, or is ignored, is left alone.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        global _put_off
        if has_watchdog and _is_importing(frame):
            _put_off = True
            return
        note_answer()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(signum)

    defaults = (signal.SIG_DFL, signal.default_int_handler)
    with handle_signals(end, *(signum for signum in signums if signal.getsignal(signum) in defaults)):
        yield
