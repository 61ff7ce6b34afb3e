"""Signals that ask a command to end: SIGTERM and SIGUSR1, as clusters send them before they take a machine away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lrkit.base.exit_codes import of_signal

__all__ = [
    "ASKING",
    "Terminated",
    "count_answers",
    "handle_signals",
    "note_answer",
    "put_off",
    "raise_on_signals",
    "signal_name",
    "watched",
]

#: The signals that ask for an end; SIGUSR1 is not known everywhere.
ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))

_answers = 0
_put_off = False

#: Whether somebody sends a signal once more that was put off, and ends this process where that is of no use.
watched = False

Handler = Callable[[int, FrameType | None], Any]


class Terminated(SystemExit):
    """A signal has ended this command. The exit code is that of a shell: 128 and the signal's number.

    >>> print(Terminated(signal.SIGTERM), Terminated(signal.SIGTERM).code)
    stopped by SIGTERM 143
    """

    def __init__(self, signum: int, said: str = "") -> None:
        super().__init__(of_signal(signum))
        self.signum, self.said = signum, said or f"stopped by {signal_name(signum)}"

    def __str__(self) -> str:
        return self.said


def signal_name(signum: int) -> str:
    """The name of a signal, as people know it.

    >>> signal_name(signal.SIGTERM), signal_name(signal.SIGINT)
    ('SIGTERM', 'Ctrl-C')
    """
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


def note_answer() -> None:
    """To be called by each handler: the main thread does answer."""
    global _answers, _put_off
    _answers += 1
    _put_off = False


def count_answers() -> int:
    """How often a handler has been called in this process."""
    return _answers


def put_off() -> bool:
    """Whether a signal has come that the main thread could not answer yet."""
    return _put_off


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported there. What is raised then may be swallowed by it, or leave half of it."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


@contextmanager
def handle_signals(handler: Handler | signal.Handlers, *signums: int) -> Iterator[None]:
    """Within it ``handler`` is what these signals do; afterwards all is as before.

    Python lets only the main thread say what signals do; in another one this does nothing.
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
    """Within it these signals raise ``Terminated``, and SIGINT ``KeyboardInterrupt``; but one that somebody else takes
    care of, or ignores, is let be."""

    def end(signum: int, frame: FrameType | None) -> None:
        global _put_off
        if watched and _imports(frame):
            _put_off = True
            return
        note_answer()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(signum)

    nobodys = (signal.SIG_DFL, signal.default_int_handler)
    with handle_signals(end, *(signum for signum in signums if signal.getsignal(signum) in nobodys)):
        yield
