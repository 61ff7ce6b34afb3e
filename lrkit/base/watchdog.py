"""The watchdog for signals: it ends this process if a signal arrives and the main thread does not answer.

Python calls a signal handler in the main thread, between two bytecode instructions. A main thread that waits inside a
library (for missing processes, or in a collective operation without its peers) never gets there. But the C part of the
handler writes a byte to a descriptor (``signal.set_wakeup_fd``), and the watchdog's thread reads it.

Before a training, the main thread has ``GRACE`` seconds to answer. During an import it postpones the signal, because
the import might swallow the exception; the watchdog then sends the signal again. During a training, the process may
continue while it makes progress; it is ended after the training's ``patience`` without progress. After a second signal
the main thread again has ``GRACE`` seconds. No file is left half-written, because lrkit replaces files atomically.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from lrkit.base import signals
from lrkit.base.exit_codes import signal_exit_code
from lrkit.base.launcher_environment import global_rank
from lrkit.base.signals import signal_name

__all__ = ["GRACE", "REPEAT_WINDOW", "Training", "run_watchdog", "watch_training"]

GRACE = 3.0  #: seconds for an answer
REPEAT_WINDOW = 5.0  #: seconds after which a further signal is a second one, not a repetition
_DESCRIBE_TIME = 5.0  # seconds to write the last entries and the last message
_TICK = 0.1
_OVER = 0  # stops the watchdog; no signal has this number

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Training(Protocol):
    """The state of a training that the watchdog reads."""

    def begun(self) -> bool:
        """Return whether a signal takes effect at the end of the current step."""

    def ends(self) -> bool:
        """Return whether the training has received the signal and is stopping."""

    def progress(self) -> object:
        """Return a value that changes with each batch, and while a checkpoint is written."""

    def patience(self) -> float:
        """Return the seconds without progress after which the process is ended."""

    def describe_end(self, signum: int) -> str:
        """Record the end of the run, from a thread that is not the main one, and return the message about it."""


@dataclass
class _Request:
    signum: int
    first: float
    since: float
    answers: int  # signals answered before this one
    urgent: bool
    progress: object = None


class _Watchdog:
    def __init__(self) -> None:
        self.training: Training | None = None
        self.reads, self.writes = socket.socketpair()  # on Windows only a socket can be a wakeup descriptor
        self.reads.setblocking(False)
        self.writes.setblocking(False)
        self.answers = signals.count_answers()
        self.asked: _Request | None = None
        self.echoes = 0  # signals that the watchdog sent to this process and has not read yet
        self.thread = threading.Thread(target=self._watch_signals, daemon=True, name="lrkit watchdog")

    def close(self) -> None:
        with suppress(OSError):
            self.writes.send(bytes([_OVER]))
        self.thread.join()
        self.reads.close()
        self.writes.close()

    def _watch_signals(self) -> None:
        while True:
            select.select([self.reads], [], [], _TICK if self.asked else None)
            came = b""
            with suppress(BlockingIOError):
                came = self.reads.recv(64)
            if _OVER in came:
                return
            for signum in came:
                if signum in _SIGNALS and self.echoes:
                    self.echoes -= 1
                elif signum in _SIGNALS:
                    self._note_signal(signum)
            if self.asked is not None and self._is_overdue(self.asked):
                self._end_process(self.asked.signum)
            if self.asked is not None and signals.is_signal_pending():  # the import may be over
                self.echoes += 1
                os.kill(os.getpid(), self.asked.signum)
            self.answers = signals.count_answers()

    def _note_signal(self, signum: int) -> None:
        now, training = time.monotonic(), self.training
        waits = training is not None and training.begun()
        if self.asked is None:
            self.asked = _Request(signum, now, now, self.answers, not waits, training and training.progress())
        elif now - self.asked.first > REPEAT_WINDOW:
            self.asked = _Request(signum, self.asked.first, now, self.answers, True)

    def _is_overdue(self, asked: _Request) -> bool:
        """Return whether the process must be ended; an answered signal is never overdue until a second one arrives."""
        now, training = time.monotonic(), self.training
        if asked.urgent:
            if signals.count_answers() > asked.answers:
                asked.since = now + 1e9
            return now - asked.since > GRACE
        if training is None or training.ends():
            return False
        progress = training.progress()
        if progress != asked.progress:
            asked.progress, asked.since = progress, now
        return now - asked.since > training.patience()

    def _end_process(self, signum: int) -> None:
        said = [f"stopped by {signal_name(signum)}"]

        def keep() -> None:
            if self.training is not None:
                said.append(self.training.describe_end(signum))
            sys.stdout.flush()

        keeping = threading.Thread(target=keep, daemon=True)
        keeping.start()
        keeping.join(_DESCRIBE_TIME)
        if global_rank() == 0:
            with suppress(OSError):
                os.write(2, f"lrkit: {said[-1]}\n".encode())
        os._exit(signal_exit_code(signum))


_watchdog: _Watchdog | None = None


@contextmanager
def run_watchdog() -> Iterator[None]:
    """Within this context, SIGTERM or Ctrl-C ends a process whose main thread does not answer.

    Outside of the main thread, and within another watchdog, this does nothing.
    """
    global _watchdog
    if threading.current_thread() is not threading.main_thread() or _watchdog is not None:
        yield
        return
    _watchdog = watchdog = _Watchdog()
    before = signal.set_wakeup_fd(watchdog.writes.fileno(), warn_on_full_buffer=False)
    watchdog.thread.start()
    signals.has_watchdog = True
    try:
        yield
    finally:
        signals.has_watchdog = False
        if _watchdog is watchdog:  # else this process is a fork
            signal.set_wakeup_fd(before)
            _watchdog = None
            watchdog.close()


def _forget_watchdog() -> None:
    """Remove the watchdog in a fork, which must not write to the parent's descriptor."""
    global _watchdog
    if _watchdog is not None:
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)
        _watchdog, signals.has_watchdog = None, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_watchdog)


@contextmanager
def watch_training(training: Training) -> Iterator[None]:
    """Within this context, the watchdog reads the state of this training."""
    watchdog = _watchdog
    if watchdog is None:
        yield
        return
    watchdog.training = training
    try:
        yield
    finally:
        watchdog.training = None
