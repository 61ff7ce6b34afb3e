"""Ending at a signal: the step under way is finished, its checkpoint saved, and the run can go on to the bit.

A run is made of segments with a point between each two: after an optimizer step, after the validation that follows
upon one, or at the end of an epoch, never where a window of accumulation is half full. A run ends at the first point
after the signal. Of several processes only one may have got it, and none may stop while another waits for it in a
collective operation. So from the signal on nobody begins a segment before all have said which one they are in, and
all end after the furthest of them:

    end = max over processes of the segment under way when it heard of the signal

Before a signal this costs nothing: a thread looks a few times a second whether one has come, and answers for its
process also while that waits for the others.
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

from lrkit.base.signals import ASKING, Terminated, note_answer
from lrkit.base.watchdog import AGAIN
from lrkit.lightning.classes import Callback, Checkpoint, LightningModule, SLURMEnvironment, Trainer

__all__ = ["Preemption", "SavingPreemption", "SeveralProcesses", "SingleProcess", "validation_follows"]


class StopAgreement(Protocol):
    """Says at each point whether the run ends there; ``signum`` is the signal, once there is one."""

    signum: int | None

    def here(self) -> bool: ...

    def close(self) -> None: ...


class SingleProcess:
    """One process: it ends at the next point."""

    signum: int | None = None

    def here(self) -> bool:
        return self.signum is not None

    def close(self) -> None:
        pass


class SeveralProcesses:
    """One of several processes, which end at the same point.

    Args:
        store: what all processes can read and write.
        rank: which of them this is.
        world: how many they are.
        wait: seconds for which the others are waited for.
    """

    poll = 0.2  # seconds

    def __init__(self, store: TCPStore, rank: int, world: int, wait: float = 60.0) -> None:
        self.signum: int | None = None
        self.store, self.rank, self.world, self.wait = store, rank, world, wait
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.segment = 0
        self.frozen = False
        self.end: int | None = None
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def here(self) -> bool:
        with self.lock:
            if not self.frozen:
                self.segment += 1
                return False
        if self.end is None:
            keys = [f"segment{rank}" for rank in range(self.world)]
            self.store.wait(keys, timedelta(seconds=self.wait))
            self.end = max(int(self.store.get(key)) for key in keys)
        if self.segment < self.end:
            self.segment += 1
            return False
        return True

    def close(self) -> None:
        self.over.set()

    def _listen(self) -> None:
        try:
            while not self.over.wait(self.poll):
                if self.signum is not None:
                    self.store.set("signal", str(int(self.signum)))
                if self.store.check(["signal"]):
                    self.signum = int(self.store.get("signal"))
                    with self.lock:
                        self.frozen = True
                        self.store.set(f"segment{self.rank}", str(self.segment))
                    return
        except RuntimeError:
            pass  # the process that keeps the store has ended: there is nobody to agree with


class Preemption(Callback):
    """Ends a training at SIGTERM, SIGUSR1 and Ctrl-C, by ``Terminated``; a second Ctrl-C, or a second
    SIGTERM some seconds later, ends it at once.

    Args:
        last: where the checkpoint goes; None saves none.
    """

    def __init__(self, last: Path | None) -> None:
        self.last = last
        self.agreement: StopAgreement = SingleProcess()
        self.listens = self.ends = self.saved = False
        self.heard: tuple[int, float] | None = None  # which signal, and when
        self.longest = 0.0  # seconds of a batch
        self.before = math.inf

    @property
    def signum(self) -> int | None:
        """The signal that has come, if one has."""
        return self.agreement.signum

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)
        if trainer.world_size > 1:
            together = SeveralProcesses(_store(trainer), trainer.global_rank, trainer.world_size)
            together.signum, self.agreement = self.agreement.signum, together

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.before)
        self.before = now
        if self.signum is None and isinstance(self.agreement, SingleProcess):
            return  # at nearly every batch
        full = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if full and not trainer.is_last_batch and not validation_follows(trainer):
            self._point(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = math.inf
        full = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if full and not trainer.sanity_checking and not trainer.is_last_batch:
            self._point(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._point(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.agreement.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.agreement.close()

    def _listen(self, trainer: Trainer) -> None:
        """Take signals over from Lightning, which ends without saving, and with exit code 0; from a cluster's none."""
        signums = {*ASKING, signal.SIGINT}
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            signums.discard(environment.requeue_signal or signal.SIGUSR1)
        if threading.current_thread() is threading.main_thread():  # no other may say what signals do
            self.listens = True
            for signum in signums:
                signal.signal(signum, self._heard)  # Lightning puts all back as it was when the training is over

    def _heard(self, signum: int, frame: FrameType | None) -> None:
        note_answer()
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self.heard is not None and signum == self.heard[0] and time.monotonic() - self.heard[1] > AGAIN:
            raise Terminated(signum)  # a second time, and not the same twice, as from a process group and a launcher
        if self.heard is None:
            self.heard = signum, time.monotonic()
        if self.signum is None:
            self.agreement.signum = signum
            if signum == signal.SIGINT and sys.stderr.isatty():
                # A handler may be called in the middle of a print, which cannot be entered twice.
                os.write(2, b"\nlrkit: Ctrl-C: this step is finished and saved; once more ends at once\n")

    def _point(self, trainer: Trainer) -> None:
        if _finished(trainer):
            return
        try:
            ends = self.agreement.here()
        except RuntimeError:  # another process does not answer; to save would be to wait for it for ever
            self.ends = True
            raise Terminated(self.signum or signal.SIGTERM) from None
        if not ends:
            return
        self.ends = True
        if self.last is not None:
            if not trainer.is_last_batch:  # else it is the end of an epoch, where it was just saved
                trainer.save_checkpoint(self.last)
            self.saved = True
        raise Terminated(self.signum or signal.SIGTERM)


class SavingPreemption(Preemption, Checkpoint):
    """One that saves. Lightning calls whatever is a ``Checkpoint`` after all others: they have done their part then."""


def _store(trainer: Trainer) -> TCPStore:
    """A store of our own that all processes of a run share."""
    host = os.environ.get("MASTER_ADDR", "localhost")
    mine = TCPStore(host, 0, is_master=True, wait_for_workers=False) if trainer.is_global_zero else None
    port = trainer.strategy.broadcast(0 if mine is None else mine.port)
    return mine or TCPStore(host, port, is_master=False, wait_for_workers=False)


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows upon this batch, within the epoch: Lightning would not make up for it."""
    every, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not trainer.enable_validation or every is None or every == float("inf"):
        return False
    if epochs is not None and (trainer.current_epoch + 1) % epochs:
        return False
    batch = trainer.fit_loop.total_batch_idx if epochs is None else trainer.fit_loop.batch_idx
    return (batch + 1) % int(every) == 0


def _finished(trainer: Trainer) -> bool:
    """Whether the run ends here anyway, and may as well be done."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    last = trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch + 1
    early = (trainer.min_epochs or 0) <= trainer.current_epoch and (trainer.min_steps or 0) <= trainer.global_step
    return (last and trainer.is_last_batch) or (trainer.should_stop and early)
