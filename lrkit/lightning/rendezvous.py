"""The rendezvous of a distributed run: all of its processes meet at one address before anything is trained.

torch waits for those that do not come, half an hour and without a word. Here it is said what is waited for, where and
until when, and at its end who has not come.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.constants import default_pg_timeout

from lrkit.base.errors import RunError
from lrkit.base.launcher import detect_launch, local_rank
from lrkit.lightning.classes import LightningEnvironment, Trainer

__all__ = ["Rendezvous"]

Say = Callable[[str], None]
Lost = Callable[[str], None]


def _say(line: str) -> None:
    print(f"lrkit: {line}", file=sys.stderr, flush=True)


class Rendezvous:
    """The rendezvous of a trainer's processes.

    Args:
        trainer: of them all.
        say: how a line is told; the first process of each machine does.
        lost: told that a process which Lightning has started is dead, by another thread than the main one, which cannot
            be called back from where it waits; it ends the program.
    """

    patience = 5.0  #: seconds before the first line, for processes of this machine, which have torch to load

    def __init__(self, trainer: Trainer, say: Say = _say, lost: Lost | None = None) -> None:
        self.trainer, self.say, self.lost = trainer, say, lost
        self.waits = False

    @contextmanager
    def told(self) -> Iterator[None]:
        """Around a fit: while the trainer's strategy sets up its environment, which is where it waits.

        Raises:
            RunError: not all have come in time.
        """
        strategy = self.trainer.strategy
        if self.trainer.world_size == 1:
            yield
            return
        theirs = strategy.setup_environment

        def setup_environment() -> None:
            self.begun, self.waits, over = time.time(), True, threading.Event()
            if local_rank() == 0:
                threading.Thread(target=self._tell, args=(over,), daemon=True).start()
            try:
                theirs()
            except (DistStoreError, DistNetworkError) as error:
                raise RunError(f"{self.missing()} did not come to {self._place()} in time") from error
            finally:
                self.waits = False
                over.set()

        strategy.setup_environment = setup_environment  # type: ignore[method-assign]
        try:
            yield
        finally:
            del strategy.setup_environment

    def _tell(self, over: threading.Event) -> None:
        patience = 1.0 if self.trainer.num_nodes > 1 else self.patience
        if self._over(over, patience):
            return
        until = datetime.fromtimestamp(self.begun) + self._timeout()
        told = self.missing()
        self.say(f"waiting for {told} at {self._place()}, until {until:%H:%M:%S}{self._how_to_come()}")
        while not self._over(over, self.patience):
            if (now := self.missing()) != told:
                told = now
                self.say(f"waiting for {told}")

    def _over(self, over: threading.Event, seconds: float) -> bool:
        """Wait for the end of the rendezvous; whether it has come. A process that is dead will not come to it."""
        end = time.monotonic() + seconds
        while not (ended := over.wait(max(0.0, min(0.5, end - time.monotonic())))) and time.monotonic() < end:
            if self.lost is not None and (dead := self._dead()):
                self.lost(dead)
        return ended

    def _dead(self) -> str:
        """Which of the processes that Lightning has started is dead, and how it ended; empty where all live."""
        started = getattr(self.trainer.strategy.launcher, "procs", ())
        for rank, process in enumerate(started, 1):
            if (code := process.poll()) is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                return f"process {rank} of {len(started) + 1} has ended ({how}) before all had come together"
        return ""

    def missing(self) -> str:
        """Who has not come, as far as that can be known."""
        world, nodes = self.trainer.world_size, self.trainer.num_nodes
        there = self._there()
        of = f"{world} processes" + (f" (trainer.num_nodes={nodes})" if nodes > 1 else "")
        return f"the other ones of {of}" if there is None else f"{world - there} of {of}"

    def _place(self) -> str:
        return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"

    def _timeout(self) -> timedelta:
        return getattr(self.trainer.strategy, "_timeout", None) or default_pg_timeout

    def _how_to_come(self) -> str:
        """What to type on the other machines, where nobody but the user starts anything there."""
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        if (
            self.trainer.num_nodes == 1
            or detect_launch() is not None
            or not isinstance(environment, LightningEnvironment)
        ):
            return ""
        return (
            "; each machine runs this command with its own NODE_RANK=0, 1, ... and the same MASTER_ADDR and MASTER_PORT"
        )

    def _there(self) -> int | None:
        """How many processes have come: each has one connection to the port. Only the machine of the first can say."""
        port = os.environ.get("MASTER_PORT", "")
        if not (self.trainer.is_global_zero and port.isdigit()) or "TORCHELASTIC_USE_AGENT_STORE" in os.environ:
            return None
        there = 0
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                lines = Path(table).read_text().splitlines()[1:]
            except OSError:
                return None
            for local, state in ((line.split()[1], line.split()[3]) for line in lines):
                there += state == "01" and int(local.rpartition(":")[2], 16) == int(port)  # established
        return max(1, min(there, self.trainer.world_size - 1))
