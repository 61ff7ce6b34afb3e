"""A watchdog for signals: it ends this process where a signal asks for that and the main thread does not answer.

Python calls the handler of a signal in the main thread, between two of its instructions. A thread that waits inside of
a library (for processes that do not come, or in a collective operation whose other side is gone) never gets there. But
the operating system's side of the handler writes a byte (``signal.set_wakeup_fd``), which a thread of ours reads.

Before a training has begun, the main thread has ``GRACE`` seconds to answer; while it imports something it does not,
for the import might swallow the answer, and is asked again when that may be over. In a training it has as long as
steps are finished: it ends where none was for the training's patience. A second signal gives it ``GRACE`` seconds
again. Nothing is torn by it: files are written beside their places and put there in one piece.
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
from lrkit.base.exit_codes import of_signal
from lrkit.base.launcher import global_rank
from lrkit.base.signals import signal_name

__all__ = ["AGAIN", "GRACE", "Training", "run_watchdog", "watch_training"]

GRACE = 3.0  #: seconds for an answer
AGAIN = 5.0  #: a signal that comes so many seconds after the first is a second one; before, it is the same, told twice
_FAREWELL = 5.0  # seconds for what is said and kept at the end
_TICK = 0.1
_OVER = 0  # no signal's number

_ASKED = (signal.SIGTERM, signal.SIGINT)


class Training(Protocol):
    """What the watchdog must know of a training."""

    def begun(self) -> bool:
        """Whether a signal waits for the end of a step."""

    def ends(self) -> bool:
        """Whether it has heard, and is being ended."""

    def progress(self) -> object:
        """Something that changes with each batch, and while a checkpoint is written."""

    def patience(self) -> float:
        """Seconds without progress after which nothing is to be hoped for."""

    def farewell(self, signum: int) -> str:
        """Take down how it ended, from another thread than the main one; the sentence that says so."""


@dataclass
class _Asked:
    signum: int
    first: float
    since: float
    answers: int  # there were before it came
    urgent: bool
    progress: object = None


class _Watchdog:
    def __init__(self) -> None:
        self.training: Training | None = None
        self.reads, self.writes = socket.socketpair()  # Windows knows nothing else that may be a wakeup descriptor
        self.reads.setblocking(False)
        self.writes.setblocking(False)
        self.answers = signals.count_answers()
        self.asked: _Asked | None = None
        self.echoes = 0  # signals that we have sent to ourselves, and not read yet
        self.thread = threading.Thread(target=self._watch, daemon=True, name="lrkit watchdog")

    def close(self) -> None:
        with suppress(OSError):
            self.writes.send(bytes([_OVER]))
        self.thread.join()
        self.reads.close()
        self.writes.close()

    def _watch(self) -> None:
        while True:
            select.select([self.reads], [], [], _TICK if self.asked else None)
            came = b""
            with suppress(BlockingIOError):
                came = self.reads.recv(64)
            if _OVER in came:
                return
            for signum in came:
                if signum in _ASKED and self.echoes:
                    self.echoes -= 1
                elif signum in _ASKED:
                    self._take(signum)
            if self.asked is not None and self._overdue(self.asked):
                self._end(self.asked.signum)
            if self.asked is not None and signals.put_off():  # the import that it waits for may be over
                self.echoes += 1
                os.kill(os.getpid(), self.asked.signum)
            self.answers = signals.count_answers()

    def _take(self, signum: int) -> None:
        now, training = time.monotonic(), self.training
        waits = training is not None and training.begun()
        if self.asked is None:
            self.asked = _Asked(signum, now, now, self.answers, not waits, training and training.progress())
        elif now - self.asked.first > AGAIN:
            self.asked = _Asked(signum, self.asked.first, now, self.answers, True)

    def _overdue(self, asked: _Asked) -> bool:
        """Whether nothing has come of it; what somebody takes care of is let be, until a second signal comes."""
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

    def _end(self, signum: int) -> None:
        said = [f"stopped by {signal_name(signum)}"]

        def keep() -> None:
            if self.training is not None:
                said.append(self.training.farewell(signum))
            sys.stdout.flush()

        keeping = threading.Thread(target=keep, daemon=True)
        keeping.start()
        keeping.join(_FAREWELL)
        if global_rank() == 0:
            with suppress(OSError):
                os.write(2, f"lrkit: {said[-1]}\n".encode())
        os._exit(of_signal(signum))


_watchdog: _Watchdog | None = None


@contextmanager
def run_watchdog() -> Iterator[None]:
    """Within it, a main thread that does not answer SIGTERM or Ctrl-C is not waited for. Elsewhere it does nothing."""
    global _watchdog
    if threading.current_thread() is not threading.main_thread() or _watchdog is not None:
        yield
        return
    _watchdog = watchdog = _Watchdog()
    before = signal.set_wakeup_fd(watchdog.writes.fileno(), warn_on_full_buffer=False)
    watchdog.thread.start()
    signals.watched = True
    try:
        yield
    finally:
        signals.watched = False
        if _watchdog is watchdog:  # else this process was forked meanwhile
            signal.set_wakeup_fd(before)
            _watchdog = None
            watchdog.close()


def _forked() -> None:
    """A process that is forked has no watchdog, and must not write to that of its parent."""
    global _watchdog
    if _watchdog is not None:
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)
        _watchdog, signals.watched = None, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def watch_training(under_way: Training) -> Iterator[None]:
    """Within it, this training is what a signal would end."""
    watchdog = _watchdog
    if watchdog is None:
        yield
        return
    watchdog.training = under_way
    try:
        yield
    finally:
        watchdog.training = None
