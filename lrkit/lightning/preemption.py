"""Ends a run at a signal: the current step is finished, a checkpoint is saved, and a resumed run equals one without it.

A run consists of segments, with a stop point between each two: after an optimizer step, after the validation that
follows a step, or at the end of an epoch, never within a window of accumulation. A run ends at the first stop point
after the signal. With several processes, only one may have received the signal, and none may stop while another waits
for it in a collective operation. So after the signal no process begins a segment before all processes have published
the number of their current segment, and all end after the highest of these numbers:

    end = max over processes of the current segment when the process learned of the signal

Before a signal this costs no time in training: a thread checks a few times a second for a signal, and publishes for its
process even while that waits for the others.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from lrkit.base.live_display import write_above_display
from lrkit.base.signals import STOP_SIGNALS, Terminated, note_answer
from lrkit.base.watchdog import REPEAT_WINDOW
from lrkit.lightning.imports import Callback, Checkpoint, LightningModule, SLURMEnvironment, Trainer

__all__ = ["Preemption", "SavingPreemption", "SeveralProcesses", "SingleProcess", "validation_follows"]


class StopAgreement(Protocol):
    """Decides at each stop point whether the run ends there; ``signum`` is the received signal, or None."""

    signum: int | None

    def ends_here(self) -> bool: ...

    def close(self) -> None: ...


class SingleProcess:
    """The agreement of a single process, which ends at the next stop point."""

    signum: int | None = None

    def ends_here(self) -> bool:
        return self.signum is not None

    def close(self) -> None:
        pass


class SeveralProcesses:
    """The agreement of one of several processes, which end at the same stop point.

    Args:
        store: a store that all processes read and write.
        rank: the rank of this process.
        world: the number of processes.
        wait: the seconds to wait for the other processes.
    """

    poll = 0.2  # seconds between two checks for a signal

    def __init__(self, store: TCPStore, rank: int, world: int, wait: float = 60.0) -> None:
        self.signum: int | None = None
        self.store, self.rank, self.world, self.wait = store, rank, world, wait
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.segment = 0
        self.frozen = False
        self.end: int | None = None
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def ends_here(self) -> bool:
        """Whether the run ends at this stop point; may wait for the other processes."""
        with self.lock:
            if not self.frozen:
                self.segment += 1
                return False
        if self.end is None:
            keys = [f"segment{rank}" for rank in range(self.world)]
            self.store.wait(keys, timedelta(seconds=self.wait))
            self.end = max(map(int, self.store.multi_get(keys)))  # one request, not one for each process
        if self.segment < self.end:
            self.segment += 1
            return False
        return True

    def close(self) -> None:
        self.closed.set()

    def _listen(self) -> None:
        try:
            while not self.closed.wait(self.poll):
                if self.signum is not None:
                    self.store.set("signal", str(int(self.signum)))
                if self.store.check(["signal"]):
                    self.signum = int(self.store.get("signal"))
                    with self.lock:
                        self.frozen = True
                        self.store.set(f"segment{self.rank}", str(self.segment))
                    return
        except RuntimeError:
            pass  # the process that owns the store has ended


class Preemption(Callback):
    """Ends a training at SIGTERM, SIGUSR1 and Ctrl-C, by raising ``Terminated``; a second Ctrl-C, or a second
    SIGTERM some seconds later, ends it at once.

    Args:
        last: the file of the checkpoint; None: no checkpoint is saved.
    """

    def __init__(self, last: Path | None) -> None:
        self.last = last
        self.agreement: StopAgreement = SingleProcess()
        self.listens = self.ends = self.saved = False
        self.first_signal: tuple[int, float] | None = None  # the first signal and its time
        self.longest = 0.0  # seconds of the longest batch
        self.batch_end = math.inf

    @property
    def signum(self) -> int | None:
        """The received signal, or None."""
        return self.agreement.signum

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)
        if trainer.world_size > 1:
            agreement = SeveralProcesses(_create_shared_store(trainer), trainer.global_rank, trainer.world_size)
            agreement.signum, self.agreement = self.agreement.signum, agreement

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.batch_end)
        self.batch_end = now
        if self.signum is None and isinstance(self.agreement, SingleProcess):
            return  # without computing the rest, at nearly every batch
        window_is_complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if window_is_complete and not trainer.is_last_batch and not validation_follows(trainer):
            self._stop_if_agreed(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.batch_end = math.inf
        window_is_complete = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if window_is_complete and not trainer.sanity_checking and not trainer.is_last_batch:
            self._stop_if_agreed(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_agreed(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.agreement.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.agreement.close()

    def _listen(self, trainer: Trainer) -> None:
        """Replace Lightning's handlers, which end with exit code 0 without saving; keep a cluster's requeue handler."""
        signums = {*STOP_SIGNALS, signal.SIGINT}
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            signums.discard(environment.requeue_signal or signal.SIGUSR1)
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            self.listens = True
            for signum in signums:
                signal.signal(signum, self._handle_signal)  # Lightning restores all handlers after the training

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        note_answer()
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if (
            self.first_signal is not None
            and signum == self.first_signal[0]
            and time.monotonic() - self.first_signal[1] > REPEAT_WINDOW
        ):
            raise Terminated(signum)  # not the same signal twice, as from a process group and a launcher
        if self.first_signal is None:
            self.first_signal = signum, time.monotonic()
        if self.signum is None:
            self.agreement.signum = signum
            if signum == signal.SIGINT and sys.stderr.isatty():
                write_above_display(b"lrkit: Ctrl-C: this step is finished and saved; a second Ctrl-C ends at once")

    def _stop_if_agreed(self, trainer: Trainer) -> None:
        if _is_about_to_end(trainer):
            return
        try:
            ends = self.agreement.ends_here()
        except RuntimeError:  # another process does not answer, and saving would wait for it for ever
            self.ends = True
            raise Terminated(self.signum or signal.SIGTERM) from None
        if not ends:
            return
        self.ends = True
        if self.last is not None:
            if not trainer.is_last_batch:  # at the end of an epoch it was just saved
                trainer.save_checkpoint(self.last)
            self.saved = True
        raise Terminated(self.signum or signal.SIGTERM)


class SavingPreemption(Preemption, Checkpoint):
    """A ``Preemption`` that saves: Lightning calls a ``Checkpoint`` after all other callbacks have finished."""


def _create_shared_store(trainer: Trainer) -> TCPStore:
    """A new store, shared by all processes of a run."""
    host = os.environ.get("MASTER_ADDR", "localhost")
    own = TCPStore(host, 0, is_master=True, wait_for_workers=False) if trainer.is_global_zero else None
    port = trainer.strategy.broadcast(0 if own is None else own.port)
    return own or TCPStore(host, port, is_master=False, wait_for_workers=False)


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows this batch within the epoch: a resumed run would not do it later."""
    every, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not trainer.enable_validation or every is None or every == float("inf"):
        return False
    if epochs is not None and (trainer.current_epoch + 1) % epochs:
        return False
    batch = trainer.fit_loop.total_batch_idx if epochs is None else trainer.fit_loop.batch_idx
    return (batch + 1) % int(every) == 0


def _is_about_to_end(trainer: Trainer) -> bool:
    """Whether the run ends at this point without the signal, too."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    last = trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch + 1
    early = (trainer.min_epochs or 0) <= trainer.current_epoch and (trainer.min_steps or 0) <= trainer.global_step
    return (last and trainer.is_last_batch) or (trainer.should_stop and early)
